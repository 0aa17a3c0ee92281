"""Whether a transaction may be committed on a state, and what it then writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from runstream.storage import keys
from runstream.storage.records import IDEMPOTENCY
from runstream.storage.store import ANY_REVISION, Conflict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

    from runstream.storage.overlay import Write
    from runstream.storage.records import AnyKind
    from runstream.storage.store import Expectation, Transaction


_NOTHING: Final = b""


class State(Protocol):
    """What a decision is made on: everything that was accepted."""

    def value(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None."""
        ...

    def record(self, kind: AnyKind, record_id: str) -> Message | None:
        """Return a record, not to be changed, or None."""
        ...

    def log_end(self, execution_id: str) -> int | None:
        """Return the newest revision of a log if it is known without a look at the disk, else None."""
        ...


class Decision(NamedTuple):
    """What a transaction writes, and how many bytes each record takes that it puts, in their order."""

    writes: list[Write]
    record_bytes: list[int]


def decide(state: State, transaction: Transaction) -> Decision:
    """Return what a transaction writes; raise `Conflict` when what it expects does not hold.

    Removals come before additions, so that what a transaction gives up and takes again is there
    afterwards.
    """
    for expectation in transaction.expectations:
        _check(state, expectation)
    writes: list[Write] = []
    if transaction.deletes:
        writes += _removals(state, transaction)
    record_bytes = _put(state, transaction, writes)
    if not transaction.in_place:
        writes += _terms(transaction)
    if transaction.claims or transaction.releases:
        writes += _names(state, transaction)
    _append(state, transaction, writes)
    return Decision(writes, record_bytes)


def _check(state: State, expected: Expectation) -> None:
    kind, record_id, revision = expected
    record = state.record(kind, record_id)
    if record is None:
        if revision is not None:
            raise Conflict(f"{kind.name} {record_id} does not exist")
    elif revision is None:
        raise Conflict(f"{kind.name} {record_id} exists")
    elif revision != ANY_REVISION and revision != kind.revision_of(record):
        raise Conflict(f"{kind.name} {record_id} is at revision {kind.revision_of(record)}, not {revision}")


def _removals(state: State, transaction: Transaction) -> Iterator[Write]:
    for kind, record_id in transaction.deletes:
        if kind is IDEMPOTENCY:
            yield from _old_expiry(state, record_id)
        yield keys.record(kind, record_id), None


def _put(state: State, transaction: Transaction, writes: list[Write]) -> list[int]:
    """Add the records that are put to the writes; return how many bytes each takes."""
    sizes = []
    for (kind, record_id), message in transaction.puts.items():
        if kind is IDEMPOTENCY:
            writes += _old_expiry(state, record_id)
        encoded = message.SerializeToString()
        writes.append((keys.record(kind, record_id), encoded))
        sizes.append(len(encoded))
        time_ms = _expiry_ms(message) if kind is IDEMPOTENCY else None
        if time_ms is not None:
            writes.append((keys.expiry(time_ms, record_id), _NOTHING))
    return sizes


def _old_expiry(state: State, record_id: str) -> Iterator[Write]:
    """Yield the removal of the expiry entry that stands for an idempotency record as it is now."""
    before = state.record(IDEMPOTENCY, record_id)
    time_ms = None if before is None else _expiry_ms(before)
    if time_ms is not None:
        yield keys.expiry(time_ms, record_id), None


def _expiry_ms(message: Message) -> int | None:
    """Return when an idempotency record may go, in milliseconds; None for one that stays."""
    if not message.HasField("expire_time"):
        return None
    expire_time = message.expire_time  # type: ignore[attr-defined]  # an IdempotencyRecord
    milliseconds: int = expire_time.ToMilliseconds()
    return milliseconds


def _terms(transaction: Transaction) -> Iterator[Write]:
    for kind, record_id, term in transaction.removed_terms:
        yield keys.entry(kind, record_id, term), None
    for kind, record_id, term in transaction.added_terms:
        yield keys.entry(kind, record_id, term), _NOTHING


def _names(state: State, transaction: Transaction) -> Iterator[Write]:
    for unique in transaction.releases:
        yield keys.name(unique), None
    for unique, record_id in transaction.claims.items():
        key = keys.name(unique)
        if unique not in transaction.releases and state.value(key) is not None:
            raise Conflict(f"the {unique.index} {unique.value!r} is taken")
        yield key, keys.encode_id(record_id)


def _append(state: State, transaction: Transaction, writes: list[Write]) -> None:
    """Add to the writes the additions to logs, each of which must go on where the log ends.

    The head that the caller expects says so already. Here it is checked against the log itself,
    since a change that is written over another, or behind a gap, cannot be repaired.
    """
    ends: dict[str, int] = {}
    for change, encoded in zip(transaction.changes, transaction.encoded_changes, strict=True):
        execution_id, revision = change.execution_id, change.revision
        end = ends.get(execution_id) or state.log_end(execution_id)
        if revision < 1:
            msg = f"change {revision} of {execution_id}: revisions begin at 1"
            raise ValueError(msg)
        if end is None:
            _check_place(state, execution_id, revision)
        elif revision <= end:
            raise Conflict(f"change {revision} of {execution_id} is there already")
        elif revision != end + 1:
            raise Conflict(f"change {revision} of {execution_id} has none before it")
        ends[execution_id] = revision
        writes.append((keys.change(execution_id, revision), encoded))


def _check_place(state: State, execution_id: str, revision: int) -> None:
    """Look in the log itself whether a change goes on where it ends."""
    if state.value(keys.change(execution_id, revision)) is not None:
        raise Conflict(f"change {revision} of {execution_id} is there already")
    if revision > 1 and state.value(keys.change(execution_id, revision - 1)) is None:
        raise Conflict(f"change {revision} of {execution_id} has none before it")
