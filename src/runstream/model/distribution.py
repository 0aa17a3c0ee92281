"""Distributions: how many values fell between fixed bounds. Plain numbers without a lock, for one thread each."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Bounds for times, in seconds: from a quarter of a millisecond to ten seconds.
SECONDS: Final = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Bounds for numbers of things.
NUMBERS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 10_000)


class Distribution:
    """Counts values by the first bound that they do not pass; those beyond the last bound apart."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Take the bounds, in ascending order."""
        self.bounds = tuple(bounds)
        #: One number for each bound, and one for what is beyond the last.
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum: float = 0

    def note(self, value: float, times: int = 1) -> None:
        """Count a value, once or as many times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times
