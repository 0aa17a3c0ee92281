"""Phases: as tests write them, ``"waiting_for_approval"``, and as the API does."""

from __future__ import annotations

from typing import Final, Literal, cast, get_args

from runstream.model.phases import phase_name
from runstream.v1.agent_execution_pb2 import ExecutionPhase

Phase = Literal[
    "pending",
    "in_progress",
    "completed",
    "failed",
    "cancelled",
    "waiting_for_approval",
    "paused",
    "terminated",
    "waiting_for_input",
]

PHASES: Final[tuple[Phase, ...]] = get_args(Phase)
_PREFIX: Final = "EXECUTION_"


def to_phase(value: int) -> Phase:
    """Return the phase that the API writes as `value`."""
    return cast("Phase", phase_name(value).removeprefix(_PREFIX).lower())


def from_phase(phase: Phase | int) -> int:
    """Return a phase as the API writes it. ValueError for one that is unknown."""
    if isinstance(phase, int):
        return phase
    if phase not in PHASES:
        raise ValueError(f"phase must be one of {', '.join(PHASES)}, not {phase!r}")
    return ExecutionPhase.Value(_PREFIX + phase.upper())
