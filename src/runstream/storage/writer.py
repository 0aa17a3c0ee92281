"""The one thread that writes: what is accepted while it writes goes to disk together, next."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runstream.storage.write_counts import WriteCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runstream.storage.overlay import Write
    from runstream.storage.store import Transaction

#: How many bytes one write to the log gathers. LevelDB holds a batch in memory about three times.
_BATCH_BYTES: Final = 4 << 20


@dataclass(slots=True)
class Accepted:
    """A transaction on its way to disk, and who waits for it."""

    number: int
    transaction: Transaction
    writes: list[Write]
    #: How many bytes each record takes that it puts, in their order.
    record_bytes: list[int]
    size: int
    done: asyncio.Future[None]


class Writer:
    """Takes accepted transactions in order and writes them in batches, each whole or not at all.

    Group commit without a delay: a batch is what has queued up while the one before was synced, or in one turn of the
    event loop when the disk is idle. `write` is called in the thread with the writes of a batch; `report` on the event
    loop with the transactions of a batch and its error.

    The thread has one batch at a time, and is woken once for each: to wake it for every transaction costs more than
    all else that is done for one. So when a batch fails, the event loop hears of it before anything else is handed
    over, and drops what waits: that was decided upon the failed batch, and may not be written either.
    """

    def __init__(
        self,
        write: Callable[[Iterable[Write]], None],
        report: Callable[[list[Accepted], Exception | None], None],
    ) -> None:
        """Start the thread; called on the event loop."""
        self._write = write
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Accepted] = deque()
        #: Whether the thread has a batch, or will be given one at the end of this turn of the loop.
        self._busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._queue: queue.SimpleQueue[list[Accepted] | None] = queue.SimpleQueue()
        self.counts = WriteCounts()
        self._thread = threading.Thread(target=self._run, name="runstream-writer", daemon=True)
        self._thread.start()

    def send(self, accepted: Accepted) -> None:
        """Take a transaction; it is written even if nobody waits for it any more."""
        self._waiting.append(accepted)
        if not self._busy:
            self._busy = True
            self._idle.clear()
            self._loop.call_soon(self._hand_over)

    async def stop(self) -> None:
        """Write what was sent, then end the thread; every report is in when this returns."""
        await self._idle.wait()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _hand_over(self) -> None:
        """Give the thread what waits, up to a size; or know that it has nothing to do."""
        batch, size = [], 0
        while self._waiting and size < _BATCH_BYTES:
            accepted = self._waiting.popleft()
            batch.append(accepted)
            size += accepted.size
        if batch:
            self._queue.put(batch)
        else:
            self._busy = False
            self._idle.set()

    def _hear(self, batch: list[Accepted], error: Exception | None) -> None:
        """Go on with the next batch, so that the disk is not idle meanwhile, and report this one."""
        if error is not None:
            self._waiting.clear()
        self._hand_over()
        self._report(batch, error)

    def _run(self) -> None:
        while (batch := self._queue.get()) is not None:
            begun = time.perf_counter()
            error = self._try(batch)
            if error is None:
                sizes = [accepted.size for accepted in batch if accepted.writes]
                self.counts.note_batch(sizes, time.perf_counter() - begun)
            else:
                self.counts.failures += 1
            self._loop.call_soon_threadsafe(self._hear, batch, error)

    def _try(self, batch: list[Accepted]) -> Exception | None:
        try:
            self._write(write for accepted in batch for write in accepted.writes)
        # Whatever it is: the batch is not on disk, and its callers wait.
        except Exception as error:  # noqa: BLE001
            return error
        return None
