"""Approvals: the books that the head keeps of the tool calls that wait for a person's decision, and of the decisions.

A decision stays in the books until the runner has reported how the call ended, so that a status the runner sent before
it knew cannot erase it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from runstream.model.deltas import ENDED_TOOL_CALLS
from runstream.model.errors import ResourceExhausted, invalid_field
from runstream.model.times import to_rfc3339, to_timestamp
from runstream.stored.v1.stored_pb2 import PendingApproval
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_APPROVE,
    APPROVAL_REJECT,
    APPROVAL_SKIP,
    EXECUTION_IN_PROGRESS,
    EXECUTION_WAITING_FOR_APPROVAL,
    TOOL_CALL_PENDING,
    TOOL_CALL_SKIPPED,
    TOOL_CALL_STATUS_UNSPECIFIED,
    TOOL_CALL_WAITING_APPROVAL,
    ApprovalAction,
    ToolCall,
    ToolCallStatus,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from runstream.stored.v1.stored_pb2 import ExecutionHead
    from runstream.v1.agent_execution_pb2 import AgentExecutionStatus
    from runstream.v1.resource_pb2 import AuditActor

MOST_APPROVALS: Final = 200
REFUSALS: Final = frozenset({APPROVAL_SKIP, APPROVAL_REJECT})


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided: APPROVE, SKIP or REJECT, by whom and when."""

    action: ApprovalAction.ValueType
    actor: AuditActor
    time: datetime
    comment: str = ""
    #: Whether somebody decided, before the time to do so was over.
    in_time: bool = True


def find_approval(head: ExecutionHead, tool_call_id: str) -> PendingApproval | None:
    """Return what the books hold of a tool call, or None."""
    return next((known for known in head.approvals if known.tool_call_id == tool_call_id), None)


def waiting(head: ExecutionHead) -> list[PendingApproval]:
    """Return the approvals that nobody has decided yet."""
    return [known for known in head.approvals if not known.approval.action]


def decide(known: PendingApproval, made: Decision, delta: AgentExecutionStatus) -> None:
    """Write a decision into the books, and into a delta for the tool call."""
    call = delta.tool_calls.add(id=known.tool_call_id, status=_status_after(made.action))
    if made.action in REFUSALS:
        call.completed_at = to_rfc3339(made.time)
    if made.action == APPROVAL_REJECT:
        call.error = _refusal(made)
    known.approval.action = made.action
    known.approval.comment = made.comment
    known.approval.decided_by.CopyFrom(made.actor)
    known.approval.decide_time.CopyFrom(to_timestamp(made.time))
    call.approval.CopyFrom(known.approval)  # whole: an approval is replaced, never merged


def note_approvals(head: ExecutionHead, delta: AgentExecutionStatus, now: datetime, *, replaced: bool = False) -> None:
    """Take down what a runner's delta asks for, and take out of it what would erase a decision.

    `replaced`: the delta replaces all tool calls, so that those it leaves out are gone, and of the others all must be
    in it. INVALID_ARGUMENT, reason APPROVAL_DEFAULT_REQUIRED, for a timeout without a default. RESOURCE_EXHAUSTED,
    reason TOO_MANY_APPROVALS.
    """
    before = {known.tool_call_id: known for known in head.approvals}
    books = _still_there(before, delta) if replaced else dict(before)
    asked = False
    for at, call in enumerate(delta.tool_calls):
        known = books.get(call.id)
        if known is not None and known.approval.action:
            _keep_decision(books, known, call, replaced=replaced)
        elif call.status == TOOL_CALL_WAITING_APPROVAL:
            _note_question(head, books, call, now, at)
            asked = True
        elif known is not None and call.status == TOOL_CALL_PENDING:
            _keep_question(known, call, replaced=replaced)
        elif known is not None and call.status:
            del books[call.id]  # the runner asks no longer
    if asked or books.keys() != before.keys():
        _write(head, books.values())
    if delta.phase == EXECUTION_WAITING_FOR_APPROVAL and (asked or books) and not waiting(head):
        # Everything it wants to wait for is decided.
        if head.status.phase == EXECUTION_IN_PROGRESS:
            delta.ClearField("phase")
        else:
            delta.phase = EXECUTION_IN_PROGRESS


def _still_there(books: dict[str, PendingApproval], delta: AgentExecutionStatus) -> dict[str, PendingApproval]:
    """Return the part of the books that outlives a delta which replaces all calls: a question must be asked in it."""
    named = {call.id for call in delta.tool_calls}
    told = {call.id for call in delta.tool_calls if call.status}
    return {call_id: known for call_id, known in books.items() if call_id in (named if known.approval.action else told)}


def _keep_decision(
    books: dict[str, PendingApproval], known: PendingApproval, call: ToolCall, *, replaced: bool
) -> None:
    """Leave a decision as it stands, whatever the runner says of the call; once that has ended, strike it out."""
    if call.status in ENDED_TOOL_CALLS:
        del books[call.id]
    call.ClearField("approval")
    if known.approval.action in REFUSALS and call.status != TOOL_CALL_SKIPPED:
        call.status = TOOL_CALL_STATUS_UNSPECIFIED
    elif call.status == TOOL_CALL_WAITING_APPROVAL:
        call.status = TOOL_CALL_PENDING
    if replaced:
        call.approval.CopyFrom(known.approval)
        call.status = call.status or _status_after(known.approval.action)


def _keep_question(known: PendingApproval, call: ToolCall, *, replaced: bool) -> None:
    """Leave a question as it stands: an attempt that goes on announces its calls again before it asks again."""
    call.ClearField("approval")
    call.status = TOOL_CALL_STATUS_UNSPECIFIED
    if replaced:
        call.approval.CopyFrom(known.approval)
        call.status = TOOL_CALL_WAITING_APPROVAL


def _note_question(
    head: ExecutionHead, books: dict[str, PendingApproval], call: ToolCall, now: datetime, at: int
) -> None:
    known = books.get(call.id)
    if known is not None:
        call.approval.CopyFrom(known.approval)  # asked already: the time to decide goes on
        return
    approval = call.approval
    approval.SetInParent()
    if approval.HasField("timeout"):
        if not approval.default_action:
            raise invalid_field(
                f"status.tool_calls[{at}].approval.default_action",
                "APPROVAL_DEFAULT_REQUIRED",
                "must be given with a timeout: what is decided when nobody does in time",
            )
        timeout = timedelta(microseconds=approval.timeout.ToMicroseconds())
        approval.expire_time.CopyFrom(to_timestamp(now + timeout))
    if head.HasField("approved_all_by"):
        call.status = TOOL_CALL_PENDING
        approval.action = APPROVAL_APPROVE
        approval.decided_by.CopyFrom(head.approved_all_by)
        approval.decide_time.CopyFrom(to_timestamp(now))
    books[call.id] = PendingApproval(tool_call_id=call.id, approval=approval)


def _write(head: ExecutionHead, books: Iterable[PendingApproval]) -> None:
    entries = list(books)
    if len(entries) > MOST_APPROVALS:
        raise ResourceExhausted(
            "TOO_MANY_APPROVALS",
            f"More than {MOST_APPROVALS} tool calls wait for approval, or have it and were not reported as ended.",
        )
    del head.approvals[:]
    head.approvals.extend(entries)


def _status_after(action: ApprovalAction.ValueType) -> ToolCallStatus.ValueType:
    return TOOL_CALL_SKIPPED if action in REFUSALS else TOOL_CALL_PENDING


def _refusal(made: Decision) -> str:
    if not made.in_time:
        return f"Rejected by {made.actor.id}: nobody decided in time."
    return f"Rejected by {made.actor.id}: {made.comment}" if made.comment else f"Rejected by {made.actor.id}."
