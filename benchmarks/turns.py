"""Turns: loads that are compared run in turns, in one run, since what else a machine does changes by the second."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks.load import load

if TYPE_CHECKING:
    from benchmarks.load import Load
    from benchmarks.server_process import ServerProcess
    from benchmarks.spread import Spread
    from benchmarks.wire import Call


class Turns:
    """Several loads in turns, round after round; told by their medians."""

    def __init__(self, ways: dict[str, tuple[ServerProcess, list[Call]]]) -> None:
        self._ways = ways
        self.loads: dict[str, list[Load]] = {name: [] for name in ways}
        #: How many calls of each way were answered.
        self.made: dict[str, int] = {}

    def run(self, rounds: int, calls: int) -> None:
        """Let every way have its turn in every round, and half a turn before them, which warms and is not told."""
        for name, (target, repeated) in self._ways.items():
            self.made[name] = load(target, repeated, calls // 2).latency.count
        for _ in range(rounds):
            for name, (target, repeated) in self._ways.items():
                self.loads[name].append(load(target, repeated, calls))
                self.made[name] += self.loads[name][-1].latency.count

    def rate(self, name: str) -> float:
        """Return the calls per second of a way."""
        return statistics.median(each.rate for each in self.loads[name])

    def middle(self, name: str) -> Load:
        """Return the load of a way whose rate is the median."""
        return sorted(self.loads[name], key=lambda each: each.rate)[len(self.loads[name]) // 2]

    def ratio(self, name: str, other: str) -> float:
        """Return how the rates of two ways compare: the median over the rounds, each of which has both."""
        pairs = zip(self.loads[name], self.loads[other], strict=True)
        return statistics.median(one.rate / another.rate for one, another in pairs)

    def spreads(self, told: str) -> dict[str, Spread]:
        """Return the spread of each way's times, in seconds; `told` says how many calls were in flight."""
        return {f"{name}, {told}, s": self.middle(name).latency for name in self._ways}

    def seen(self, told: str) -> dict[str, list[dict[str, float]]]:
        """Return every round of each way."""
        return {
            f"{name}, {told}": [
                {"rate": each.rate, "server_busy": each.busy, "server_cpu_s": each.cpu} for each in loads
            ]
            for name, loads in self.loads.items()
        }
