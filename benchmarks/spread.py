"""Spread: what is told of many samples of one quantity."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Spread:
    """How samples are spread, in their own unit; a percentile is a sample that was taken, never between two."""

    count: int
    least: float
    p50: float
    p90: float
    p99: float
    p999: float
    most: float
    mean: float

    @classmethod
    def of(cls, samples: Iterable[float]) -> Spread:
        """Sort the samples and look; ValueError when there is none."""
        ordered = sorted(samples)
        if not ordered:
            raise ValueError("there are no samples")

        def at(share: float) -> float:
            return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

        return cls(
            count=len(ordered),
            least=ordered[0],
            p50=at(0.5),
            p90=at(0.9),
            p99=at(0.99),
            p999=at(0.999),
            most=ordered[-1],
            mean=statistics.fmean(ordered),
        )
