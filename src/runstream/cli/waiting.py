"""Waiting: what an execution waits for from a person, and what the person said.

The commands that are shown can be pasted as they are, whatever an agent has named its tool calls.
"""

from __future__ import annotations

import shlex
from datetime import UTC
from typing import TYPE_CHECKING, Final

from runstream.cli import times
from runstream.cli.plain_text import clean, one_line
from runstream.model.phases import is_terminal
from runstream.v1.agent_execution_pb2 import ApprovalAction, ExecutionPhase, ToolCallStatus

if TYPE_CHECKING:
    from datetime import datetime

    from runstream.v1.agent_execution_pb2 import AgentExecution, AgentExecutionStatus, ToolCall

#: Who decides when nobody has in time.
_SYSTEM: Final = "system"

_DECIDED: Final = {
    ApprovalAction.APPROVAL_APPROVE: "approved",
    ApprovalAction.APPROVAL_APPROVE_ALL: "approved",
    ApprovalAction.APPROVAL_SKIP: "skipped",
    ApprovalAction.APPROVAL_REJECT: "rejected",
}


def calls(status: AgentExecutionStatus) -> list[ToolCall]:
    """Return the tool calls that wait for approval."""
    return [call for call in status.tool_calls if call.status == ToolCallStatus.TOOL_CALL_WAITING_APPROVAL]


def decided(action: ApprovalAction.ValueType) -> str:
    """Return what an action makes of a tool call: `approved`, `skipped`, `rejected`; empty for none."""
    return _DECIDED.get(action, "")


def question(call: ToolCall, now: datetime) -> str:
    """Return that a call waits, and what becomes of it when nobody decides."""
    approval = call.approval
    default = decided(approval.default_action)
    if not (default and approval.HasField("expire_time")):
        return "waits for approval"
    end = approval.expire_time.ToDatetime(UTC)
    return f"waits for approval; {default} at {times.clock(end, now)}, in {times.brief(end - now)}"


def decision(call: ToolCall) -> str:
    """Return what was decided about a call, by whom and why; empty when nothing was."""
    approval = call.approval
    what = decided(approval.action)
    if not what:
        return ""
    who = one_line(approval.decided_by.id, 60)
    by = "by default" if who == _SYSTEM else f"by {who}"
    why = f": {one_line(approval.comment, 100)}" if approval.comment else ""
    return f"{what} {by}{why}"


def how_to_decide(execution: AgentExecution, call: ToolCall) -> str:
    """Return the command that decides about a call; it stands first, where a narrow terminal does not break it."""
    named = shlex.quote(clean(call.id))
    if named.startswith("-"):
        named = f"-- {named}"
    return f"`runstream approve {execution.metadata.id} {named}` lets it run, --skip or --reject refuses it"


def commands(execution: AgentExecution) -> list[str]:
    """Return the commands that an execution waits for."""
    if is_terminal(execution.status.phase):
        return []
    deciding = [how_to_decide(execution, call) for call in calls(execution.status)]
    going_on = how_to_go_on(execution)
    return [*deciding, going_on] if going_on else deciding


def how_to_go_on(execution: AgentExecution) -> str:
    """Return the command that an execution waits for; empty when it waits for none, or for approvals alone."""
    if execution.status.phase == ExecutionPhase.EXECUTION_WAITING_FOR_INPUT:
        return f"`runstream input {execution.metadata.id}` answers it"
    if execution.status.phase == ExecutionPhase.EXECUTION_PAUSED:
        return f"`runstream resume {execution.metadata.id}` lets it go on"
    return ""
