"""Step times: how often each step of each command ran, and how long it took in all."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

_LOG = structlog.get_logger(__name__)


@dataclass(slots=True)
class StepTime:
    """The runs of one step, and their seconds in all."""

    runs: int = 0
    seconds: float = 0.0


class StepTimes:
    """Adds up what the pipelines measure, and writes each measurement to the debug log."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, str], StepTime] = {}

    def __call__(self, pipeline: str, step: str, seconds: float) -> None:
        """Take one measurement."""
        entry = self._times.setdefault((pipeline, step), StepTime())
        entry.runs += 1
        entry.seconds += seconds
        _LOG.debug("step", pipeline=pipeline, step=step, us=round(seconds * 1e6))

    def totals(self) -> dict[tuple[str, str], StepTime]:
        """The sums so far, by (pipeline, step)."""
        return dict(self._times)
