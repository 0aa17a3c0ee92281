"""Ends: what a command does that comes to an execution which has ended already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runstream.model.errors import FailedPrecondition
from runstream.model.phases import is_terminal, phase_name
from runstream.services.executions.loading import LOADED, AnswerExecution, answer_unchanged

if TYPE_CHECKING:
    from runstream.pipeline.context import RequestContext
    from runstream.services.executions.loading import Loaded
    from runstream.v1.agent_execution_pb2 import AgentExecution, ExecutionPhase


class AnswerIfEnded:
    """Answers when the execution ended this way already.

    One that ended otherwise is FAILED_PRECONDITION, reason EXECUTION_TERMINAL.
    """

    def __init__(self, phase: ExecutionPhase.ValueType, answer: AnswerExecution) -> None:
        self._phase = phase
        self._answer = answer

    async def __call__(self, context: RequestContext[Any, Any]) -> AgentExecution | None:
        """Compare the phase."""
        loaded = context.value(LOADED)
        if not is_terminal(loaded.phase):
            return None
        if loaded.phase != self._phase:
            raise has_ended(loaded, f"become {phase_name(self._phase)}")
        return await answer_unchanged(context, self._answer)


class RefuseIfEnded:
    """Refuses an execution that has ended. FAILED_PRECONDITION, reason EXECUTION_TERMINAL."""

    def __init__(self, meant: str) -> None:
        self._meant = meant

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Look at the phase."""
        loaded = context.value(LOADED)
        if is_terminal(loaded.phase):
            raise has_ended(loaded, self._meant)


def has_ended(loaded: Loaded, meant: str) -> FailedPrecondition:
    """Make the error for an execution that has ended; `meant` completes "it cannot"."""
    ended = phase_name(loaded.phase)
    return FailedPrecondition(
        "EXECUTION_TERMINAL",
        f"Execution {loaded.id} has ended as {ended}, which never changes; it cannot {meant}.",
        metadata={"id": loaded.id, "phase": ended},
    )
