"""Deltas: what a client sent, cleaned before it is merged; and the delta that settles what is open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runstream.model.ids import MESSAGE, SUB_AGENT, TOOL_CALL, USAGE
from runstream.v1.agent_execution_pb2 import (
    SUB_AGENT_CANCELLED,
    SUB_AGENT_COMPLETED,
    SUB_AGENT_FAILED,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_FAILED,
    TOOL_CALL_INTERRUPTED,
    TOOL_CALL_SKIPPED,
    AgentExecutionStatus,
    ToolCall,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, Literal

    from runstream.v1.agent_execution_pb2 import AgentMessage, SubAgentExecution, TodoItem, Usage

    _OutputField = Literal["started_at", "completed_at", "attempt", "control", "audit"]
    _DecisionField = Literal["expire_time", "action", "comment", "decided_by", "decide_time"]

#: What the server alone says in a status.
OUTPUT_FIELDS: Final[tuple[_OutputField, ...]] = (
    "started_at",
    "completed_at",
    "attempt",
    "control",
    "audit",
)
#: What the server alone says in the approval of a tool call.
DECISION_FIELDS: Final[tuple[_DecisionField, ...]] = ("expire_time", "action", "comment", "decided_by", "decide_time")
ENDED_TOOL_CALLS: Final[frozenset[int]] = frozenset(
    {TOOL_CALL_COMPLETED, TOOL_CALL_FAILED, TOOL_CALL_SKIPPED, TOOL_CALL_INTERRUPTED}
)
_ENDED_SUB_AGENTS: Final[frozenset[int]] = frozenset({SUB_AGENT_COMPLETED, SUB_AGENT_FAILED, SUB_AGENT_CANCELLED})


def normalise_delta(delta: AgentExecutionStatus, new_id: Callable[[str], str]) -> AgentExecutionStatus:
    """Copy a client's delta as it may be merged, stored and sent on; `delta` stays as it is.

    Output fields and fields unknown to this server are left out. Entries without an id get one
    from `new_id`, which takes the prefix: `msg`, `tcl`, `sub` or `usg`. A todo's id is its key.
    """
    clean = AgentExecutionStatus()
    clean.CopyFrom(delta)
    # What is unknown today may be known to the next version, which would then fold old changes
    # otherwise than this one did into its snapshots.
    clean.DiscardUnknownFields()
    # Only what is set is looked at: most deltas hold one message, and to ask for each field costs more than that.
    for field, value in clean.ListFields():
        begin = _BEGIN.get(field.name)
        if begin is not None:
            begin(value, new_id)
        elif field.name in OUTPUT_FIELDS:
            clean.ClearField(field.name)
    return clean


def settle(status: AgentExecutionStatus, completed_at: str) -> AgentExecutionStatus:
    """Make the delta that ends what is still open in a status, as an execution that ends must.

    Tool calls, nested ones too, become INTERRUPTED and sub-agents CANCELLED, each with
    `completed_at` (RFC 3339). The delta is empty when nothing is open.
    """
    delta = AgentExecutionStatus()
    for message in status.messages:
        interrupted = list(_interrupted(message.tool_calls, completed_at))
        if interrupted:
            delta.messages.add(id=message.id, tool_calls=interrupted)
    delta.tool_calls.extend(_interrupted(status.tool_calls, completed_at))
    for sub_agent in status.sub_agent_executions:
        if sub_agent.status not in _ENDED_SUB_AGENTS:
            delta.sub_agent_executions.add(id=sub_agent.id, status=SUB_AGENT_CANCELLED, completed_at=completed_at)
    return delta


def _begin_messages(messages: Iterable[AgentMessage], new_id: Callable[[str], str]) -> None:
    for message in messages:
        _begin_entry(message, MESSAGE, new_id)
        if message.tool_calls:
            for call in message.tool_calls:
                _begin_entry(call, TOOL_CALL, new_id)
                call.ClearField("approval")  # only of a call of the status's own list


def _begin_tool_calls(calls: Iterable[ToolCall], new_id: Callable[[str], str]) -> None:
    for call in calls:
        _begin_entry(call, TOOL_CALL, new_id)
        _clear_decision(call)


def _begin_sub_agents(sub_agents: Iterable[SubAgentExecution], new_id: Callable[[str], str]) -> None:
    for sub_agent in sub_agents:
        _begin_entry(sub_agent, SUB_AGENT, new_id)


def _begin_usage(entries: Iterable[Usage], new_id: Callable[[str], str]) -> None:
    for usage in entries:
        usage.id = usage.id or new_id(USAGE)


def _begin_todos(todos: Mapping[str, TodoItem], _new_id: Callable[[str], str]) -> None:
    for key, todo in todos.items():
        todo.id = key


def _clear_decision(call: ToolCall) -> None:
    """Leave out of an approval what the server alone says."""
    if call.HasField("approval"):
        for name in DECISION_FIELDS:
            call.approval.ClearField(name)


def _begin_entry(entry: AgentMessage | ToolCall | SubAgentExecution, prefix: str, new_id: Callable[[str], str]) -> None:
    if not entry.id:
        entry.id = new_id(prefix)
    entry.ClearField("revision")
    entry.ClearField("attempt")


def _interrupted(calls: Iterable[ToolCall], completed_at: str) -> Iterator[ToolCall]:
    for call in calls:
        if call.status not in ENDED_TOOL_CALLS:
            yield ToolCall(id=call.id, status=TOOL_CALL_INTERRUPTED, completed_at=completed_at)


#: How the entries of a list begin, by the name of the field.
_BEGIN: Final[dict[str, Callable[[Any, Callable[[str], str]], None]]] = {
    "messages": _begin_messages,
    "tool_calls": _begin_tool_calls,
    "sub_agent_executions": _begin_sub_agents,
    "usage": _begin_usage,
    "todos": _begin_todos,
}
