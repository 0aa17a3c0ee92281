"""Succession: which change may follow which in the log of an execution. No server writes another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runstream.model.phases import (
    RECOVERY_TRANSITIONS,
    SERVER_TRANSITIONS,
    TRANSITIONS,
    is_terminal,
    phase_name,
)
from runstream.model.views import LIST_FIELDS
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_IN_PROGRESS,
    EXECUTION_PENDING,
    EXECUTION_PHASE_UNSPECIFIED,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runstream.v1.agent_execution_pb2 import ExecutionChange

_FOLLOWS: Final = {
    phase: TRANSITIONS[phase]
    | SERVER_TRANSITIONS.get(phase, frozenset())
    | RECOVERY_TRANSITIONS.get(phase, frozenset())
    for phase in TRANSITIONS
}


def unfit(change: ExecutionChange, execution_id: str, revision: int) -> str | None:
    """Tell in words why a change cannot stand at a revision of an execution's log; None when it can."""
    if (change.execution_id, change.revision) != (execution_id, revision):
        return f"it says that it is change {change.revision} of {change.execution_id!r}"
    whole = change.created if change.HasField("created") else change.updated
    if (revision == 1 or change.HasField("updated")) and whole.metadata.id != execution_id:
        return f"it holds the execution {whole.metadata.id!r}"
    if (change.WhichOneof("kind") in ("created", "snapshot")) != (revision == 1):
        return "a log begins with the creation, which comes once"
    if any(getattr(change.created.status, name) for name in LIST_FIELDS):
        return "it was created with something reported already"
    return None


class Succession:
    """The phase and the attempt of a log, as far as it has been followed."""

    def __init__(self) -> None:
        self.phase: int = EXECUTION_PHASE_UNSPECIFIED
        self.attempt = 0

    def faults(self, change: ExecutionChange) -> Iterator[tuple[str, str]]:
        """Follow the next change; yield what is wrong with it, as a code of the doctor's and in words."""
        status = change.created.status if change.HasField("created") else change.status
        if status.phase:
            if not self._may_become(status.phase, change.revision):
                yield "PHASE_IMPOSSIBLE", f"{phase_name(status.phase)} cannot follow {phase_name(self.phase)}"
            self.phase = status.phase
        if change.supersedes > self.attempt:
            told = f"it drops the work of attempt {change.supersedes}, which is still to come"
            yield "ATTEMPT_OUT_OF_ORDER", told
        if status.attempt:
            if status.attempt != self.attempt + 1 or self.phase != EXECUTION_IN_PROGRESS:
                told = f"attempt {status.attempt} begins after attempt {self.attempt}, as {phase_name(self.phase)}"
                yield "ATTEMPT_OUT_OF_ORDER", told
            self.attempt = status.attempt
        if change.attempt != self.attempt:
            told = f"it is of attempt {change.attempt}, while attempt {self.attempt} is current"
            yield "ATTEMPT_OUT_OF_ORDER", told
        if change.terminal != is_terminal(self.phase):
            told = f"it is {'' if change.terminal else 'not '}marked as the end, as {phase_name(self.phase)}"
            yield "END_MISMARKED", told

    def _may_become(self, phase: int, revision: int) -> bool:
        if self.phase == EXECUTION_PHASE_UNSPECIFIED:
            return phase == EXECUTION_PENDING or revision > 1
        return phase in _FOLLOWS.get(self.phase, ()) or (phase == self.phase and not is_terminal(phase))
