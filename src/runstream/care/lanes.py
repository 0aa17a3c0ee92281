"""Lanes: the sorted pairs under several prefixes, walked side by side, id by id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.storage import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runstream.storage.offline import View


class Lane:
    """The pairs under one prefix, of which the one in front is known."""

    def __init__(self, view: View, prefix: bytes, owner: Callable[[bytes], bytes | None]) -> None:
        """Take the state, the prefix, and what returns the id in a key; keys for which it has None are left out."""
        self._pairs = view.pairs(prefix)
        self._owner = owner
        #: The id of the pair in front, None at the end.
        self.id: bytes | None = None
        self._front: tuple[bytes, bytes] = b"", b""
        self._go_on()

    def take(self, record_id: bytes) -> bytes | None:
        """Return the value in front and go on, if it is of this id; else None."""
        if self.id != record_id:
            return None
        _, value = self._front
        self._go_on()
        return value

    def take_all(self, record_id: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield all pairs of this id, going on after each."""
        while self.id == record_id:
            front = self._front
            self._go_on()
            yield front

    def _go_on(self) -> None:
        self.id = None
        for pair in self._pairs:
            owner = self._owner(pair[0])
            if owner is not None:
                self.id, self._front = owner, pair
                return


def record_owner(key: bytes) -> bytes | None:
    """Return the id, in bytes, in the key of a record; None when it is no text."""
    record_id = key[2:]
    try:
        keys.decode_id(record_id)
    except ValueError:
        return None
    return record_id


def ids(lanes: list[Lane]) -> Iterator[bytes]:
    """Yield each id that stands in front of a lane, in order; whoever gets it takes it from all lanes."""
    while waiting := [lane.id for lane in lanes if lane.id is not None]:
        yield min(waiting)
