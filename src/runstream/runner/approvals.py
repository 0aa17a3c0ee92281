"""Approvals: asking a person whether a tool may run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.runner.desk import now
from runstream.runner.errors import Paused
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_IN_PROGRESS,
    EXECUTION_WAITING_FOR_APPROVAL,
    TOOL_CALL_INTERRUPTED,
    TOOL_CALL_WAITING_APPROVAL,
    AgentExecutionStatus,
    ToolCall,
)

if TYPE_CHECKING:
    from runstream.runner.decisions import Approval, Decision
    from runstream.runner.desk import Desk


def known(desk: Desk, call_id: str) -> Decision | None:
    """Return what was decided about a call already, in this attempt or an earlier one."""
    return desk.mailbox.decided(call_id) or desk.record.decision(call_id)


async def ask(desk: Desk, call: ToolCall, approval: Approval) -> Decision:
    """Report `call` as one that waits, and wait for the decision. Raises `Paused`: the question then stays."""
    question = _question(call, approval)
    await desk.mailbox.begin_approval()
    with desk.mailbox.waiting_for_approval():
        try:
            await desk.outbox.record(AgentExecutionStatus(phase=EXECUTION_WAITING_FOR_APPROVAL, tool_calls=[question]))
            return await desk.mailbox.decision(call.id)
        except Paused:
            raise
        except BaseException:
            _withdraw(desk, call.id)
            raise


def _question(call: ToolCall, approval: Approval) -> ToolCall:
    question = ToolCall()
    question.CopyFrom(call)
    question.status = TOOL_CALL_WAITING_APPROVAL
    question.approval.CopyFrom(approval.message())
    return question


def _withdraw(desk: Desk, call_id: str) -> None:
    """Take the question back: the agent waits no longer. One that is stopped as a whole leaves it to the server."""
    if desk.mailbox.stopping:
        return
    withdrawn = AgentExecutionStatus(
        tool_calls=[ToolCall(id=call_id, status=TOOL_CALL_INTERRUPTED, completed_at=now())]
    )
    if desk.mailbox.approvals_waiting == 1:  # this one alone
        withdrawn.phase = EXECUTION_IN_PROGRESS
    desk.outbox.post(withdrawn)
