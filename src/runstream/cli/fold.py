"""The fold: the state of an execution that is followed, kept up with its changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from runstream.model.entry_index import EntryIndex
from runstream.model.merge import fold
from runstream.v1.agent_execution_pb2 import (
    AgentExecution,
    AgentMessage,
    ExecutionChange,
    SubAgentExecution,
    ToolCall,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runstream.v1.agent_execution_pb2 import AgentExecutionStatus

Entry = TypeVar("Entry")

_LEAST_COPIED: Final = 1 << 20


class Fold:
    """The state of one execution. Streamed text is written when the state is read, not per change."""

    def __init__(self) -> None:
        """Begin with nothing; the first change brings the whole execution."""
        self._execution = AgentExecution()
        self._index = EntryIndex()
        self._index.defer_text()

    def take(self, change: ExecutionChange) -> None:
        """Apply the next change."""
        fold(self._execution, change, self._index)

    @property
    def state(self) -> AgentExecution:
        """The whole state; it is the fold's own, and changes with the next change."""
        self.write_text()
        return self._execution

    def write_text(self) -> None:
        """Write the text that was streamed, so that `peek` and `status` miss nothing."""
        self._index.write_text(self._execution.status)
        self._index.defer_text()
        if self._index.stale_bytes > max(self._execution.ByteSize(), _LEAST_COPIED):
            copy = AgentExecution()
            copy.CopyFrom(self._execution)
            self._execution, self._index.stale_bytes = copy, 0

    @property
    def peek(self) -> AgentExecution:
        """The state, in which text streamed since the text was written last may be missing."""
        return self._execution

    @property
    def status(self) -> AgentExecutionStatus:
        """The status of `peek`."""
        return self._execution.status

    def message(self, message_id: str) -> AgentMessage | None:
        """Return a message by id, as `status` has it."""
        return self._find("messages", self.status.messages, message_id)

    def tool_call(self, call_id: str) -> ToolCall | None:
        """Return a tool call of the status by id."""
        return self._find("tool_calls", self.status.tool_calls, call_id)

    def sub_agent(self, sub_agent_id: str) -> SubAgentExecution | None:
        """Return a sub-agent by id."""
        return self._find("sub_agent_executions", self.status.sub_agent_executions, sub_agent_id)

    def _find(self, name: str, entries: Sequence[Entry], entry_id: str) -> Entry | None:
        at = self._index.positions(name).find(entries, entry_id)
        return None if at is None else entries[at]
