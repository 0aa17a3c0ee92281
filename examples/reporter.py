"""Reports what an agent does: all that an agent needs to know of Runstream, in one class.

- A report is a *delta*: an `AgentExecutionStatus` that holds only what is new. The server merges it into the execution,
  and it is on disk before the answer comes.
- Messages, tool calls and sub-agents have ids, which the agent chooses. A known id is merged into its entry, a new one
  is appended.
- Text streams through `content_append`: every piece is appended to the content of its message.
- Deltas are numbered by `sequence`. A number that was taken already changes nothing, so a report whose answer got lost
  is simply sent again. Numbers must arrive in order, so reports take turns.
- The answer is asked for as BASIC: it has no lists, so its size does not grow with the execution. It still tells
  whether somebody has asked the agent to give up.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

import grpc

from runstream.v1.agent_execution_pb2 import (
    CONTROL_CANCEL,
    MESSAGE_AI,
    TODO_PENDING,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_FAILED,
    TOOL_CALL_RUNNING,
    AgentExecution,
    AgentExecutionStatus,
    AgentMessage,
    TodoItem,
    ToolCall,
)
from runstream.v1.agent_execution_service_pb2 import AgentExecutionUpdateStatusInput
from runstream.v1.agent_execution_service_pb2_grpc import AgentExecutionCommandControllerStub
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runstream.v1.agent_execution_pb2 import TodoStatus

SECONDS_PER_CALL = 10
SECONDS_BEFORE_RETRY = (0.1, 0.5, 1.0, 2.0, 4.0)
MAY_HAVE_BEEN_LOST = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})

WORDS_PER_PIECE = 3
SECONDS_PER_PIECE = 0.05
SECONDS_PER_TOOL = 0.3


class Finding(Protocol):
    """What a tool finds out."""

    def text(self) -> str:
        """Return it as the result of the tool call."""


F = TypeVar("F", bound=Finding)


class CancelAskedError(Exception):
    """Somebody has asked for the execution to be cancelled; the text is their reason."""


class Reporter:
    """Reports to one execution."""

    def __init__(self, channel: grpc.aio.Channel, execution_id: str, *, pace: float = 1.0) -> None:
        """Report over `channel`; `pace` stretches the pauses that let a person follow, 0 leaves them out."""
        self._commands = AgentExecutionCommandControllerStub(channel)
        self._execution_id = execution_id
        self._pace = pace
        self._sequence = 0
        self._turn = asyncio.Lock()
        self._numbers = itertools.count(1)

    async def report(self, delta: AgentExecutionStatus) -> None:
        """Report a delta; on disk when this returns. Raises `CancelAskedError` and `grpc.RpcError`."""
        answer = await self._numbered(delta)
        if answer.status.control.action == CONTROL_CANCEL:
            raise CancelAskedError(answer.status.control.reason)

    async def end(self, delta: AgentExecutionStatus) -> None:
        """Report the last delta, with a terminal phase. Raises `grpc.RpcError`."""
        await self._numbered(delta)

    async def say(self, text: str, owner: str = "") -> None:
        """Stream a message, a few words at a time; `owner` is the sub-agent that speaks."""
        message = AgentMessage(id=self.new_id("message"), type=MESSAGE_AI, owner_id=owner, timestamp=now())
        for piece in pieces(text):
            message.content_append = piece
            await self.report(AgentExecutionStatus(messages=[message]))
            message = AgentMessage(id=message.id)
            await self._pause(SECONDS_PER_PIECE)

    async def use(self, name: str, args: Mapping[str, str], tool: Callable[[], F], owner: str = "") -> F:
        """Run a tool and report it as a tool call. What the tool raises is reported, and raised."""
        call = ToolCall(id=self.new_id("call"), name=name, status=TOOL_CALL_RUNNING, started_at=now(), owner_id=owner)
        call.args.update(dict(args))
        await self.report(AgentExecutionStatus(tool_calls=[call]))
        await self._pause(SECONDS_PER_TOOL)
        ended = ToolCall(id=call.id)
        try:
            found = await asyncio.to_thread(tool)
        except Exception as error:
            ended.MergeFrom(ToolCall(status=TOOL_CALL_FAILED, error=told(error), completed_at=now()))
            await self.report(AgentExecutionStatus(tool_calls=[ended]))
            raise
        ended.MergeFrom(ToolCall(status=TOOL_CALL_COMPLETED, result=found.text(), completed_at=now()))
        await self.report(AgentExecutionStatus(tool_calls=[ended]))
        return found

    async def plan(self, todos: Mapping[str, str]) -> None:
        """Report what is to be done: key and content, in order."""
        items = {
            key: TodoItem(id=key, content=content, status=TODO_PENDING, position=position, created_at=now())
            for position, (key, content) in enumerate(todos.items())
        }
        await self.report(AgentExecutionStatus(todos=items))

    async def mark(self, *todos: str, status: TodoStatus.ValueType) -> None:
        """Report where todos stand."""
        items = {key: TodoItem(status=status, updated_at=now()) for key in todos}
        await self.report(AgentExecutionStatus(todos=items))

    def new_id(self, kind: str) -> str:
        """Return an id that this execution has not seen."""
        return f"{kind}-{next(self._numbers)}"

    async def _numbered(self, delta: AgentExecutionStatus) -> AgentExecution:
        async with self._turn:
            self._sequence += 1
            return await self._sent(
                AgentExecutionUpdateStatusInput(
                    execution_id=self._execution_id,
                    status=delta,
                    sequence=self._sequence,
                    view=RESOURCE_VIEW_BASIC,
                )
            )

    async def _sent(self, request: AgentExecutionUpdateStatusInput) -> AgentExecution:
        """Send a report until it is answered; its sequence makes sure that it counts once."""
        for seconds in SECONDS_BEFORE_RETRY:
            try:
                return await self._commands.UpdateStatus(request, timeout=SECONDS_PER_CALL)
            except grpc.RpcError as error:
                if error.code() not in MAY_HAVE_BEEN_LOST:
                    raise
            await asyncio.sleep(seconds)
        return await self._commands.UpdateStatus(request, timeout=SECONDS_PER_CALL)

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds * self._pace)


def now() -> str:
    """Return the time as the API writes it: RFC 3339 in UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def pieces(text: str) -> list[str]:
    """Return the text in pieces of a few words; joined, they are the text."""
    words = re.findall(r"\s*\S+|\s+$", text)
    return ["".join(words[at : at + WORDS_PER_PIECE]) for at in range(0, len(words), WORDS_PER_PIECE)]


def told(error: Exception) -> str:
    """Return an error for a person."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"
