"""State: an execution as it stood at one revision, in words that are short enough for an assertion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runstream.testing.phases import to_phase
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_PENDING,
    MESSAGE_AI,
    TOOL_CALL_WAITING_APPROVAL,
    MessageType,
    ToolCallStatus,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from runstream.testing.phases import Phase
    from runstream.v1.agent_execution_pb2 import AgentExecution, AgentExecutionStatus, AgentMessage, ToolCall

#: How many messages and tool calls, the newest ones, and how much of each a description shows.
_SHOWN: Final = 5
_SHOWN_CHARACTERS: Final = 200


class State:
    """An execution at one revision. `execution` is all of it; the rest are ways to look at it."""

    def __init__(self, execution: AgentExecution) -> None:
        """Look at `execution`, which nobody changes any more."""
        self.execution = execution

    def __repr__(self) -> str:
        return f"<{describe(self.execution)}>"

    @property
    def id(self) -> str:
        """The execution's id."""
        return self.execution.metadata.id

    @property
    def revision(self) -> int:
        """The revision at which this is the state."""
        return self.execution.metadata.revision

    @property
    def session_id(self) -> str:
        """The session it belongs to; empty for none."""
        return self.execution.spec.session_id

    @property
    def status(self) -> AgentExecutionStatus:
        """What has happened, as the API has it."""
        return self.execution.status

    @property
    def phase(self) -> Phase:
        """Where it stands, as in ``"completed"``."""
        return to_phase(self.status.phase)

    @property
    def attempt(self) -> int:
        """The attempt that is current; 0 before the first."""
        return self.status.attempt

    @property
    def error(self) -> str:
        """Why it failed, for a person."""
        return self.status.error

    @property
    def reason(self) -> str:
        """Why it ended, for a program, as in ``"DEADLINE_EXCEEDED"``; or what the caller gave as the reason."""
        return self.status.reason

    @property
    def answer(self) -> str:
        """The last thing that the agent itself has said; empty when it has said nothing."""
        said = [each.content for each in self.status.messages if each.type == MESSAGE_AI and not each.owner_id]
        return said[-1] if said else ""

    @property
    def texts(self) -> list[str]:
        """All that was said, by whomever, in order."""
        return [message.content for message in self.status.messages]

    @property
    def tools(self) -> list[ToolCall]:
        """The tool calls, in order."""
        return list(self.status.tool_calls)

    def expect(self, phase: Phase = "completed") -> Self:
        """Return the state itself if it is in this phase. AssertionError, which tells where it stands, if not."""
        if self.phase != phase:
            raise AssertionError(f"expected {phase}: {describe(self.execution)}")
        return self

    def tool(self, name: str) -> ToolCall:
        """Return the last call of a tool by its name, or the call with this id. AssertionError when there is none."""
        for call in reversed(self.status.tool_calls):
            if name in (call.id, call.name):
                return call
        raise AssertionError(f"no call of {name!r}: {describe(self.execution)}")


def waiting_calls(execution: AgentExecution, tool: str = "") -> list[ToolCall]:
    """Return the tool calls that wait for approval; with `tool`, those of this name or id alone."""
    waiting = [call for call in execution.status.tool_calls if call.status == TOOL_CALL_WAITING_APPROVAL]
    return [call for call in waiting if not tool or tool in (call.id, call.name)]


def describe(execution: AgentExecution) -> str:
    """Tell where an execution stands, and the last of what it did."""
    return "\n".join(_lines(execution))


def _lines(execution: AgentExecution) -> Iterator[str]:
    status = execution.status
    place = f"attempt {status.attempt}, revision {execution.metadata.revision}"
    yield f"execution {execution.metadata.id} is {to_phase(status.phase)} ({place})"
    if status.phase == EXECUTION_PENDING:
        yield "  no runner that serves its agent has taken it yet"
    if status.reason:
        yield f"  reason: {status.reason}"
    if status.error:
        yield f"  error: {_short(status.error)}"
    for message in status.messages[-_SHOWN:]:
        yield f"  {_speaker(message)} {_short(message.content)!r}"
    for call in status.tool_calls[-_SHOWN:]:
        failed = f": {_short(call.error)}" if call.error else ""
        yield f"  tool {call.name} ({call.id}) is {_call_status(call)}{failed}"


def _speaker(message: AgentMessage) -> str:
    """Return who says it; a type of a newer server by its number."""
    known = MessageType.DESCRIPTOR.values_by_number.get(message.type)
    who = str(message.type) if known is None else str(known.name).removeprefix("MESSAGE_").lower()
    return f"{who} said" if not message.owner_id else f"{who} of {message.owner_id} said"


def _call_status(call: ToolCall) -> str:
    known = ToolCallStatus.DESCRIPTOR.values_by_number.get(call.status)
    return str(call.status) if known is None else str(known.name).removeprefix("TOOL_CALL_").lower()


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
