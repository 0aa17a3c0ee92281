"""Events: messages of the API that an agent reports, or yields, as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.v1.agent_execution_pb2 import (
    AgentExecutionStatus,
    AgentMessage,
    SubAgentExecution,
    ToolCall,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import Callable

#: What an agent may yield: text, an entry of the execution's status, or a delta of it.
Event = str | AgentMessage | ToolCall | SubAgentExecution | Usage | AgentExecutionStatus


def as_delta(event: Event, new_id: Callable[[str], str]) -> AgentExecutionStatus:
    """Return the delta that reports an event; its entries get ids if they have none.

    TypeError for what is no event. ValueError for a phase, which only the runner sets.
    """
    delta = AgentExecutionStatus()
    if isinstance(event, AgentExecutionStatus):
        delta.CopyFrom(event)
    elif isinstance(event, AgentMessage):
        delta.messages.append(event)
    elif isinstance(event, ToolCall):
        delta.tool_calls.append(event)
    elif isinstance(event, SubAgentExecution):
        delta.sub_agent_executions.append(event)
    elif isinstance(event, Usage):
        delta.usage.append(event)
    else:
        raise TypeError(f"an agent yields text or messages of the API, not {type(event).__name__}")
    if delta.phase:
        raise ValueError("an agent sets no phase: return, raise AgentFailure, or ask for input or approval")
    _give_ids(delta, new_id)
    return delta


def _give_ids(delta: AgentExecutionStatus, new_id: Callable[[str], str]) -> None:
    for message in delta.messages:
        message.id = message.id or new_id("msg")
    for call in delta.tool_calls:
        call.id = call.id or new_id("call")
    for sub_agent in delta.sub_agent_executions:
        sub_agent.id = sub_agent.id or new_id("sub")
    for usage in delta.usage:
        usage.id = usage.id or new_id("usage")
