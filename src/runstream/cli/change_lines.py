"""Change lines: what one commit did to an execution, on one line."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Final

from rich.text import Text

from runstream.cli import waiting, wording
from runstream.cli.phases import enum_name, phase_text
from runstream.cli.plain_text import clean, one_line
from runstream.v1.agent_execution_pb2 import (
    ChangeAuthor,
    MessageType,
    SubAgentStatus,
    TodoStatus,
    ToolCallStatus,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runstream.v1.agent_execution_pb2 import AgentExecutionStatus, ExecutionChange, ToolCall

_TEXT_WIDTH: Final = 60
#: What dispatch did, by the event in the audit trail.
_DISPATCHED: Final = {"runner_lost": "lost its runner", "returned": "given back by its runner"}


def change_line(change: ExecutionChange) -> Text:
    """Return the revision, the time, who made the change, and what it did."""
    kind = change.WhichOneof("kind") or "unknown"
    moment = change.change_time.ToDatetime(UTC).isoformat(timespec="milliseconds")
    author = enum_name(ChangeAuthor, change.author, "CHANGE_AUTHOR_").lower()
    parts = [
        Text(f"{change.revision:>5}", style="bold"),
        Text(moment.replace("+00:00", "Z"), style="dim"),
        Text("" if author == "unspecified" else author, style="cyan"),
        Text(kind),
        *_what(change, kind),
    ]
    return Text(" ").join(part for part in parts if part)


def _what(change: ExecutionChange, kind: str) -> Iterator[Text]:
    if kind in {"snapshot", "created"}:
        execution = change.snapshot if kind == "snapshot" else change.created
        yield phase_text(execution.status.phase)
        yield Text(one_line(execution.metadata.name, _TEXT_WIDTH), style="dim")
    elif kind == "status":
        if change.replace_mask:
            yield Text(f"replaces {', '.join(change.replace_mask)};")
        if change.supersedes:
            yield Text(f"supersedes attempt {change.supersedes};", style="magenta")
        yield from _dispatched(change.status)
        yield Text(" ").join(_delta(change.status))
    elif kind == "control":
        yield wording.control(change.control)
    elif kind == "deleted":
        yield Text(f"by {one_line(change.deleted.deleted_by.id, _TEXT_WIDTH)}")


def _dispatched(status: AgentExecutionStatus) -> Iterator[Text]:
    """Yield what dispatch did: the rest of such a change tells only what came of it."""
    audit = status.audit.status_audit
    if audit.event == "assigned":
        yield Text(f"assigned to {one_line(audit.updated_by.id, _TEXT_WIDTH)};", style="magenta")
    elif audit.event in _DISPATCHED:
        yield Text(f"{_DISPATCHED[audit.event]};", style="magenta")


def _delta(status: AgentExecutionStatus) -> Iterator[Text]:
    """Yield what a delta holds, a part for each entry."""
    yield from _standing(status)
    for message in status.messages:
        name = enum_name(MessageType, message.type, "MESSAGE_").lower()
        text = _cut(message.content or message.content_append)
        sign = "+=" if message.content_append else "="
        yield Text(f"message[{_key(message.id)}{'' if not message.type else f' {name}'}]{sign}{text!r}")
    for call in status.tool_calls:
        state = enum_name(ToolCallStatus, call.status, "TOOL_CALL_") if call.status else ""
        named = ":".join(filter(None, (one_line(call.name, 40), state)))
        yield Text(f"tool_call[{_key(call.id)}]={named}{_approval(call)}")
    for agent in status.sub_agent_executions:
        state = enum_name(SubAgentStatus, agent.status, "SUB_AGENT_") if agent.status else ""
        yield Text(f"sub_agent[{_key(agent.id)}]={':'.join(filter(None, (one_line(agent.name, 40), state)))}")
    for key in sorted(status.todos):
        state = enum_name(TodoStatus, status.todos[key].status, "TODO_")
        yield Text(f"todo[{_key(key)}]={state}")
    if status.usage:
        yield Text(f"usage+={len(status.usage)}")


def _standing(status: AgentExecutionStatus) -> Iterator[Text]:
    """Yield what a delta says of the execution as a whole."""
    if status.phase:
        yield Text.assemble("phase=", phase_text(status.phase))
    if status.attempt:
        yield Text(f"attempt={status.attempt}")
    if status.control.action:
        yield wording.control(status.control)
    for name, text in (("reason", status.reason), ("error", status.error)):
        if text:
            yield Text(f"{name}={one_line(text, _TEXT_WIDTH)!r}")


def _approval(call: ToolCall) -> str:
    """Return what was decided about a call, or what will be when nobody does."""
    approval = call.approval
    if approval.action:
        return f"({waiting.decision(call)})"
    if not approval.HasField("expire_time"):
        return ""
    end = approval.expire_time.ToDatetime(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return f"(else {waiting.decided(approval.default_action)} at {end})"


def _cut(text: str) -> str:
    """Return the beginning of a text; its line ends and outer spaces stay, since it is a piece."""
    return clean(text[:_TEXT_WIDTH]) + ("…" if len(text) > _TEXT_WIDTH else "")


def _key(entry_id: str) -> str:
    return one_line(entry_id, 40)
