r"""How everything the store keeps is laid out in one ordered space of keys (stored format 1).

    key      = record | change | entry | name | expiry
    record   = "r" tag id                         -> the message
    change   = "c" text(execution) revision       -> the ExecutionChange
    entry    = "i" tag text(index) text(value) id -> nothing
    name     = "u" text(index) text(scope) text(value) -> the id of the holder
    expiry   = "e" time id                        -> nothing; id is that of an idempotency record

    tag      = one letter per kind of record, see `_TAGS`
    id       = UTF-8, up to the end of the key
    text(s)  = UTF-8 of s, each byte 00 written as 00 FF, then 00 01
    revision = 8 bytes, big-endian
    time     = 8 bytes, big-endian: milliseconds since the epoch

Bytes sort as the numbers and ids in them do: the changes of one execution stand together in the
order of their revisions, and the entries of one (index, value) in the order of their ids, which is
that of creation. No text is the beginning of another one, so nothing that a client chose can reach
into the part behind it. Whoever changes a letter or a rule here must raise the number in
`folder.FORMAT`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from runstream.model.ids import first_id_at

if TYPE_CHECKING:
    from runstream.storage.records import M, RecordKind
    from runstream.storage.store import Range, Term, Unique

ENTRY: Final = b"i"
EXPIRY: Final = b"e"
#: Greater than every id, since UTF-8 has no byte FF.
BEHIND_IDS: Final = b"\xff"

_END: Final = b"\x00\x01"
_NUMBER_BYTES: Final = 8
_TAGS: Final = {
    "agent": b"a",
    "agent_instance": b"i",
    "session": b"s",
    "agent_execution": b"x",
    "execution_head": b"h",
    "execution_secrets": b"e",
    "status_snapshot": b"n",
    "tombstone": b"t",
    "idempotency": b"k",
}
_ULID_TIME_BITS: Final = 48


def records(kind: RecordKind[M]) -> bytes:
    """Return what the keys of all records of a kind begin with; the id follows."""
    return b"r" + _TAGS[kind.name]


def record(kind: RecordKind[M], record_id: str) -> bytes:
    """Return the key of a record."""
    return records(kind) + _utf8(record_id)


def changes(execution_id: str) -> bytes:
    """Return what the keys of all changes of an execution begin with; the revision follows."""
    return b"c" + _text(execution_id)


def change(execution_id: str, revision: int) -> bytes:
    """Return the key of a change; a revision that does not fit is a `ValueError`."""
    return changes(execution_id) + _number(revision)


def changes_end(execution_id: str) -> bytes:
    """Return a key behind all changes of an execution."""
    return changes(execution_id) + b"\xff" * (_NUMBER_BYTES + 1)


def change_revision(key: bytes) -> int:
    """Return the revision in the key of a change; anything else is a `ValueError`."""
    if key[:1] != b"c" or key[1:].find(_END) != len(key) - _NUMBER_BYTES - len(_END) - 1:
        msg = f"not the key of a change: {key!r}"
        raise ValueError(msg)
    return int.from_bytes(key[-_NUMBER_BYTES:], "big")


def entries(kind: RecordKind[M], term: Term) -> bytes:
    """Return what the keys of all entries under a term begin with; the id follows."""
    return _index(kind.name, term.index) + _text(term.value)


def entry(kind: RecordKind[M], record_id: str, term: Term) -> bytes:
    """Return the key of the entry that finds a record under a term."""
    # As `entries` with the id behind it, in fewer calls: a commit has more of these than of anything else.
    return _index(kind.name, term.index) + _text(term.value) + _utf8(record_id)


def name(unique: Unique) -> bytes:
    """Return the key of a name that one record may hold."""
    return b"u" + _text(unique.index) + _text(unique.scope) + _text(unique.value)


def expiry(time_ms: int, record_id: str) -> bytes:
    """Return the key that finds an idempotency record by its expiry.

    Times before the epoch count as the epoch.
    """
    return EXPIRY + _number(max(0, time_ms)) + _utf8(record_id)


def expiry_id(key: bytes) -> str:
    """Return the id in an expiry key; anything else is a `ValueError`."""
    if key[:1] != EXPIRY or len(key) < 1 + _NUMBER_BYTES:
        msg = f"not an expiry key: {key!r}"
        raise ValueError(msg)
    return decode_id(key[1 + _NUMBER_BYTES :])


def encode_id(record_id: str) -> bytes:
    """Return an id as it stands at the end of a key."""
    return _utf8(record_id)


def decode_id(tail: bytes) -> str:
    """Return the id at the end of a key; bytes that are none are a `ValueError`."""
    return tail.decode("utf-8", "surrogatepass")


def id_bounds(kind: RecordKind[M], span: Range) -> tuple[bytes, bytes]:
    """Return the ends of an id range in bytes: the first is included, the second left out.

    A range over a kind whose ids carry no time is a `ValueError`.
    """
    if span.start is None and span.stop is None:
        return b"", BEHIND_IDS
    if not kind.id_prefix:
        msg = f"the ids of {kind.name} carry no time"
        raise ValueError(msg)
    lower = b"" if span.start is None else _first_id(kind.id_prefix, span.start)
    upper = BEHIND_IDS if span.stop is None else _first_id(kind.id_prefix, span.stop)
    return lower, upper


def _first_id(prefix: str, time_ms: int) -> bytes:
    """Return what sorts before all ids of a time and behind all ids of earlier ones."""
    if time_ms >= 1 << _ULID_TIME_BITS:
        return BEHIND_IDS
    return first_id_at(prefix, max(0, time_ms)).encode()


def _utf8(text: str) -> bytes:
    # Lone surrogates are let through so that the mapping is total: what cannot be stored should not
    # crash a lookup.
    return text.encode("utf-8", "surrogatepass")


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass").replace(b"\x00", b"\x00\xff") + _END


@lru_cache(maxsize=256)
def _index(kind: str, index: str) -> bytes:
    """Return what the keys of all entries of an index begin with; there are a few dozen, none named by a client."""
    return ENTRY + _TAGS[kind] + _text(index)


def _number(number: int) -> bytes:
    try:
        return number.to_bytes(_NUMBER_BYTES, "big")
    except OverflowError:
        msg = f"{number} is not between 0 and 2^64 - 1"
        raise ValueError(msg) from None
