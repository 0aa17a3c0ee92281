"""Chunks: stretches of logs as they are stored, each read once for all readers that are in step.

Changes are sent as they are stored, so nobody decodes or encodes one. Readers near the end of a log ask for the same
stretch, one after the other; what they ask for is remembered. It never goes stale: a log only grows, and one that is
purged is not read any more.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from runstream.storage.store import Store

#: Changes in the order of the log: the revision of each, and its bytes.
Chunk: TypeAlias = list[tuple[int, bytes]]

#: How much of a log one read takes: enough to be quick, little enough that a slow reader holds little.
CHUNK_CHANGES: Final = 256
CHUNK_BYTES: Final = 256 << 10
#: A longer stretch is for one reader that catches up.
_SHARED_CHANGES: Final = 16
_SHARED_BYTES: Final = 64 << 10
_KEPT: Final = 256


class Chunks:
    """Reads logs, and remembers what several may ask for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: OrderedDict[tuple[str, int, int], Chunk] = OrderedDict()

    async def read(self, execution_id: str, after: int, last: int) -> Chunk:
        """Return durable changes after revision `after`, to `last` at most; not all of them, if they are many."""
        key = (execution_id, after, last)
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        chunk = await self._store.encoded_changes(
            execution_id, after=after, limit=min(CHUNK_CHANGES, last - after), max_bytes=CHUNK_BYTES
        )
        if last - after <= _SHARED_CHANGES and sum(len(data) for _, data in chunk) <= _SHARED_BYTES:
            self._kept[key] = chunk
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return chunk
