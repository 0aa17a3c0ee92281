"""Halts: Pause, and Resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runstream.model.errors import FailedPrecondition
from runstream.model.phases import check_transition
from runstream.services.executions.control import new_control, stage_control
from runstream.services.executions.loading import LOADED, AnswerExecution, answer_unchanged
from runstream.v1.agent_execution_pb2 import (
    CHANGE_AUTHOR_USER,
    CONTROL_CANCEL,
    CONTROL_PAUSE,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    AgentExecutionStatus,
)

if TYPE_CHECKING:
    from runstream.pipeline.context import RequestContext
    from runstream.services.executions.changes import StatusChange
    from runstream.services.executions.loading import Loaded
    from runstream.v1.agent_execution_pb2 import AgentExecution


class RefuseIfCancelling:
    """Refuses to halt what is about to end. FAILED_PRECONDITION, reason CANCEL_REQUESTED."""

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Look at the control."""
        loaded = context.value(LOADED)
        if loaded.status.control.action == CONTROL_CANCEL:
            raise FailedPrecondition(
                "CANCEL_REQUESTED",
                f"Execution {loaded.id} has been asked to end and cannot be paused any more.",
                metadata={"id": loaded.id},
            )


class AnswerIfHalting:
    """Answers when the execution is paused, or has been asked to pause."""

    def __init__(self, answer: AnswerExecution) -> None:
        self._answer = answer

    async def __call__(self, context: RequestContext[Any, Any]) -> AgentExecution | None:
        """Look at phase and control."""
        loaded = context.value(LOADED)
        if loaded.phase != EXECUTION_PAUSED and not (loaded.at_work and _pause_is_asked(loaded)):
            return None
        return await answer_unchanged(context, self._answer)


class StagePause:
    """Pauses an execution that nobody works on; else records that it shall halt."""

    def __init__(self, status_change: StatusChange) -> None:
        self._status_change = status_change

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Add the halt or the request to the transaction."""
        loaded, reason = context.value(LOADED), context.request.reason
        if loaded.at_work:
            stage_control(context, loaded, new_control(context, CONTROL_PAUSE, reason))
            return
        check_transition(loaded.phase, EXECUTION_PAUSED, by_server=True)
        delta = AgentExecutionStatus(phase=EXECUTION_PAUSED, control=new_control(context, reason=reason))
        await self._status_change.stage(context, loaded, delta, author=CHANGE_AUTHOR_USER, event="paused")


class AnswerIfNotHalting:
    """Answers when the execution is not paused, and has not been asked to pause."""

    def __init__(self, answer: AnswerExecution) -> None:
        self._answer = answer

    async def __call__(self, context: RequestContext[Any, Any]) -> AgentExecution | None:
        """Look at phase and control."""
        loaded = context.value(LOADED)
        if loaded.phase == EXECUTION_PAUSED or _pause_is_asked(loaded):
            return None
        return await answer_unchanged(context, self._answer)


class StageResume:
    """Queues a paused execution again; takes back a pause that has not happened yet.

    Calls that wait for approval go on waiting; their decisions reach the next attempt.
    """

    def __init__(self, status_change: StatusChange) -> None:
        self._status_change = status_change

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Add the resumption to the transaction."""
        loaded, control = context.value(LOADED), new_control(context, reason=context.request.reason)
        if loaded.phase != EXECUTION_PAUSED:
            stage_control(context, loaded, control, pause_withdrawn=loaded.at_work)
            return
        check_transition(loaded.phase, EXECUTION_PENDING, by_server=True)
        delta = AgentExecutionStatus(phase=EXECUTION_PENDING, control=control)
        await self._status_change.stage(context, loaded, delta, author=CHANGE_AUTHOR_USER, event="resumed")


def _pause_is_asked(loaded: Loaded) -> bool:
    return loaded.status.control.action == CONTROL_PAUSE
