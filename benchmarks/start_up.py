"""How long a server needs from being started until it has answered its first call, with a million executions stored.

Cleanly: the server before had ended as asked. After kill -9: the server before was being written to when it was killed,
so that there is a log to read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.figure import Figure, Measurement
from benchmarks.load import load
from benchmarks.population import populate
from benchmarks.resources import Resources, text
from benchmarks.server_process import ServerProcess
from benchmarks.spread import Spread

if TYPE_CHECKING:
    from benchmarks.figure import Run
    from benchmarks.population import Population


def measure(run: Run) -> Measurement:
    """Start it over and over, one way and the other in turns."""
    stored, rounds = run.of(1_000_000, 50_000), run.of(9, 3)
    population = populate(run.kept, stored, run.seed)
    ServerProcess.start(population.data, **run.settings).stop()  # whatever stood open is closed
    clean, killed, used = [], [], []
    for _ in range(rounds):
        running = ServerProcess.start(population.data, **run.settings)
        clean.append(running.start_seconds)
        used.append(running.cpu_seconds)
        _write(running, population, run.of(4_000, 500))
        running.kill()
        running = ServerProcess.start(population.data, **run.settings)
        killed.append(running.start_seconds)
        running.stop()
    cleanly, after_kill = Spread.of(clean), Spread.of(killed)
    return Measurement(
        figures=[
            Figure(f"start-up with {stored:,} executions, cleanly", cleanly.p50, "s", 1),
            Figure(f"start-up with {stored:,} executions, after kill -9", after_kill.p50, "s", 1),
            Figure("  processor time until then, cleanly", Spread.of(used).p50, "s"),
            Figure("  the slowest of either", max(cleanly.most, after_kill.most), "s"),
        ],
        conditions=f"from spawn to the first answered health check, {rounds} times each, in turns; killed after updates"
        " that filled part of the database's log; the files are in the kernel's cache",
        spreads={"cleanly, s": cleanly, "after kill -9, s": after_kill},
    )


def _write(running: ServerProcess, population: Population, updates: int) -> None:
    """Leave something in the log: updates of an execution, which then ends: no more live from round to round."""
    with Resources(running.address) as resources:
        execution_id = resources.at_work(population.agents["common"])
        load(running, [text(execution_id, 512)] * 16, updates)
        resources.complete(execution_id)
