"""Outcomes: how tool calls and sub-agents end, as entries that say so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runstream.runner.desk import now
from runstream.runner.errors import AgentFailure
from runstream.runner.json_safe import to_text
from runstream.runner.sub_agents import LONGEST_TEXT
from runstream.runner.text import cut
from runstream.runner.tools.handle import LONGEST_REASON, LONGEST_RESULT
from runstream.v1.agent_execution_pb2 import (
    SUB_AGENT_CANCELLED,
    SUB_AGENT_COMPLETED,
    SUB_AGENT_FAILED,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_FAILED,
    TOOL_CALL_INTERRUPTED,
    SubAgentExecution,
    ToolCall,
)

if TYPE_CHECKING:
    from runstream.runner.desk import Desk

#: Why a call has failed that the framework has not ended, though the run went well.
NO_RESULT: Final = "NO_RESULT"
_NO_RESULT: Final = "The run ended without a result of it."


class Outcomes:
    """Makes the ends of what is narrated in one attempt; errors are told without the values of secrets."""

    def __init__(self, desk: Desk) -> None:
        """Take the desk of the attempt."""
        self._desk = desk

    def returned(self, result: object) -> ToolCall:
        """Return the end of a call with its result: a text, or anything JSON can be made of."""
        text = "" if result is None else cut(to_text(result), LONGEST_RESULT)
        return ToolCall(status=TOOL_CALL_COMPLETED, result=text, completed_at=now())

    def failed(self, error: str | BaseException, reason: str = "") -> ToolCall:
        """Return the end of a call that has failed, with the reason of an AgentFailure unless one is given."""
        if isinstance(error, AgentFailure):
            reason = reason or error.reason
        reason = cut(reason, LONGEST_REASON)
        return ToolCall(status=TOOL_CALL_FAILED, error=self._why(error), reason=reason, completed_at=now())

    def left_open(self, error: BaseException | None, *, told: bool) -> ToolCall:
        """Return the end of a call that was open when the run ended; `told` is whether another one was to blame."""
        if error is None:
            return self.failed(_NO_RESULT, NO_RESULT)
        if isinstance(error, Exception) and not told:
            return self.failed(error)
        return ToolCall(status=TOOL_CALL_INTERRUPTED, completed_at=now())

    def answered(self, output: object) -> SubAgentExecution:
        """Return the end of a sub-agent with its answer."""
        text = "" if output is None else cut(to_text(output), LONGEST_TEXT)
        return SubAgentExecution(status=SUB_AGENT_COMPLETED, output=text, completed_at=now())

    def gave_up(self, error: str | BaseException) -> SubAgentExecution:
        """Return the end of a sub-agent that has failed."""
        return SubAgentExecution(status=SUB_AGENT_FAILED, error=self._why(error), completed_at=now())

    def left_at_work(self, error: BaseException | None, *, told: bool) -> SubAgentExecution:
        """Return the end of a sub-agent that was at work when the run ended."""
        if error is None:
            return self.gave_up(_NO_RESULT)
        if isinstance(error, Exception) and not told:
            return self.gave_up(error)
        return SubAgentExecution(status=SUB_AGENT_CANCELLED, completed_at=now())

    def _why(self, error: str | BaseException) -> str:
        return self._desk.told(error) if isinstance(error, str) else self._desk.why(error)
