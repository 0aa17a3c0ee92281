"""Phases and statuses: how they are written and coloured."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

from rich.text import Text

from runstream.v1.agent_execution_pb2 import (
    ExecutionPhase,
    SubAgentStatus,
    TodoStatus,
    ToolCallStatus,
)

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor

_PREFIX: Final = "EXECUTION_"

_STYLES: Final = {
    ExecutionPhase.EXECUTION_PENDING: "cyan",
    ExecutionPhase.EXECUTION_IN_PROGRESS: "blue",
    ExecutionPhase.EXECUTION_COMPLETED: "green",
    ExecutionPhase.EXECUTION_FAILED: "red",
    ExecutionPhase.EXECUTION_CANCELLED: "magenta",
    ExecutionPhase.EXECUTION_WAITING_FOR_APPROVAL: "yellow",
    ExecutionPhase.EXECUTION_PAUSED: "yellow",
    ExecutionPhase.EXECUTION_TERMINATED: "red",
    ExecutionPhase.EXECUTION_WAITING_FOR_INPUT: "yellow",
}

WORKING: Final = "…"
"""The mark of what is not finished; the live view turns it."""

_TOOL_CALL_MARKS: Final = {
    ToolCallStatus.TOOL_CALL_PENDING: ("·", "dim"),
    ToolCallStatus.TOOL_CALL_RUNNING: (WORKING, "blue"),
    ToolCallStatus.TOOL_CALL_COMPLETED: ("✓", "green"),
    ToolCallStatus.TOOL_CALL_FAILED: ("✗", "red"),
    ToolCallStatus.TOOL_CALL_WAITING_APPROVAL: ("?", "yellow"),
    ToolCallStatus.TOOL_CALL_SKIPPED: ("-", "dim"),
    ToolCallStatus.TOOL_CALL_INTERRUPTED: ("!", "magenta"),
}
_SUB_AGENT_MARKS: Final = {
    SubAgentStatus.SUB_AGENT_PENDING: ("·", "dim"),
    SubAgentStatus.SUB_AGENT_IN_PROGRESS: (WORKING, "blue"),
    SubAgentStatus.SUB_AGENT_COMPLETED: ("✓", "green"),
    SubAgentStatus.SUB_AGENT_FAILED: ("✗", "red"),
    SubAgentStatus.SUB_AGENT_CANCELLED: ("!", "magenta"),
}
_TODO_MARKS: Final = {
    TodoStatus.TODO_PENDING: ("[ ]", "dim"),
    TodoStatus.TODO_IN_PROGRESS: ("[>]", "blue"),
    TodoStatus.TODO_COMPLETED: ("[x]", "green"),
    TodoStatus.TODO_CANCELLED: ("[-]", "dim"),
}

OPEN_TOOL_CALLS: Final = frozenset(
    {
        ToolCallStatus.TOOL_CALL_STATUS_UNSPECIFIED,
        ToolCallStatus.TOOL_CALL_PENDING,
        ToolCallStatus.TOOL_CALL_RUNNING,
        ToolCallStatus.TOOL_CALL_WAITING_APPROVAL,
    }
)
OPEN_SUB_AGENTS: Final = frozenset(
    {
        SubAgentStatus.SUB_AGENT_STATUS_UNSPECIFIED,
        SubAgentStatus.SUB_AGENT_PENDING,
        SubAgentStatus.SUB_AGENT_IN_PROGRESS,
    }
)


class Enum(Protocol):
    """An enum of the API."""

    @property
    def DESCRIPTOR(self) -> EnumDescriptor:  # noqa: N802 — as generated code names it
        """What it is made of."""


class PhaseName(StrEnum):
    """A phase as a person types it."""

    PENDING = "pending"
    IN_PROGRESS = "in-progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    WAITING_FOR_APPROVAL = "waiting-for-approval"
    PAUSED = "paused"
    TERMINATED = "terminated"
    WAITING_FOR_INPUT = "waiting-for-input"

    @property
    def phase(self) -> ExecutionPhase.ValueType:
        """The phase it names."""
        return ExecutionPhase.Value(_PREFIX + self.name)


def enum_name(enum: Enum, value: int, prefix: str) -> str:
    """Return the name of a value without its prefix; a value of a newer server by its number."""
    known = enum.DESCRIPTOR.values_by_number.get(value)
    return str(value) if known is None else str(known.name).removeprefix(prefix)


def phase_name(phase: int) -> str:
    """Return the name of a phase."""
    return enum_name(ExecutionPhase, phase, _PREFIX)


def phase_text(phase: ExecutionPhase.ValueType) -> Text:
    """Return the name of a phase in its colour."""
    return Text(phase_name(phase), style=_STYLES.get(phase, ""))


def tool_call_mark(status: ToolCallStatus.ValueType) -> Text:
    """Return the mark of a tool call."""
    return Text(*_TOOL_CALL_MARKS.get(status, ("·", "dim")))


def sub_agent_mark(status: SubAgentStatus.ValueType) -> Text:
    """Return the mark of a sub-agent."""
    return Text(*_SUB_AGENT_MARKS.get(status, ("·", "dim")))


def todo_mark(status: TodoStatus.ValueType) -> Text:
    """Return the mark of a todo."""
    return Text(*_TODO_MARKS.get(status, ("[ ]", "dim")))
