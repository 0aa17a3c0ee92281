"""The reads that look at many keys, as walks that can be interrupted after every step.

A walk is a generator: it yields after each step, so that whoever drives it decides how much is done
where, and returns its answer at the end. It reads one LevelDB snapshot, hence one durable state,
and never decodes a record. Raw iterators are used since the plain ones of plyvel end quietly at an
unreadable block; these raise.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from runstream.storage import keys

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

#: How many neighbours a cursor tries before it seeks: a step costs a fifth of a seek.
_NEAR: Final = 3


class Cursor:
    """The ids behind one key prefix, newest first."""

    def __init__(self, iterator: Any, prefix: bytes) -> None:  # noqa: ANN401  # plyvel has no types
        """Take a raw iterator of its own and the prefix."""
        self._iterator = iterator
        self._prefix = prefix
        self._id: bytes | None = None
        self._started = False

    def below(self, bound: bytes) -> bytes | None:
        """Move to the newest id below `bound` and return it, or None at the end.

        Bounds must not rise.
        """
        for _ in range(_NEAR if self._started else 0):
            if self._id is None or self._id < bound:
                return self._id
            self._iterator.prev()
            self._load()
        if not self._started or (self._id is not None and self._id >= bound):
            self._seek(bound)
        return self._id

    def _seek(self, bound: bytes) -> None:
        self._started = True
        self._iterator.seek(self._prefix + bound)
        if self._iterator.valid():
            self._iterator.prev()
        else:
            self._iterator.seek_to_last()
        self._load()

    def _load(self) -> None:
        self._id = None
        if self._iterator.valid():
            key: bytes = self._iterator.key()
            if key.startswith(self._prefix):
                self._id = key[len(self._prefix) :]


def ids(
    snapshot: Any,  # noqa: ANN401  # plyvel has no types
    groups: Sequence[Sequence[bytes]],
    bounds: tuple[bytes, bytes],
    limit: int,
) -> Generator[None, None, list[bytes]]:
    """Return up to `limit` ids within `bounds` that stand behind a prefix of every group.

    Newest first.

    The lower bound is included, the upper one left out. The groups leap over each other: each is
    asked for its newest id at or below the oldest that the others have named. So the cost is that
    of the page and of the ids that only some groups have nearby, not of everything that is stored.
    """
    lower, bound = bounds
    found: list[bytes] = []
    with ExitStack() as stack:
        cursors = [[_cursor(stack, snapshot, prefix) for prefix in group] for group in groups]
        while len(found) < limit:
            newest = oldest = _newest(cursors[0], bound)
            for group in cursors[1:]:
                if oldest is None:
                    break
                oldest = _newest(group, oldest + b"\x00")
            if oldest is None or oldest < lower:
                break
            if oldest == newest:
                found.append(oldest)
                bound = oldest
            else:
                bound = oldest + b"\x00"
            yield
    return found


def values(
    snapshot: Any,  # noqa: ANN401  # plyvel has no types
    start: bytes,
    stop: bytes,
    limit: int,
    max_bytes: int,
) -> Generator[None, None, list[tuple[bytes, bytes]]]:
    """Return up to `limit` keys and values in [start, stop); ends once `max_bytes` are reached."""
    found: list[tuple[bytes, bytes]] = []
    size = 0
    with snapshot.raw_iterator(verify_checksums=True) as iterator:
        for key in _forward(iterator, start, stop):
            if len(found) >= limit or (found and size >= max_bytes):
                break
            value: bytes = iterator.value()
            found.append((key, value))
            size += len(value)
            yield
    return found


def pairs(
    snapshot: Any,  # noqa: ANN401  # plyvel has no types
    start: bytes,
    max_bytes: int,
) -> Generator[None, None, list[tuple[bytes, bytes]]]:
    """Return the keys and values from `start` on, to the one that makes it `max_bytes` or to the end."""
    found: list[tuple[bytes, bytes]] = []
    size = 0
    # What is read once, by whoever reads everything, is not to push out of the cache what others read often.
    with snapshot.raw_iterator(verify_checksums=True, fill_cache=False) as iterator:
        iterator.seek(start)
        while size < max_bytes and iterator.valid():
            key, value = iterator.item()
            found.append((key, value))
            size += len(key) + len(value)
            iterator.next()
            yield
    return found


def span(
    snapshot: Any,  # noqa: ANN401  # plyvel has no types
    start: bytes,
    stop: bytes,
    limit: int,
) -> Generator[None, None, list[bytes]]:
    """Return up to `limit` keys from `start` to before `stop`."""
    found: list[bytes] = []
    with snapshot.raw_iterator(verify_checksums=True) as iterator:
        for key in _forward(iterator, start, stop):
            if len(found) >= limit:
                break
            found.append(key)
            yield
    return found


def count(
    snapshot: Any,  # noqa: ANN401  # plyvel has no types
    prefix: bytes,
    limit: int,
    pending: tuple[set[bytes], set[bytes]],
) -> Generator[None, None, int]:
    """Count the keys that begin with `prefix`, up to `limit`; `pending` are those to come and go."""
    added, removed = pending
    seen = 0
    with snapshot.raw_iterator(verify_checksums=True) as iterator:
        for key in _forward(iterator, prefix, prefix + keys.BEHIND_IDS):
            if seen + len(added) >= limit:
                break
            if key not in removed:
                seen += 1
            # Written between its acceptance and this snapshot: counted as found, not as to come.
            added.discard(key)
            yield
    return max(0, min(limit, seen + len(added)))


def _forward(iterator: Any, start: bytes, stop: bytes) -> Iterator[bytes]:  # noqa: ANN401
    """Yield the keys from `start` to before `stop`.

    The iterator stands at each while it is looked at.
    """
    iterator.seek(start)
    while iterator.valid():
        key: bytes = iterator.key()
        if key >= stop:
            return
        yield key
        iterator.next()


def _cursor(stack: ExitStack, snapshot: Any, prefix: bytes) -> Cursor:  # noqa: ANN401
    return Cursor(stack.enter_context(snapshot.raw_iterator(verify_checksums=True)), prefix)


def _newest(group: Sequence[Cursor], bound: bytes) -> bytes | None:
    return max((found for cursor in group if (found := cursor.below(bound)) is not None), default=None)
