"""Phases: which phase of an execution may follow which, and who may say so. The table is data.

COMPLETED, FAILED, CANCELLED and TERMINATED are terminal: nothing follows, and no delta is taken any
more. The one exception is Recover, which takes FAILED back to PENDING; it has its own check.
"""

from __future__ import annotations

from typing import Final

from runstream.model.errors import FailedPrecondition
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_PHASE_UNSPECIFIED,
    EXECUTION_TERMINATED,
    EXECUTION_WAITING_FOR_APPROVAL,
    EXECUTION_WAITING_FOR_INPUT,
    ExecutionPhase,
)

#: The phases that never change.
TERMINAL: Final[frozenset[int]] = frozenset(
    {EXECUTION_COMPLETED, EXECUTION_FAILED, EXECUTION_CANCELLED, EXECUTION_TERMINATED}
)

#: The phases in which a person is waited for.
WAITING: Final[frozenset[int]] = frozenset({EXECUTION_WAITING_FOR_APPROVAL, EXECUTION_WAITING_FOR_INPUT})

#: What may follow a phase, whoever asks for it.
TRANSITIONS: Final[dict[int, frozenset[int]]] = {
    EXECUTION_PENDING: TERMINAL | {EXECUTION_IN_PROGRESS, EXECUTION_PAUSED},
    EXECUTION_IN_PROGRESS: TERMINAL | {EXECUTION_WAITING_FOR_APPROVAL, EXECUTION_WAITING_FOR_INPUT, EXECUTION_PAUSED},
    EXECUTION_WAITING_FOR_APPROVAL: TERMINAL | {EXECUTION_IN_PROGRESS, EXECUTION_PAUSED},
    EXECUTION_WAITING_FOR_INPUT: TERMINAL | {EXECUTION_IN_PROGRESS, EXECUTION_PAUSED},
    # What is paused was not at work, so it cannot be completed.
    EXECUTION_PAUSED: frozenset(
        {
            EXECUTION_IN_PROGRESS,
            EXECUTION_CANCELLED,
            EXECUTION_FAILED,
            EXECUTION_TERMINATED,
        }
    ),
    EXECUTION_COMPLETED: frozenset(),
    EXECUTION_FAILED: frozenset(),
    EXECUTION_CANCELLED: frozenset(),
    EXECUTION_TERMINATED: frozenset(),
}

#: What the server alone may let follow: it queues again what lost its runner, and what is resumed.
SERVER_TRANSITIONS: Final[dict[int, frozenset[int]]] = {
    EXECUTION_IN_PROGRESS: frozenset({EXECUTION_PENDING}),
    EXECUTION_WAITING_FOR_APPROVAL: frozenset({EXECUTION_PENDING}),
    EXECUTION_WAITING_FOR_INPUT: frozenset({EXECUTION_PENDING}),
    EXECUTION_PAUSED: frozenset({EXECUTION_PENDING}),
}

#: What Recover alone may let follow.
RECOVERY_TRANSITIONS: Final[dict[int, frozenset[int]]] = {
    EXECUTION_FAILED: frozenset({EXECUTION_PENDING}),
}

_NOTHING: Final[frozenset[int]] = frozenset()


def is_terminal(phase: int) -> bool:
    """Tell whether a phase never changes."""
    return phase in TERMINAL


def phase_name(phase: int) -> str:
    """Return the name of a phase as the proto writes it; a number without a name is itself."""
    value = ExecutionPhase.DESCRIPTOR.values_by_number.get(phase)
    return str(phase) if value is None else str(value.name)


def check_transition(current: int, new: int, *, by_server: bool = False) -> None:
    """Let `new` follow `current`, or raise.

    Unspecified, and a phase that is not terminal again, are no transition and allowed. Raises
    `FailedPrecondition`: reason EXECUTION_TERMINAL when `current` is terminal, whatever `new` is;
    reason INVALID_TRANSITION, naming both phases and what would be allowed, else.
    """
    if current in TERMINAL:
        raise _ended(current, new)
    if new in (EXECUTION_PHASE_UNSPECIFIED, current):
        return
    allowed = TRANSITIONS.get(current, _NOTHING)
    if by_server:
        allowed |= SERVER_TRANSITIONS.get(current, _NOTHING)
    if new not in allowed:
        raise _refused(current, new, allowed)


def check_recovery(current: int) -> None:
    """Let Recover take `current` back to PENDING: FAILED alone.

    Raises `FailedPrecondition`: reason EXECUTION_TERMINAL for the other terminal phases, reason
    INVALID_TRANSITION for those not terminal.
    """
    if current in RECOVERY_TRANSITIONS:
        return
    if current in TERMINAL:
        raise _ended(current, EXECUTION_PENDING)
    name = phase_name(current)
    raise FailedPrecondition(
        "INVALID_TRANSITION",
        f"The execution is {name}; only one that is {phase_name(EXECUTION_FAILED)} can be"
        f" recovered to {phase_name(EXECUTION_PENDING)}.",
        metadata={"phase": name, "requested_phase": phase_name(EXECUTION_PENDING)},
    )


def _ended(current: int, new: int) -> FailedPrecondition:
    name = phase_name(current)
    consequence = (
        "takes no more status" if new in (EXECUTION_PHASE_UNSPECIFIED, current) else f"cannot become {phase_name(new)}"
    )
    return FailedPrecondition(
        "EXECUTION_TERMINAL",
        f"The execution has ended as {name}, which never changes; it {consequence}.",
        metadata={"phase": name, "requested_phase": phase_name(new)},
    )


def _refused(current: int, new: int, allowed: frozenset[int]) -> FailedPrecondition:
    names = ", ".join(phase_name(phase) for phase in sorted(allowed)) or "nothing"
    return FailedPrecondition(
        "INVALID_TRANSITION",
        f"The execution is {phase_name(current)} and cannot become {phase_name(new)}. Allowed from here: {names}.",
        metadata={"phase": phase_name(current), "requested_phase": phase_name(new)},
    )
