"""Step times: how often each step of each command ran, and how long it took in all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

_LOG = structlog.get_logger(__name__)


@dataclass(slots=True)
class StepTime:
    """The runs of one step, and their seconds in all."""

    runs: int = 0
    seconds: float = 0.0

    def note(self, seconds: float) -> None:
        """Count one run."""
        self.runs += 1
        self.seconds += seconds


class StepTimes:
    """Adds up what the pipelines measure. `verbose`: writes each measurement to the debug log, too."""

    def __init__(self, *, verbose: bool = False) -> None:
        self._verbose = verbose
        self._times: dict[tuple[str, str], StepTime] = {}

    def __call__(self, pipeline: str, step: str) -> Callable[[float], None]:
        """Return what takes the measurements of one step of one pipeline, in seconds."""
        entry = self._times.setdefault((pipeline, step), StepTime())
        if not self._verbose:
            return entry.note

        def note_and_tell(seconds: float) -> None:
            entry.note(seconds)
            _LOG.debug("step", pipeline=pipeline, step=step, us=round(seconds * 1e6))

        return note_and_tell

    def totals(self) -> dict[tuple[str, str], StepTime]:
        """The sums so far, by (pipeline, step), of the steps that have run."""
        return {key: entry for key, entry in self._times.items() if entry.runs}
