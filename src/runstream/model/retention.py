"""Retention: how long executions are kept after their end, by the phase that they ended in."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from runstream.model.phases import TERMINAL, phase_name

if TYPE_CHECKING:
    from collections.abc import Mapping

_PREFIX: Final = "EXECUTION_"
_PHASES: Final = {phase_name(phase).removeprefix(_PREFIX): phase for phase in sorted(TERMINAL)}
_UNITS: Final = {
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_SPAN: Final = re.compile(r"(?:\d+[mhdw])+")
_PART: Final = re.compile(r"(\d+)([mhdw])")
#: Whoever follows an execution must be able to see how it ended.
_SHORTEST: Final = timedelta(minutes=1)
_LONGEST: Final = timedelta(days=36_500)


def parse_retention(text: str) -> Mapping[int, timedelta]:
    """Return how long executions are kept, by terminal phase; those of a phase that is not in it are kept for ever.

    The text is a span, as `30d` or `1d12h`, for every terminal phase, or `PHASE=SPAN` for one, or several of these with
    commas between them, as in `30d,FAILED=90d`. An empty one keeps everything. ValueError, which says what is wrong.
    """
    every: dict[int, timedelta] = {}
    single: dict[int, timedelta] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, span = part.rpartition("=")
        phases = [_phase(name)] if equals else list(_PHASES.values())
        into = single if equals else every
        for phase in phases:
            if phase in into:
                raise ValueError(f"says twice how long to keep {name.strip() or 'what has ended'}")
            into[phase] = _duration(span.strip())
    return every | single


def _phase(name: str) -> int:
    phase = _PHASES.get(name.strip().upper().removeprefix(_PREFIX))
    if phase is None:
        known = ", ".join(_PHASES)
        raise ValueError(f"{name.strip()!r} is no phase that an execution can end in; there are {known}")
    return phase


def _duration(text: str) -> timedelta:
    parts = _PART.findall(text) if _SPAN.fullmatch(text) else []
    try:
        span = sum((int(count) * _UNITS[unit] for count, unit in parts), timedelta())
    except OverflowError:
        span = timedelta.max
    if not _SHORTEST <= span <= _LONGEST:
        told = f"from a minute to {_LONGEST.days} days, as in 90m, 12h, 30d or 4w"
        raise ValueError(f"{text!r} is no time to keep executions for: it must be {told}")
    return span
