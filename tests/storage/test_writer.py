from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from runstream.storage.store import Transaction
from runstream.storage.writer import Accepted, Writer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runstream.storage.overlay import Write


class Disk:
    """Takes down the batches it is given; waits before each for leave to go on, and fails on demand."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.reports: list[tuple[list[int], Exception | None]] = []
        self.begun = threading.Event()
        self.leave = threading.Event()
        self.reported = asyncio.Event()
        self.fails = False

    def write(self, writes: Iterable[Write]) -> None:
        """Take a batch."""
        self.begun.set()
        self.leave.wait()
        if self.fails:
            raise OSError("the disk is full")
        self.batches.append([key for key, _ in writes])

    def report(self, batch: list[Accepted], error: Exception | None) -> None:
        """Hear what became of a batch."""
        self.reports.append(([accepted.number for accepted in batch], error))
        self.reported.set()


def accepted(number: int, size: int = 10) -> Accepted:
    """A transaction with one write."""
    done = asyncio.get_running_loop().create_future()
    writes: list[Write] = [(str(number).encode(), b"")]
    return Accepted(number, Transaction(), writes, [], size, done)


async def test_what_queues_up_is_written_together() -> None:
    """While one batch is written the next one gathers, in order, up to a size."""
    disk = Disk()
    writer = Writer(disk.write, disk.report)
    writer.send(accepted(0))
    await asyncio.to_thread(disk.begun.wait)
    for number in range(1, 5):
        writer.send(accepted(number))
    writer.send(accepted(5, size=9 << 20))
    writer.send(accepted(6))
    disk.leave.set()
    await writer.stop()
    assert disk.batches == [[b"0"], [b"1", b"2", b"3", b"4", b"5"], [b"6"]]
    assert disk.reports == [([0], None), ([1, 2, 3, 4, 5], None), ([6], None)]


async def test_what_is_sent_in_one_turn_of_the_loop_is_written_together() -> None:
    """An idle disk is given all that one turn of the event loop has accepted, in one batch."""
    disk = Disk()
    disk.leave.set()
    writer = Writer(disk.write, disk.report)
    for number in range(3):
        writer.send(accepted(number))
    await writer.stop()
    assert disk.batches == [[b"0", b"1", b"2"]]


async def test_batches_are_counted_when_they_are_on_disk() -> None:
    """Transactions, bytes and batches count once they are written; a failed batch, and one that only waits, do not."""
    disk = Disk()
    disk.leave.set()
    writer = Writer(disk.write, disk.report)
    disk.fails = True
    writer.send(accepted(0))
    await disk.reported.wait()
    disk.fails = False
    disk.leave.clear()
    disk.begun.clear()
    writer.send(accepted(1))
    await asyncio.to_thread(disk.begun.wait)
    writer.send(accepted(2))
    writer.send(accepted(3, size=20))
    barrier = accepted(4, size=0)
    barrier.writes.clear()
    writer.send(barrier)
    disk.leave.set()
    await writer.stop()
    counts = writer.counts
    assert (counts.commits, counts.bytes, counts.failures) == (3, 40, 1)
    assert (sum(counts.batches.counts), counts.batches.sum, sum(counts.seconds.counts)) == (2, 3, 2)


async def test_nothing_decided_upon_a_failed_batch_is_written() -> None:
    """After a failure everything that waited is dropped unreported; what is decided after it is written."""
    disk = Disk()
    writer = Writer(disk.write, disk.report)
    disk.fails = True
    writer.send(accepted(0))
    await asyncio.to_thread(disk.begun.wait)
    writer.send(accepted(1))
    disk.leave.set()
    await disk.reported.wait()
    disk.fails = False
    writer.send(accepted(2))
    writer.send(accepted(3))
    await writer.stop()
    assert [number for batch, _ in disk.reports for number in batch] == [0, 2, 3]
    assert isinstance(disk.reports[0][1], OSError)
    assert disk.batches == [[b"2", b"3"]]
