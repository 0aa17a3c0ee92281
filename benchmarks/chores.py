"""Chores: what a server does in the background, and what that does to the calls that are made meanwhile.

Updates at a steady pace, one in flight: with nothing else going on, while backups are taken one after another, and
while retention deletes what has ended long ago. The three run in turns, over copies of one folder. What was deleted is
counted afterwards, and a run in which nothing was, or no backup was whole, fails.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from benchmarks.figure import Figure, Measurement
from benchmarks.population import populate
from benchmarks.resources import Resources, text
from benchmarks.server_process import server
from benchmarks.spread import Spread
from benchmarks.wire import Connection, answer
from runstream.storage import keys
from runstream.storage.offline import OfflineFolder
from runstream.storage.records import EXECUTION_HEAD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.figure import Run
    from benchmarks.server_process import ServerProcess

_BYTES: Final = 512
_PER_SECOND: Final = 100
#: Long enough for retention to have begun.
_SETTLE_SECONDS: Final = 2.0
#: What was made up ended before that.
_KEPT: Final = "1m"


def measure(run: Run) -> Measurement:
    """Measure the three in turns. RuntimeError when what is to go on in the background does not."""
    stored, rounds, updates = run.of(200_000, 20_000), run.of(5, 2), run.of(1_000, 200)
    population = populate(run.kept, stored, run.seed)
    alone, backing_up, deleting = [], [], []
    backups, deleted, seconds = 0, 0, 0.0
    for number in range(rounds):
        data = run.scratch / f"chores-{number}"
        shutil.copytree(population.data, data)
        with server(data, **run.settings) as target:
            alone.append(_paced(target, updates))
            with _backups(target, data.with_suffix(".backup")) as taken:
                backing_up.append(_paced(target, updates))
            backups += len(taken)
        before = _count(data)
        begun = time.monotonic()
        with server(data, retain=_KEPT, **run.settings) as target:
            deleting.append(_paced(target, updates))
            seconds += time.monotonic() - begun
        deleted += before + 1 - _count(data)  # one more was made meanwhile
        shutil.rmtree(data)
    if deleted <= 0:
        raise RuntimeError("retention has deleted nothing")
    quiet, beside_backup, beside_deletion = map(_middle, (alone, backing_up, deleting))
    return Measurement(
        figures=[
            Figure(f"UpdateStatus at {_PER_SECOND}/s, nothing else going on, p50", quiet.p50 * 1e3, "ms"),
            Figure("  p99", quiet.p99 * 1e3, "ms"),
            Figure("  while backups are taken, p50 / alone", _ratio(backing_up, alone)),
            Figure("  while backups are taken, p99", beside_backup.p99 * 1e3, "ms"),
            Figure("  while retention deletes, p50 / alone", _ratio(deleting, alone)),
            Figure("  while retention deletes, p99", beside_deletion.p99 * 1e3, "ms"),
            Figure("  executions that retention deletes", deleted / seconds, "/s"),
        ],
        conditions=f"{stored:,} executions stored; {updates} updates of {_BYTES} B in a turn, {rounds} rounds; ratios"
        f" are their medians; {backups} whole backups over gRPC, by a client on the load's core",
        spreads={"alone, s": quiet, "beside backups, s": beside_backup, "beside retention, s": beside_deletion},
    )


def _paced(target: ServerProcess, updates: int) -> Spread:
    """Update an execution at the given pace, or as fast as the server takes it; return how long each call took."""
    with Resources(target.address) as resources:
        execution_id = resources.at_work(resources.agent())
        connection = Connection(target.address)
        call, took = text(execution_id, _BYTES), []
        time.sleep(_SETTLE_SECONDS)
        begun = time.monotonic()
        for number in range(updates):
            time.sleep(max(0.0, begun + number / _PER_SECOND - time.monotonic()))
            called = time.perf_counter()
            answer(connection, call)
            took.append(time.perf_counter() - called)
        connection.close()
        if resources.revision(execution_id) != updates + 2:
            raise RuntimeError(f"{updates} updates were acknowledged, and are not all there")
        resources.complete(execution_id)
    return Spread.of(took)


@contextmanager
def _backups(target: ServerProcess, file: Path) -> Iterator[list[int]]:
    """Take one backup after another as long as the block runs; it has their sizes once it is left."""
    over, sizes = threading.Event(), list[int]()
    command = [sys.executable, "-m", "runstream.cli.main", "--server", target.address, "backup", str(file)]

    def take() -> None:
        while not over.is_set():
            subprocess.run(command, check=True, capture_output=True)
            sizes.append(file.stat().st_size)
            file.unlink()

    taking = threading.Thread(target=take)
    taking.start()
    try:
        yield sizes
    finally:
        over.set()
        taking.join()
    if not sizes:
        raise RuntimeError("no backup was whole")


def _count(data: Path) -> int:
    """Tell how many executions are in a folder that no server holds."""
    with OfflineFolder.open(data, purpose="benchmark") as folder, folder.view() as view:
        return sum(1 for _ in view.pairs(keys.records(EXECUTION_HEAD)))


def _middle(spreads: list[Spread]) -> Spread:
    return sorted(spreads, key=lambda spread: spread.p50)[len(spreads) // 2]


def _ratio(spreads: list[Spread], others: list[Spread]) -> float:
    return statistics.median(one.p50 / other.p50 for one, other in zip(spreads, others, strict=True))
