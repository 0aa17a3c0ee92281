"""Chunks: stretches of logs as they are stored, each read once for all readers that are in step.

Changes are sent as they are stored, so nobody decodes or encodes one. Readers near the end of a log ask for the same
stretch, one after the other; what they ask for is remembered. It never goes stale: a log only grows, until its
execution is deleted.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from runstream.storage.store import Store

#: Changes in the order of the log: the revision of each, and its bytes.
Chunk: TypeAlias = list[tuple[int, bytes]]

#: How much of a log one read takes: enough to be quick, little enough that a thousand slow readers hold little.
CHUNK_CHANGES: Final = 128
CHUNK_BYTES: Final = 32 << 10
#: Of how many stretches is remembered what they hold; one with a very large change is not.
_KEPT: Final = 256
_LARGEST_KEPT: Final = 2 * CHUNK_BYTES


class Chunks:
    """Reads logs, and remembers what several may ask for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: OrderedDict[tuple[str, int, int], Chunk] = OrderedDict()
        #: How often a log was forgotten.
        self._forgotten = 0

    async def read(self, execution_id: str, after: int, last: int) -> Chunk:
        """Return durable changes after revision `after`, to `last` at most; not all of them, if they are many."""
        limit = min(CHUNK_CHANGES, last - after)
        key = (execution_id, after, limit)
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        forgotten = self._forgotten
        chunk = await self._store.encoded_changes(execution_id, after=after, limit=limit, max_bytes=CHUNK_BYTES)
        # What was read of a log that was forgotten meanwhile is for its caller alone.
        if forgotten == self._forgotten and sum(len(data) for _, data in chunk) <= _LARGEST_KEPT:
            self._kept[key] = chunk
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return chunk

    def forget(self, execution_id: str) -> None:
        """Forget a log that was deleted: one of the same id may be taken in from elsewhere."""
        self._forgotten += 1
        for key in [key for key in self._kept if key[0] == execution_id]:
            del self._kept[key]
