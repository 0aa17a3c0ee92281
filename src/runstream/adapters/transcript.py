"""Transcript: what was said before, in words that every framework's messages can be made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from google.protobuf.json_format import MessageToDict

from runstream.runner.json_safe import TOO_DEEP, TOO_MUCH, to_text
from runstream.v1.agent_execution_pb2 import (
    MESSAGE_AI,
    MESSAGE_HUMAN,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_FAILED,
    TOOL_CALL_SKIPPED,
    ToolCall,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runstream.runner import Invocation
    from runstream.v1.agent_execution_pb2 import AgentExecutionStatus, AgentMessage

_ENDED: Final = frozenset({TOOL_CALL_COMPLETED, TOOL_CALL_FAILED, TOOL_CALL_SKIPPED})
_SKIPPED: Final = "A person did not let the tool run."
_INTERRUPTED: Final = "The call was interrupted, and it is not known what it has done. Make it again if need be."
#: Up to here a double holds every integer, and is one where a tool takes no other.
_EXACT: Final = 1 << 53


@dataclass(frozen=True, slots=True)
class Made:
    """A tool call: `result` is its result, or why there is none if it has `failed`."""

    id: str
    name: str
    args: dict[str, Any]
    result: str
    failed: bool
    #: False for one that is still to be made, or made again.
    ended: bool = True


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side has said, and the tool calls that the agent made with it."""

    role: Literal["user", "assistant"]
    text: str
    calls: tuple[Made, ...] = ()

    @property
    def open(self) -> bool:
        """Whether its calls are still to be made: the agent goes on with them, before its model is asked again."""
        return any(not call.ended for call in self.calls)


def transcript(invocation: Invocation) -> list[Turn]:
    """Return what was said in the session, what the agent is to do, and what it has done if it is resumed.

    The last turn is open if the agent was cut short before all that it called for was done: the calls that are still to
    be made are a turn of their own, after those that have ended. What was said last, if it called for nothing, is left
    out: the agent says it again. So are calls that were cut short earlier, thoughts, and what sub-agents did.
    """
    turns = [turn for turn in map(_said, invocation.history) if turn is not None]
    if invocation.message:
        turns.append(Turn("user", invocation.message))
    if invocation.resumed:
        turns.extend(_at_the_end(list(_done(invocation.execution.status))))
    while turns and turns[-1].role == "assistant" and not turns[-1].calls:
        turns.pop()
    return turns


def closed(turns: list[Turn]) -> list[Turn]:
    """Return turns for a framework that cannot go on with an open one: its model is told what was interrupted."""
    return [replace(turn, calls=tuple(map(_interrupted, turn.calls))) for turn in turns]


def _at_the_end(turns: list[Turn]) -> list[Turn]:
    """Let the last turn that calls for anything be the only open one, and what its tools have said after it go."""
    asking = [place for place, turn in enumerate(turns) if turn.calls]
    last = asking[-1] if asking else -1
    kept = [replace(turn, calls=tuple(filter(_ended, turn.calls))) for turn in turns]
    left = tuple(call for call in turns[last].calls if not call.ended) if asking else ()
    if not left:
        return kept
    if not all(map(_can_be_repeated, left)):
        left = tuple(map(_interrupted, left))
    done = kept[last] if kept[last].calls else None
    return [*kept[:last], *([done] if done else []), Turn("assistant", "" if done else turns[last].text, left)]


def _ended(call: Made) -> bool:
    return call.ended


def _interrupted(call: Made) -> Made:
    return call if call.ended else replace(call, result=_INTERRUPTED, failed=True, ended=True)


def _can_be_repeated(call: Made) -> bool:
    """Tell whether the arguments are known whole; too much of them is not recorded."""
    written = to_text(call.args)
    return TOO_MUCH not in written and TOO_DEEP not in written


def _said(message: AgentMessage) -> Turn | None:
    if not message.content or message.owner_id:
        return None
    if message.type == MESSAGE_HUMAN:
        return Turn("user", message.content)
    return Turn("assistant", message.content) if message.type == MESSAGE_AI else None


def _done(status: AgentExecutionStatus) -> Iterator[Turn]:
    """Return what an earlier attempt has said and done, in order: each message with its calls."""
    made = [call for call in status.tool_calls if not call.owner_id]
    said = {message.id for message in status.messages if _said(message) is not None}
    alone = [call for call in made if call.message_id not in said and not call.parent_call_id]
    entries: list[AgentMessage | ToolCall] = [*status.messages, *alone]
    together: list[ToolCall] = []
    for entry in sorted(entries, key=lambda entry: entry.revision):
        if isinstance(entry, ToolCall):
            together.append(entry)
            continue
        turn = _said(entry)
        if turn is None:
            continue
        if together:
            yield Turn("assistant", "", _made(together))
            together = []
        yield Turn(turn.role, turn.text, _made(call for call in made if call.message_id == entry.id))
    if together:
        yield Turn("assistant", "", _made(together))


def _made(calls: Iterable[ToolCall]) -> tuple[Made, ...]:
    return tuple(
        Made(
            call.id,
            call.name,
            _whole(MessageToDict(call.args)),
            {TOOL_CALL_FAILED: call.error, TOOL_CALL_SKIPPED: _SKIPPED}.get(call.status, call.result),
            failed=call.status in (TOOL_CALL_FAILED, TOOL_CALL_SKIPPED),
            ended=call.status in _ENDED,
        )
        for call in calls
    )


def _whole(value: Any) -> Any:  # noqa: ANN401  # what JSON can hold
    """Return what was recorded with whole numbers as such: the record has one kind of number."""
    if isinstance(value, dict):
        return {key: _whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT else value
