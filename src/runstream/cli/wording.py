"""Wording: how the parts of an execution are told on a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf import json_format
from rich.text import Text

from runstream.cli import times, waiting
from runstream.cli.phases import phase_text, sub_agent_mark, todo_mark, tool_call_mark
from runstream.cli.plain_text import clean, one_line
from runstream.v1.agent_execution_pb2 import (
    ControlAction,
    MessageType,
    SubAgentStatus,
    ToolCallStatus,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from google.protobuf.struct_pb2 import Struct

    from runstream.v1.agent_execution_pb2 import (
        AgentExecution,
        AgentExecutionStatus,
        ExecutionControl,
        SubAgentExecution,
        TodoItem,
        ToolCall,
        Usage,
    )

_MILLIONTHS: Final = 1_000_000

_SPEAKERS: Final = {
    MessageType.MESSAGE_HUMAN: ("you", "bold cyan"),
    MessageType.MESSAGE_AI: ("agent", "bold green"),
    MessageType.MESSAGE_TOOL: ("tool", "bold dim"),
    MessageType.MESSAGE_SYSTEM: ("system", "bold dim"),
    MessageType.MESSAGE_THINKING: ("agent thinks", "dim italic"),
}
_TEXT_STYLES: Final = {
    MessageType.MESSAGE_TOOL: "dim",
    MessageType.MESSAGE_SYSTEM: "dim",
    MessageType.MESSAGE_THINKING: "dim italic",
}

_CONTROLS: Final = {
    ControlAction.CONTROL_CANCEL: "cancel requested",
    ControlAction.CONTROL_PAUSE: "pause requested",
}


def speaker(kind: MessageType.ValueType, owner: str) -> Text:
    """Return who speaks: the sub-agent, or what `kind` says of the agent itself."""
    name, style = _SPEAKERS.get(kind, ("agent", "bold"))
    if owner:
        name = name.replace("agent", owner) if "agent" in name else f"{owner} {name}"
    return Text(f"{name}: ", style=style)


def spoken(kind: MessageType.ValueType, owner: str, text: str) -> Text:
    """Return a message, whole; `text` is cleaned here."""
    body = Text(clean(text).strip("\n"), style=_TEXT_STYLES.get(kind, ""))
    return Text.assemble(speaker(kind, owner), body)


def owner_name(status: AgentExecutionStatus, owner_id: str) -> str:
    """Return the name of a sub-agent; its id when it is not known, nothing for the agent itself."""
    if not owner_id:
        return ""
    names = (agent.name for agent in status.sub_agent_executions if agent.id == owner_id)
    return one_line(next(names, "") or owner_id, 40)


def tool_call(call: ToolCall, owner: str, width: int, now: datetime, mark: Text | None = None) -> Text:
    """Return a tool call on a line of at most `width` characters or so."""
    # What the server writes there of a refused call is told as a decision.
    refused = call.status == ToolCallStatus.TOOL_CALL_SKIPPED and call.approval.action
    failed = "" if refused or call.status == ToolCallStatus.TOOL_CALL_COMPLETED else call.error
    took = times.brief(times.between(call.started_at, call.completed_at, now))
    name = one_line(call.name, 60) or "tool"
    settled = _settled(call, now)
    room = max(width - len(name) - len(took) - len(owner) - len(settled) - 8, 10)
    return _line(
        mark or tool_call_mark(call.status),
        Text(name, style="bold"),
        Text(arguments(call.args, room // 2 if failed else room), style="dim"),
        Text(f"({owner})" if owner else "", style="dim"),
        Text(took, style="cyan"),
        Text(one_line(failed, room // 2), style="red"),
        Text(settled, style="magenta"),
    )


def sub_agent(agent: SubAgentExecution, width: int, now: datetime, mark: Text | None = None) -> Text:
    """Return a sub-agent on a line of at most `width` characters or so."""
    took = times.brief(times.between(agent.started_at, agent.completed_at, now))
    name = one_line(agent.name or agent.id, 60)
    failed = agent.status == SubAgentStatus.SUB_AGENT_FAILED
    said = (agent.error if failed else agent.output) or agent.input
    room = max(width - len(name) - len(took) - 20, 10)
    return _line(
        mark or sub_agent_mark(agent.status),
        Text("sub-agent", style="dim"),
        Text(name, style="bold"),
        Text(one_line(said, room), style="red" if failed else "dim"),
        Text(took, style="cyan"),
    )


def todo(item: TodoItem, width: int) -> Text:
    """Return a todo on a line, with its box."""
    return _line(todo_mark(item.status), Text(one_line(item.content or item.id, max(width - 4, 10))))


def control(asked: ExecutionControl) -> Text:
    """Return what was asked of an execution and has not happened yet."""
    what = _CONTROLS.get(asked.action, "request taken back")
    who = f" by {asked.requested_by.id}" if asked.requested_by.id else ""
    if asked.deadline_exceeded:
        what, who = "its time is over, end requested", ""
    why = f": {asked.reason}" if asked.reason else ""
    return Text(one_line(f"{what}{who}{why}", 300), style="magenta")


def ending(execution: AgentExecution, now: datetime) -> list[Text]:
    """Return the lines that end the account of an execution: phase, time, usage, what went wrong."""
    status = execution.status
    took = times.brief(times.between(status.started_at, status.completed_at, now))
    parts = [phase_text(status.phase), Text(f" in {took}" if took else "")]
    spent = usage(status.usage)
    if spent:
        parts.append(Text(f" · {spent}", style="dim"))
    if status.reason:
        parts.append(Text(f" · {one_line(status.reason, 300)}", style="magenta"))
    lines = [Text.assemble(*parts)]
    if status.error:
        lines.append(Text(f"error: {clean(status.error).strip()}", style="red"))
    return lines


def usage(spent: Iterable[Usage]) -> str:
    """Return the sum of what was spent; empty when nothing was."""
    tokens_in = tokens_out = cached = cost = 0
    for entry in spent:
        tokens_in += entry.input_tokens
        tokens_out += entry.output_tokens
        cached += entry.cached_tokens
        cost += entry.cost_micros
    parts = [f"{tokens_in:,} tokens in" + (f" ({cached:,} cached)" if cached else "")]
    parts.append(f"{tokens_out:,} out")
    if cost:
        parts.append(f"cost {cost / _MILLIONTHS:.4f}")
    return ", ".join(parts) if tokens_in or tokens_out or cost else ""


def arguments(args: Struct, width: int) -> str:
    """Return the arguments of a tool call as `key=value …`, cut to `width` characters."""
    pairs = json_format.MessageToDict(args)
    return one_line(" ".join(f"{key}={_value(pairs[key])}" for key in sorted(pairs)), width)


def done(execution: AgentExecution, what: str) -> str:
    """Return the line that tells what a command did to an execution."""
    return f"execution {execution.metadata.id} {what}"


def todos_in_order(status: AgentExecutionStatus) -> list[TodoItem]:
    """Return the todos in their places."""
    return sorted(status.todos.values(), key=lambda item: (item.position, item.id))


def _value(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _settled(call: ToolCall, now: datetime) -> str:
    """Return what a person is to decide about a call or has decided, and how it ended if not by itself."""
    decision = waiting.decision(call)
    if call.status == ToolCallStatus.TOOL_CALL_WAITING_APPROVAL:
        return waiting.question(call, now)
    if call.status == ToolCallStatus.TOOL_CALL_INTERRUPTED:
        return f"interrupted, {decision}" if decision else "interrupted"
    if call.status == ToolCallStatus.TOOL_CALL_SKIPPED:
        return decision or "skipped"
    return decision


def _line(*parts: Text) -> Text:
    return Text(" ").join(part for part in parts if part)
