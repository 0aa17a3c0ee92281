"""UpdateStatus: the hot path. Nothing in it grows with the execution, until it ends or FULL is asked for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from runstream.model.errors import FailedPrecondition, FieldViolation, ResourceExhausted
from runstream.model.merge import REPLACEABLE_FIELDS, normalise_delta
from runstream.model.phases import check_transition, is_terminal
from runstream.pipeline.validation import invalid_fields
from runstream.services.executions.approvals import note_approvals
from runstream.services.executions.cancel import end_instead_of_halt
from runstream.services.executions.loading import LOADED, AnswerExecution, answer_unchanged
from runstream.v1.agent_execution_pb2 import (
    CHANGE_AUTHOR_RUNNER,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    AgentExecution,
)

if TYPE_CHECKING:
    from datetime import datetime

    from runstream.model.ids import IdSource
    from runstream.pipeline.context import RequestContext
    from runstream.services.executions.changes import StatusChange
    from runstream.services.executions.limits import ExecutionLimits
    from runstream.services.executions.loading import Loaded
    from runstream.stored.v1.stored_pb2 import ExecutionHead
    from runstream.v1.agent_execution_pb2 import AgentExecutionStatus
    from runstream.v1.agent_execution_service_pb2 import AgentExecutionUpdateStatusInput

    StatusContext = RequestContext[AgentExecutionUpdateStatusInput, AgentExecution]

LARGEST_DELTA_BYTES = 4 << 20


class CheckReplaceMask:
    """Refuses to replace a part of a field, which the rule in the proto lets through. INVALID_ARGUMENT."""

    async def __call__(self, context: StatusContext) -> None:
        """Compare the paths with the fields that can be replaced."""
        if not context.request.HasField("replace_mask"):
            return
        parts = sorted(set(context.request.replace_mask.paths) - REPLACEABLE_FIELDS)
        if parts:
            told = f"must name whole fields, not {', '.join(parts)}"
            raise invalid_fields([FieldViolation("replace_mask", told, "field_mask.in")])


class LimitDeltaSize:
    """Refuses a delta of more than 4 MiB. RESOURCE_EXHAUSTED, reason STATUS_DELTA_TOO_LARGE."""

    async def __call__(self, context: StatusContext) -> None:
        """Measure the delta."""
        size = context.request.status.ByteSize()
        if size > LARGEST_DELTA_BYTES:
            told = f"is {size} bytes, at most {LARGEST_DELTA_BYTES} are taken; send it in parts"
            raise ResourceExhausted(
                "STATUS_DELTA_TOO_LARGE",
                f"status: {told}",
                fields=[FieldViolation("status", told, "STATUS_DELTA_TOO_LARGE")],
            )


class AnswerRepeatedSequence:
    """Answers a sequence that was taken already with the current state, and changes nothing."""

    def __init__(self, answer: AnswerExecution) -> None:
        self._answer = answer

    async def __call__(self, context: StatusContext) -> AgentExecution | None:
        """Compare the sequence with the last one taken, if this attempt was the last to write."""
        head, request = context.value(LOADED).head, context.request
        if not request.sequence or request.attempt != head.sequence_attempt:
            return None
        if request.sequence > head.last_sequence:
            return None
        return await answer_unchanged(context, self._answer)


class CheckAttempt:
    """The fence: a leased execution takes status of its current attempt alone, any other of no attempt.

    FAILED_PRECONDITION, reason STALE_ATTEMPT. One that has ended is left to the next step.
    """

    async def __call__(self, context: StatusContext) -> None:
        """Compare the attempts."""
        loaded, given = context.value(LOADED), context.request.attempt
        head = loaded.head
        if given != (head.status.attempt if head.runner_id else 0) and not is_terminal(loaded.phase):
            raise _stale(loaded, given)


class CheckTransition:
    """Refuses a phase that cannot follow. FAILED_PRECONDITION, reasons INVALID_TRANSITION, EXECUTION_TERMINAL."""

    async def __call__(self, context: StatusContext) -> None:
        """Compare the phases."""
        check_transition(context.value(LOADED).phase, context.request.status.phase)


class StageStatus:
    """Stages the delta: ids given, output fields filled in, head moved."""

    def __init__(self, status_change: StatusChange, ids: IdSource, limits: ExecutionLimits) -> None:
        self._status_change = status_change
        self._ids = ids
        self._limits = limits

    async def __call__(self, context: StatusContext) -> None:
        """Add the change to the transaction. RESOURCE_EXHAUSTED beyond the limits, for all but an end."""
        request, loaded = context.request, context.value(LOADED)
        reported = request.status
        delta = normalise_delta(reported, self._ids.new)
        end_instead_of_halt(loaded.head, delta)
        head = await self._status_change.stage(
            context,
            loaded,
            delta,
            author=CHANGE_AUTHOR_RUNNER,
            replace=request.replace_mask.paths if request.HasField("replace_mask") else (),
            sequence=request.sequence,
            revise=partial(_revise, request, context.now),
        )
        # Not a step, as it is elsewhere: this is the hot path, and to measure a step takes longer than to do this.
        if not is_terminal(head.status.phase):
            self._limits.check(loaded.id, head, more=reported.phase == EXECUTION_PAUSED)


def _revise(
    request: AgentExecutionUpdateStatusInput, now: datetime, head: ExecutionHead, delta: AgentExecutionStatus
) -> None:
    """Count the sequence, and keep what people have decided meanwhile."""
    if request.sequence:
        head.last_sequence, head.sequence_attempt = request.sequence, request.attempt
    if delta.tool_calls or head.approvals:
        note_approvals(head, delta, now, replaced="tool_calls" in request.replace_mask.paths)
    if delta.phase == EXECUTION_PAUSED and head.pause_withdrawn:
        delta.phase, head.resume = EXECUTION_PENDING, True


def _stale(loaded: Loaded, given: int) -> FailedPrecondition:
    head, current = loaded.head, loaded.status.attempt
    if head.runner_id:
        told = f"{given or 'none'}, but execution {loaded.id} is leased and at attempt {current}"
    else:
        told = f"{given}, but no runner holds execution {loaded.id} any more"
    return FailedPrecondition(
        "STALE_ATTEMPT",
        f"The attempt is {told}. Stop working on it.",
        metadata={"id": loaded.id, "attempt": str(current)},
    )
