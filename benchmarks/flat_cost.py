"""What an update costs when the execution is long, next to one that is short.

One execution is grown first. Then, in turns, it gets a number of updates, and one of a hundred changes gets as many. An
update costs what it takes one at a time, what the server computes for it, and what is written for it, many at a time.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Final

from benchmarks.figure import Figure, Measurement
from benchmarks.load import load
from benchmarks.resources import Resources, text
from benchmarks.server_process import server

if TYPE_CHECKING:
    from benchmarks.figure import Run
    from benchmarks.server_process import ServerProcess
    from benchmarks.spread import Spread

#: As a runner sends tokens; an answer of 100,000 such pieces has 10 MB.
_BYTES: Final = 160
_SHORT: Final = 100
_IN_FLIGHT: Final = 64


def measure(run: Run) -> Measurement:
    """Measure both in turns. RuntimeError when an acknowledged update is not there."""
    length, rounds, calls = run.of(100_000, 5_000), run.of(9, 3), run.of(200, 150)
    sides: dict[str, _Side] = {"short": _Side(), "long": _Side()}
    with server(run.scratch / "flat-cost", **run.settings) as target, Resources(target.address) as resources:
        agent_id = resources.agent()
        grown = resources.at_work(agent_id)
        grow(target, grown, length)
        for _ in range(rounds):
            young = resources.at_work(agent_id)
            grow(target, young, _SHORT)
            sides["short"].take(target, young, calls)
            sides["long"].take(target, grown, calls)
        if resources.revision(grown) != 2 + length + 2 * rounds * calls:
            raise RuntimeError("an acknowledged update is not there")
    return _told(sides["short"], sides["long"], length, rounds)


def grow(target: ServerProcess, execution_id: str, changes: int) -> None:
    """Stream so many pieces of text to an execution."""
    load(target, [text(execution_id, _BYTES)] * min(_IN_FLIGHT, changes), changes)


class _Side:
    """What the updates of one of the two have cost, round by round."""

    def __init__(self) -> None:
        self.times: list[Spread] = []
        self.cpu: list[float] = []
        self.written: list[float] = []

    def take(self, target: ServerProcess, execution_id: str, calls: int) -> None:
        done = load(target, [text(execution_id, _BYTES)], calls)
        self.times.append(done.latency)
        self.cpu.append(done.cpu)
        # Many at a time share a sync. One alone fills a whole page of the disk, which would hide what it writes.
        before = target.written_bytes
        load(target, [text(execution_id, _BYTES)] * _IN_FLIGHT, calls)
        self.written.append((target.written_bytes - before) / calls)


def _told(short: _Side, long: _Side, length: int, rounds: int) -> Measurement:
    times = statistics.median(one.p50 / other.p50 for one, other in zip(long.times, short.times, strict=True))
    written = statistics.median(long.written) / statistics.median(short.written)
    name = f"{length:,} changes / at {_SHORT}"
    return Measurement(
        figures=[
            Figure(f"time per update, at {name}", times, target=1.1),
            Figure(f"bytes written per update, at {name}", written, target=1.1),
            Figure(f"  update at {length:,} changes, p50", statistics.median(s.p50 for s in long.times) * 1e3, "ms"),
            Figure("  bytes written for it", statistics.median(long.written), "B"),
            Figure("  server CPU, ratio", statistics.median(long.cpu) / statistics.median(short.cpu)),
        ],
        conditions=f"{_BYTES} B requests, in turns, medians of {rounds} rounds; time at one in flight, bytes at 64:"
        " the log, its share of snapshots and of compaction, in pages as the kernel counts them",
        spreads={
            **{f"at {_SHORT}, round {number}, s": spread for number, spread in enumerate(short.times)},
            **{f"at {length}, round {number}, s": spread for number, spread in enumerate(long.times)},
        },
        seen={
            "written short": short.written,
            "written long": long.written,
            "cpu short": short.cpu,
            "cpu long": long.cpu,
        },
    )
