"""From a write to the eyes of those who watch: one execution, 25 updates a second, one viewer and a thousand.

Viewers use Watch, which sends every change. The time is taken before UpdateStatus is called, and again when the viewer
has the change in hand: so it holds the call, the commit and its sync, and the way to the viewer.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from benchmarks.figure import Figure, Measurement
from benchmarks.resources import Resources, text
from benchmarks.server_process import server
from benchmarks.spread import Spread
from benchmarks.viewing import Viewers, stamp, viewing
from benchmarks.wire import Connection, answer

if TYPE_CHECKING:
    from benchmarks.figure import Run
    from benchmarks.server_process import ServerProcess

_BYTES: Final = 160
_PER_SECOND: Final = 25
_MANY: Final = 1_000
_SETTLE_SECONDS: Final = 1.0


def measure(run: Run) -> Measurement:
    """Measure with one viewer, then with a thousand. RuntimeError when a viewer misses a change."""
    updates = run.of(500, 75)
    figures: list[Figure] = []
    cpu = 0.0
    spreads: dict[str, Spread] = {}
    with server(run.scratch / "viewers", **run.settings) as target:
        for count in (1, _MANY):
            ages, calls, cpu = _watched(target, count, updates)
            told = f"write to viewer, {count:,} viewer{'s' if count > 1 else ''}"
            figures += [
                Figure(f"{told}, p50", ages.p50 * 1e3, "ms", 2),
                Figure(f"{told}, p99", ages.p99 * 1e3, "ms", 20),
                Figure("  UpdateStatus meanwhile, p50", calls.p50 * 1e3, "ms"),
            ]
            spreads |= {f"{told}, s": ages, f"UpdateStatus with {count} viewers, s": calls}
        figures.append(Figure(f"server CPU per delivered message, {_MANY:,} viewers", cpu * 1e6, "us", 20))
    return Measurement(
        figures,
        conditions=f"Watch; {updates} updates of {_BYTES} B, {_PER_SECOND} a second, one in flight; up to 100 viewers"
        " on a connection, in up to two processes; the CPU includes that of the updates themselves",
        spreads=spreads,
    )


def _watched(target: ServerProcess, count: int, updates: int) -> tuple[Spread, Spread, float]:
    """Return how old changes were when they were seen, how long the writer's calls took, and CPU per message."""
    with Resources(target.address) as resources:
        execution_id = resources.at_work(resources.agent())
        viewers = Viewers(target.address, execution_id, count, after=1)
        with viewing(viewers, processes=min(2, count)) as watching:
            time.sleep(_SETTLE_SECONDS)
            before = target.cpu_seconds
            calls = _write(target.address, execution_id, updates)
            time.sleep(_SETTLE_SECONDS)
            used = target.cpu_seconds - before
            resources.complete(execution_id)
            ages = watching.ages()
    if len(ages) != count * updates:
        raise RuntimeError(f"{count * updates} messages were due to viewers, {len(ages)} came")
    return Spread.of(ages), Spread.of(calls), used / len(ages)


def _write(address: str, execution_id: str, updates: int) -> list[float]:
    """Write at the given pace, or as fast as the server takes it; return how long each call took."""
    took = []
    connection = Connection(address)
    begun = time.monotonic()
    for number in range(updates):
        time.sleep(max(0.0, begun + number / _PER_SECOND - time.monotonic()))
        called = time.perf_counter()
        answer(connection, text(execution_id, _BYTES, stamp()))
        took.append(time.perf_counter() - called)
    connection.close()
    return took
