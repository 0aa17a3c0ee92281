"""Figures: what a benchmark has reached, beside what is to be reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.spread import Spread


class Bound(Enum):
    """On which side of its target a figure has to be."""

    AT_LEAST = "at least"
    AT_MOST = "at most"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, with its target when it has one."""

    name: str
    reached: float
    unit: str = ""
    target: float | None = None
    bound: Bound = Bound.AT_MOST

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without a target."""
        if self.target is None:
            return None
        return self.reached <= self.target if self.bound is Bound.AT_MOST else self.reached >= self.target


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one benchmark has measured: its figures, how they were come by in a line or two, and all that lies below."""

    figures: list[Figure]
    conditions: str
    spreads: dict[str, Spread] = field(default_factory=dict)
    #: Whatever else was seen, as JSON has it.
    seen: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """How a run measures: with which engine, for how long, from which seed, and where it keeps its data."""

    engine: str
    quick: bool
    seed: int
    #: A folder of this run alone, empty at first.
    scratch: Path
    #: Where stored folders are kept from run to run.
    kept: Path

    def of(self, whole: int, quick: int) -> int:
        """Return how much of something there is: the first in a whole run, the second in a quick one."""
        return quick if self.quick else whole

    @property
    def settings(self) -> dict[str, object]:
        """The settings of every server in this run."""
        return {"engine": self.engine}
