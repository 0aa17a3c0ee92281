"""The one thread that writes: what is accepted while it writes goes to disk together, next."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
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
    """A transaction on its way to disk, the epoch it was decided in, and who waits for it."""

    number: int
    epoch: int
    transaction: Transaction
    writes: list[Write]
    size: int
    done: asyncio.Future[None]


class Writer:
    """Takes accepted transactions in order and writes them in batches, each whole or not at all.

    Group commit without a delay: a batch is what has queued up while the one before was synced.
    `write` is called in the thread with the writes of a batch; `report` on the event loop with the
    transactions of a batch and its error.

    The rule of epochs: what is accepted has been decided upon everything accepted before. So when a
    batch fails, nothing that was accepted after it may be written either. The thread remembers the
    epoch of the failed batch and drops, without a report, whatever else arrives from that epoch or
    an earlier one. The event loop, when it hears of the failure, fails all that it has accepted and
    begins a new epoch; until it hears of it, it goes on accepting into the old one, which the
    thread drops. Both ends agree without a lock.
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
        self._queue: queue.SimpleQueue[Accepted | None] = queue.SimpleQueue()
        self._failed_epoch = -1
        self.counts = WriteCounts()
        self._thread = threading.Thread(target=self._run, name="runstream-writer", daemon=True)
        self._thread.start()

    def send(self, accepted: Accepted) -> None:
        """Hand over a transaction; it is written even if nobody waits for it any more."""
        self._queue.put(accepted)

    async def stop(self) -> None:
        """Write what was sent, then end the thread; every report is in when this returns."""
        self._queue.put(None)
        # The thread hands its last report to the event loop before it ends, so that one comes first.
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        going_on = True
        while going_on:
            batch, going_on = self._gather()
            batch = [accepted for accepted in batch if accepted.epoch > self._failed_epoch]
            if not batch:
                continue
            begun = time.perf_counter()
            error = self._try(batch)
            if error is None:
                sizes = [accepted.size for accepted in batch if accepted.writes]
                self.counts.note_batch(sizes, time.perf_counter() - begun)
            else:
                self.counts.failures += 1
                self._failed_epoch = batch[-1].epoch
            self._loop.call_soon_threadsafe(self._report, batch, error)

    def _gather(self) -> tuple[list[Accepted], bool]:
        """Wait for a transaction, then take along all that stand behind it.

        Tell whether to go on afterwards.
        """
        first = self._queue.get()
        if first is None:
            return [], False
        batch, size = [first], first.size
        while size < _BATCH_BYTES:
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                break
            if following is None:
                return batch, False
            batch.append(following)
            size += following.size
        return batch, True

    def _try(self, batch: list[Accepted]) -> Exception | None:
        try:
            self._write(write for accepted in batch for write in accepted.writes)
        # Whatever it is: the batch is not on disk, and its callers wait.
        except Exception as error:  # noqa: BLE001
            return error
        return None
