"""Keys read back: what a key of the grammar in `keys` stands for. For those who look at every key there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from runstream.storage import keys
from runstream.storage.records import RECORD_KINDS
from runstream.storage.store import Term, Unique

if TYPE_CHECKING:
    from collections.abc import Callable

    from runstream.storage.records import AnyKind

_KINDS: Final[dict[bytes, AnyKind]] = {keys.records(kind)[1:]: kind for kind in RECORD_KINDS}
_END: Final = b"\x00\x01"
_ZERO: Final = b"\x00\xff"
_NUMBER_BYTES: Final = 8
_TAG_END: Final = 2


@dataclass(frozen=True, slots=True)
class RecordKey:
    """The key of a record."""

    kind: AnyKind
    id: str

    def encoded(self) -> bytes:
        """Return the key."""
        return keys.record(self.kind, self.id)


@dataclass(frozen=True, slots=True)
class ChangeKey:
    """The key of a change."""

    execution_id: str
    revision: int

    def encoded(self) -> bytes:
        """Return the key."""
        return keys.change(self.execution_id, self.revision)


@dataclass(frozen=True, slots=True)
class EntryKey:
    """The key of an index entry."""

    kind: AnyKind
    term: Term
    id: str

    def encoded(self) -> bytes:
        """Return the key."""
        return keys.entry(self.kind, self.id, self.term)


@dataclass(frozen=True, slots=True)
class NameKey:
    """The key of a name."""

    unique: Unique

    def encoded(self) -> bytes:
        """Return the key."""
        return keys.name(self.unique)


@dataclass(frozen=True, slots=True)
class ExpiryKey:
    """The key of an expiry."""

    time_ms: int
    id: str

    def encoded(self) -> bytes:
        """Return the key."""
        return keys.expiry(self.time_ms, self.id)


ParsedKey: TypeAlias = RecordKey | ChangeKey | EntryKey | NameKey | ExpiryKey


def parse(key: bytes) -> ParsedKey:
    """Return what a key stands for; ValueError for bytes that the grammar does not make."""
    reader = _READERS.get(key[:1])
    parsed = None if reader is None else reader(key)
    # Only what comes out again as it went in is of the grammar: a shorter way to write the same would never be found.
    if parsed is None or parsed.encoded() != key:
        msg = f"not a key of the store: {key!r}"
        raise ValueError(msg)
    return parsed


def change_owner(key: bytes) -> bytes | None:
    """Return the id, in bytes, of the execution whose change a key is; None for any other key.

    Far quicker than `parse`, for logs.
    """
    end = len(key) - _NUMBER_BYTES - len(_END)
    if key[:1] != b"c" or key.find(_END, 1) != end:
        return None
    return key[1:end].replace(_ZERO, b"\x00")


def _record(key: bytes) -> RecordKey:
    return RecordKey(_kind(key), keys.decode_id(key[_TAG_END:]))


def _change(key: bytes) -> ChangeKey:
    execution_id, at = _text(key, 1)
    return ChangeKey(execution_id, int.from_bytes(key[at:], "big"))


def _entry(key: bytes) -> EntryKey:
    index, at = _text(key, _TAG_END)
    value, at = _text(key, at)
    return EntryKey(_kind(key), Term(index, value), keys.decode_id(key[at:]))


def _name(key: bytes) -> NameKey:
    index, at = _text(key, 1)
    scope, at = _text(key, at)
    value, _ = _text(key, at)
    return NameKey(Unique(index, scope, value))


def _expiry(key: bytes) -> ExpiryKey:
    return ExpiryKey(int.from_bytes(key[1 : 1 + _NUMBER_BYTES], "big"), keys.expiry_id(key))


def _kind(key: bytes) -> AnyKind:
    kind = _KINDS.get(key[1:_TAG_END])
    if kind is None:
        msg = f"no kind of record has the tag {key[1:_TAG_END]!r}"
        raise ValueError(msg)
    return kind


def _text(key: bytes, start: int) -> tuple[str, int]:
    """Return the text that begins at `start`, and where it ends; ValueError when it does not."""
    end = key.index(_END, start)
    return keys.decode_id(key[start:end].replace(_ZERO, b"\x00")), end + len(_END)


_READERS: Final[dict[bytes, Callable[[bytes], ParsedKey]]] = {
    b"r": _record,
    b"c": _change,
    keys.ENTRY: _entry,
    b"u": _name,
    keys.EXPIRY: _expiry,
}
