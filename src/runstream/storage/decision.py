"""Whether a transaction may be committed on a state, and what it then writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runstream.storage import keys
from runstream.storage.records import IDEMPOTENCY
from runstream.storage.store import ANY_REVISION, Conflict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.message import Message

    from runstream.storage.overlay import Write
    from runstream.storage.records import AnyKind
    from runstream.storage.store import Expectation, Transaction
    from runstream.v1.agent_execution_pb2 import ExecutionChange


_NOTHING: Final = b""


def decide(view: Callable[[bytes], bytes | None], transaction: Transaction) -> list[Write]:
    """Return what a transaction writes; raise `Conflict` when what it expects does not hold.

    Removals come before additions, so that what a transaction gives up and takes again is there
    afterwards.
    """
    for expectation in transaction.expectations:
        _check(view, expectation)
    return [
        *_records(view, transaction),
        *_terms(transaction),
        *_names(view, transaction),
        *_changes(view, transaction.changes),
    ]


def _check(view: Callable[[bytes], bytes | None], expected: Expectation) -> None:
    value = view(keys.record(expected.kind, expected.id))
    what = f"{expected.kind.name} {expected.id}"
    if expected.revision is None:
        if value is not None:
            raise Conflict(f"{what} exists")
    elif value is None:
        raise Conflict(f"{what} does not exist")
    elif expected.revision != ANY_REVISION:
        revision = expected.kind.revision_of(expected.kind.message.FromString(value))
        if revision != expected.revision:
            raise Conflict(f"{what} is at revision {revision}, not {expected.revision}")


def _records(view: Callable[[bytes], bytes | None], transaction: Transaction) -> Iterator[Write]:
    for kind, record_id in transaction.deletes:
        yield from _old_expiry(view, kind, record_id)
        yield keys.record(kind, record_id), None
    for (kind, record_id), message in transaction.puts.items():
        yield from _old_expiry(view, kind, record_id)
        yield keys.record(kind, record_id), message.SerializeToString()
        time_ms = _expiry_ms(kind, message)
        if time_ms is not None:
            yield keys.expiry(time_ms, record_id), _NOTHING


def _old_expiry(view: Callable[[bytes], bytes | None], kind: AnyKind, record_id: str) -> Iterator[Write]:
    """Yield the removal of the expiry entry that stands for the record as it is now."""
    if kind.name != IDEMPOTENCY.name:
        return
    value = view(keys.record(kind, record_id))
    time_ms = None if value is None else _expiry_ms(kind, kind.message.FromString(value))
    if time_ms is not None:
        yield keys.expiry(time_ms, record_id), None


def _expiry_ms(kind: AnyKind, message: Message) -> int | None:
    """Return when a record may go, in milliseconds; None for one that stays."""
    if kind.name != IDEMPOTENCY.name or not message.HasField("expire_time"):
        return None
    expire_time = message.expire_time  # type: ignore[attr-defined]  # an IdempotencyRecord
    milliseconds: int = expire_time.ToMilliseconds()
    return milliseconds


def _terms(transaction: Transaction) -> Iterator[Write]:
    for kind, record_id, term in transaction.removed_terms:
        yield keys.entry(kind, record_id, term), None
    for kind, record_id, term in transaction.added_terms:
        yield keys.entry(kind, record_id, term), _NOTHING


def _names(view: Callable[[bytes], bytes | None], transaction: Transaction) -> Iterator[Write]:
    for unique in transaction.releases:
        yield keys.name(unique), None
    for unique, record_id in transaction.claims.items():
        key = keys.name(unique)
        if unique not in transaction.releases and view(key) is not None:
            raise Conflict(f"the {unique.index} {unique.value!r} is taken")
        yield key, keys.encode_id(record_id)


def _changes(view: Callable[[bytes], bytes | None], changes: list[ExecutionChange]) -> Iterator[Write]:
    """Yield the additions to logs, each of which must go on where the log ends.

    The head that the caller expects says so already. Here it is checked against the log itself,
    since a change that is written over another, or behind a gap, cannot be repaired.
    """
    added: set[bytes] = set()
    for change in changes:
        key = keys.change(change.execution_id, change.revision)
        what = f"change {change.revision} of {change.execution_id}"
        if key in added or view(key) is not None:
            raise Conflict(f"{what} is there already")
        if change.revision > 1:
            before = keys.change(change.execution_id, change.revision - 1)
            if before not in added and view(before) is None:
                raise Conflict(f"{what} has none before it")
        elif change.revision < 1:
            msg = f"{what}: revisions begin at 1"
            raise ValueError(msg)
        added.add(key)
        yield key, change.SerializeToString()
