"""Scopes: what one agent does in a narration: the agent itself, or a sub-agent of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runstream.runner.json_safe import to_struct
from runstream.runner.reporter import LONGEST_NAME
from runstream.runner.text import cut
from runstream.v1.agent_execution_pb2 import TOOL_CALL_PENDING, ToolCall

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runstream.runner.context import ExecutionContext
    from runstream.runner.messages import Message
    from runstream.v1.agent_execution_pb2 import SubAgentExecution


@dataclass(slots=True, eq=False)
class Call:
    """A tool call, by the entry that it was first reported as."""

    entry: ToolCall
    open: bool = True
    #: Whether a person is asked about it: the question may outlast the run.
    asking: bool = False
    #: Whether a sub-agent does it.
    is_agent: bool = False

    @property
    def at_work(self) -> bool:
        """Whether it may be running, and is no sub-agent, which has steps of its own."""
        return self.open and not self.is_agent


@dataclass(slots=True, eq=False)
class Scope:
    """What one agent has said and called, by the framework's ids."""

    context: ExecutionContext
    #: None for the agent itself.
    sub_agent: SubAgentExecution | None = None
    open: bool = True
    messages: dict[tuple[str, str], Message] = field(default_factory=dict)
    #: The newest call of each id.
    calls: dict[str, Call] = field(default_factory=dict)
    #: All calls, in order.
    made: list[Call] = field(default_factory=list)
    #: Our ids of what was spent.
    usage: dict[str, str] = field(default_factory=dict)

    def call(self, name: str, args: Mapping[str, Any] | str | None, message: str = "") -> ToolCall:
        """Return a new call, which has no id yet: whose it is, within which one it is made, and which message asks."""
        entry = ToolCall(name=cut(name, LONGEST_NAME), status=TOOL_CALL_PENDING)
        entry.args.CopyFrom(to_struct(_arguments(args)))
        report = self.context.report
        entry.owner_id = report._owner  # noqa: SLF001  # of the SDK, for the SDK
        entry.parent_call_id = report._call_id  # noqa: SLF001
        said = self.messages.get((message, "ai"))
        if said is not None:
            entry.message_id = said.id
        return entry


def _arguments(args: Mapping[str, Any] | str | None) -> Mapping[str, Any]:
    """Return arguments as a mapping; a text that is no JSON object is kept as it is, under a name that says so."""
    if not isinstance(args, str):
        return args or {}
    try:
        read = json.loads(args or "{}")
    except ValueError:
        read = None
    return read if isinstance(read, dict) else {"_raw": args}
