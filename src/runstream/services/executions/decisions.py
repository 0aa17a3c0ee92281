"""Decisions: SubmitApproval, and what is decided when nobody does in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runstream.model.errors import FailedPrecondition, NotFound
from runstream.model.phases import is_terminal
from runstream.services.executions.approvals import Decision, decide, find_approval, waiting
from runstream.services.executions.changes import catch_up
from runstream.services.executions.ends import has_ended
from runstream.services.executions.loading import LOADED, AnswerExecution, answer_unchanged
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_APPROVE,
    APPROVAL_APPROVE_ALL,
    CHANGE_AUTHOR_SYSTEM,
    CHANGE_AUTHOR_USER,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PENDING,
    EXECUTION_WAITING_FOR_APPROVAL,
    AgentExecutionStatus,
    ApprovalAction,
)
from runstream.v1.resource_pb2 import AuditActor

if TYPE_CHECKING:
    from runstream.pipeline.context import RequestContext
    from runstream.services.executions.changes import StatusChange
    from runstream.services.executions.loading import Loaded
    from runstream.storage.folds import Folds
    from runstream.stored.v1.stored_pb2 import ExecutionHead, PendingApproval
    from runstream.v1.agent_execution_pb2 import AgentExecution, ToolCallApproval
    from runstream.v1.agent_execution_service_pb2 import AgentExecutionUpdateStatusInput, SubmitApprovalInput

    ApprovalContext = RequestContext[SubmitApprovalInput, AgentExecution]
    DefaultContext = RequestContext[AgentExecutionUpdateStatusInput, AgentExecution]

_EVENT: Final = "approval_decided"


class AnswerIfDecided:
    """Answers when the same was decided already.

    FAILED_PRECONDITION, reasons APPROVAL_DECIDED when it was something else, NOT_WAITING_FOR_APPROVAL when the call
    never asked, EXECUTION_TERMINAL; NOT_FOUND, reason TOOL_CALL_NOT_FOUND.
    """

    def __init__(self, folds: Folds, answer: AnswerExecution) -> None:
        self._folds = folds
        self._answer = answer

    async def __call__(self, context: ApprovalContext) -> AgentExecution | None:
        """Look into the books, and only for a call that is not in them at the whole state."""
        loaded, call_id = context.value(LOADED), context.request.tool_call_id
        known = find_approval(loaded.head, call_id)
        approval = known.approval if known is not None else await self._recorded(context, loaded)
        if not approval.action:
            return None
        loaded = context.value(LOADED)
        if approval.action != _recorded_as(context.request.action):
            raise _decided(loaded, call_id, approval)
        if context.request.action == APPROVAL_APPROVE_ALL and not _all_are_approved(loaded):
            return None
        return await answer_unchanged(context, self._answer)

    async def _recorded(self, context: ApprovalContext, loaded: Loaded) -> ToolCallApproval:
        """Return what the state holds of a call, or the books when it has come into them during the fold."""
        call_id = context.request.tool_call_id
        loaded, status = await catch_up(context, self._folds, loaded)
        context.put(LOADED, loaded)
        known = find_approval(loaded.head, call_id)
        if known is not None:
            return known.approval
        call = next((call for call in status.tool_calls if call.id == call_id), None)
        if call is not None and call.approval.action:
            return call.approval
        if is_terminal(loaded.phase):
            raise has_ended(loaded, "take a decision")
        raise _no_such_call(loaded, call_id) if call is None else _never_asked(loaded, call_id)


class StageDecision:
    """Writes the decision into the call; when nothing waits any more, the work goes on."""

    def __init__(self, status_change: StatusChange) -> None:
        self._status_change = status_change

    async def __call__(self, context: ApprovalContext) -> None:
        """Add the decision to the transaction."""
        loaded, request = context.value(LOADED), context.request
        made = Decision(
            _recorded_as(request.action), AuditActor(id=context.caller.actor), context.now, comment=request.comment
        )

        def revise(head: ExecutionHead, delta: AgentExecutionStatus) -> None:
            named = find_approval(head, request.tool_call_id)
            if named is not None and not named.approval.action:
                decide(named, made, delta)
            if request.action == APPROVAL_APPROVE_ALL:
                _approve_all(head, made, delta)
            _go_on(loaded, head, delta)

        await self._status_change.stage(
            context, loaded, AgentExecutionStatus(), author=CHANGE_AUTHOR_USER, revise=revise, event=_EVENT
        )


class AnswerIfNotWaiting:
    """Answers when the question whose time is over is no longer open."""

    def __init__(self, answer: AnswerExecution) -> None:
        self._answer = answer

    async def __call__(self, context: DefaultContext) -> AgentExecution | None:
        """Look into the books. A call that was asked about anew has another time."""
        if _overdue(context.value(LOADED).head, context.request) is not None:
            return None
        return await answer_unchanged(context, self._answer)


class StageDefault:
    """Writes what the runner wanted to be decided when nobody does in time."""

    def __init__(self, status_change: StatusChange) -> None:
        self._status_change = status_change

    async def __call__(self, context: DefaultContext) -> None:
        """Add the decision to the transaction."""
        loaded, actor = context.value(LOADED), AuditActor(id=context.caller.actor)

        def revise(head: ExecutionHead, delta: AgentExecutionStatus) -> None:
            known = _overdue(head, context.request)
            if known is not None:
                decide(known, Decision(known.approval.default_action, actor, context.now, in_time=False), delta)
            _go_on(loaded, head, delta)

        await self._status_change.stage(
            context, loaded, AgentExecutionStatus(), author=CHANGE_AUTHOR_SYSTEM, revise=revise, event=_EVENT
        )


def _recorded_as(action: ApprovalAction.ValueType) -> ApprovalAction.ValueType:
    return APPROVAL_APPROVE if action == APPROVAL_APPROVE_ALL else action


def _all_are_approved(loaded: Loaded) -> bool:
    return is_terminal(loaded.phase) or loaded.head.HasField("approved_all_by")


def _approve_all(head: ExecutionHead, made: Decision, delta: AgentExecutionStatus) -> None:
    """Approve whatever else waits, and what will; the comment is on the call that was named alone."""
    head.approved_all_by.CopyFrom(made.actor)
    for known in waiting(head):
        decide(known, Decision(made.action, made.actor, made.time), delta)


def _go_on(loaded: Loaded, head: ExecutionHead, delta: AgentExecutionStatus) -> None:
    """Let the work go on when nothing waits any more: by its runner, or else by another one."""
    if loaded.phase != EXECUTION_WAITING_FOR_APPROVAL or waiting(head):
        return
    delta.phase = EXECUTION_IN_PROGRESS if loaded.at_work else EXECUTION_PENDING
    head.resume = head.resume or not loaded.at_work


def _overdue(head: ExecutionHead, request: AgentExecutionUpdateStatusInput) -> PendingApproval | None:
    """Find the question that a request of `ApprovalTimers` names."""
    (call,) = request.status.tool_calls
    known = find_approval(head, call.id)
    if known is None or known.approval.action or known.approval.expire_time != call.approval.expire_time:
        return None
    return known


def _decided(loaded: Loaded, call_id: str, approval: ToolCallApproval) -> FailedPrecondition:
    action, actor = ApprovalAction.Name(approval.action), approval.decided_by.id
    return FailedPrecondition(
        "APPROVAL_DECIDED",
        f"{actor} has decided {action} about tool call {call_id!r} of execution {loaded.id}; that stands.",
        metadata={"id": loaded.id, "tool_call_id": call_id, "action": action, "decided_by": actor},
    )


def _never_asked(loaded: Loaded, call_id: str) -> FailedPrecondition:
    return FailedPrecondition(
        "NOT_WAITING_FOR_APPROVAL",
        f"Tool call {call_id!r} of execution {loaded.id} does not wait for approval.",
        metadata={"id": loaded.id, "tool_call_id": call_id},
    )


def _no_such_call(loaded: Loaded, call_id: str) -> NotFound:
    return NotFound(
        "TOOL_CALL_NOT_FOUND",
        f"Execution {loaded.id} has no tool call {call_id!r}.",
        metadata={"id": loaded.id, "tool_call_id": call_id},
    )
