"""Record: what earlier attempts of an execution have reported, as this one finds it when it resumes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from runstream.runner.decisions import recorded
from runstream.runner.desk import now
from runstream.v1.agent_execution_pb2 import (
    MESSAGE_HUMAN,
    SUB_AGENT_CANCELLED,
    SUB_AGENT_FAILED,
    TOOL_CALL_INTERRUPTED,
    TOOL_CALL_WAITING_APPROVAL,
    ToolCall,
)

if TYPE_CHECKING:
    from runstream.runner.decisions import Decision
    from runstream.v1.agent_execution_pb2 import AgentExecutionStatus

#: An id of `Desk.new_id`.
_MADE_UP: Final = re.compile(r"call-\d+-\d+")


class Record:
    """The state that the attempt was assigned with."""

    def __init__(self, status: AgentExecutionStatus, *, resumed: bool = False) -> None:
        self._messages = list(status.messages)
        self._places = {message.id: place for place, message in enumerate(self._messages)}
        self._calls = {call.id: call for call in status.tool_calls}
        # An attempt that begins afresh has none: what an earlier one has delegated is cancelled with it.
        self._sub_agents = list(status.sub_agent_executions) if resumed else []
        #: What was spent.
        self.usage = list(status.usage)

    def call(self, call_id: str) -> ToolCall | None:
        """Return the tool call with an id, if there is one."""
        return self._calls.get(call_id)

    def delegated(self, call_id: str) -> str | None:
        """Return the execution that a tool call has made, if it may be gone on with: none that has failed."""
        for entry in reversed(self._sub_agents):
            if entry.call_id == call_id and entry.execution_id:
                return None if entry.status in (SUB_AGENT_FAILED, SUB_AGENT_CANCELLED) else entry.execution_id
        return None

    def decision(self, call_id: str) -> Decision | None:
        """Return what was decided about a tool call, if it was."""
        call = self._calls.get(call_id)
        return recorded(call_id, call.approval) if call is not None else None

    def stale_questions(self) -> list[ToolCall]:
        """Return, as interrupted, the calls that wait for a person and that nobody will ask about again.

        Their ids were made up by an earlier attempt; this one makes up others.
        """
        return [
            ToolCall(id=call.id, status=TOOL_CALL_INTERRUPTED, completed_at=now())
            for call in self._calls.values()
            if call.status == TOOL_CALL_WAITING_APPROVAL and _MADE_UP.fullmatch(call.id)
        ]

    def has_message(self, message_id: str) -> bool:
        """Tell whether there is a message with this id."""
        return message_id in self._places

    def answer(self, prompt_id: str) -> str | None:
        """Return what a person said after a prompt: the first message of a person that follows it, if there is one."""
        place = self._places.get(prompt_id)
        if place is None:
            return None
        said = (message.content for message in self._messages[place + 1 :] if message.type == MESSAGE_HUMAN)
        return next(said, None)
