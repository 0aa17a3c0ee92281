"""Inputs: SubmitInput, a person's answer to an execution that waits for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runstream.model.errors import FailedPrecondition
from runstream.model.ids import MESSAGE
from runstream.model.phases import phase_name
from runstream.pipeline.idempotency import check_key
from runstream.services.executions.loading import LOADED, AnswerExecution, answer_unchanged
from runstream.v1.agent_execution_pb2 import (
    CHANGE_AUTHOR_USER,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PENDING,
    EXECUTION_WAITING_FOR_INPUT,
    MESSAGE_HUMAN,
    AgentExecutionStatus,
)

if TYPE_CHECKING:
    from runstream.model.ids import IdSource
    from runstream.pipeline.context import RequestContext
    from runstream.services.executions.changes import StatusChange
    from runstream.stored.v1.stored_pb2 import ExecutionHead
    from runstream.v1.agent_execution_pb2 import AgentExecution


class AnswerRepeatedInput:
    """Answers an input whose idempotency key is that of the last one, whatever has become of the execution since."""

    def __init__(self, answer: AnswerExecution) -> None:
        self._answer = answer

    async def __call__(self, context: RequestContext[Any, Any]) -> AgentExecution | None:
        """Compare the keys. INVALID_ARGUMENT, reason INVALID_IDEMPOTENCY_KEY."""
        key = context.caller.idempotency_key
        check_key(key)
        if not key or key != context.value(LOADED).head.input_key:
            return None
        return await answer_unchanged(context, self._answer)


class CheckWaitsForInput:
    """Refuses an input that nobody waits for. FAILED_PRECONDITION, reason NOT_WAITING_FOR_INPUT."""

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Look at the phase."""
        loaded = context.value(LOADED)
        if loaded.phase != EXECUTION_WAITING_FOR_INPUT:
            phase = phase_name(loaded.phase)
            raise FailedPrecondition(
                "NOT_WAITING_FOR_INPUT",
                f"Execution {loaded.id} is {phase}; an input is taken while it is"
                f" {phase_name(EXECUTION_WAITING_FOR_INPUT)}.",
                metadata={"id": loaded.id, "phase": phase},
            )


class StageInput:
    """Adds what the person says to the messages, and lets the work go on: by its runner, or else by another one."""

    def __init__(self, status_change: StatusChange, ids: IdSource) -> None:
        self._status_change = status_change
        self._ids = ids

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Add the message to the transaction."""
        loaded, key = context.value(LOADED), context.caller.idempotency_key
        delta = AgentExecutionStatus(phase=EXECUTION_IN_PROGRESS if loaded.at_work else EXECUTION_PENDING)
        delta.messages.add(id=self._ids.new(MESSAGE), type=MESSAGE_HUMAN, content=context.request.message)

        def revise(head: ExecutionHead, _delta: AgentExecutionStatus) -> None:
            head.input_revision, head.input_key = head.revision, key
            head.resume = head.resume or not loaded.at_work

        await self._status_change.stage(
            context, loaded, delta, author=CHANGE_AUTHOR_USER, revise=revise, event="input_submitted"
        )
