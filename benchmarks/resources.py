"""What the load needs before it begins: agents, and executions at work. Made before anything is measured."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from benchmarks.wire import Call, Connection, answer
from runstream.v1.agent_execution_pb2 import EXECUTION_COMPLETED, EXECUTION_IN_PROGRESS, AgentExecution
from runstream.v1.agent_execution_service_pb2 import (
    AgentExecutionUpdateStatusInput,
    GetAgentExecutionRequest,
    WatchAgentExecutionRequest,
)
from runstream.v1.agent_pb2 import Agent
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_COMMANDS: Final = "/runstream.v1.AgentExecutionCommandController"
_QUERIES: Final = "/runstream.v1.AgentExecutionQueryController"
_APPLY: Final = "/runstream.v1.AgentCommandController/Apply"
_GET: Final = f"{_QUERIES}/Get"
CREATE: Final = f"{_COMMANDS}/Create"
UPDATE_STATUS: Final = f"{_COMMANDS}/UpdateStatus"
LIST: Final = f"{_QUERIES}/List"
WATCH: Final = f"{_QUERIES}/Watch"

#: After so many seconds a connection is made anew.
_LONGEST_PAUSE: Final = 20.0


class Resources:
    """Makes what is needed on one server."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._connection = Connection(address)
        self._used = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def agent(self, name: str = "load") -> str:
        """Make sure of an agent; return its id."""
        agent = Agent()
        agent.metadata.name = name
        return Agent.FromString(self._answer(Call.to(_APPLY, agent))).metadata.id

    def pending(self, agent_id: str) -> str:
        """Create an execution, and with the first one of an agent its instance; return its id."""
        return self._execution(Call.to(CREATE, an_execution(agent_id))).metadata.id

    def at_work(self, agent_id: str) -> str:
        """Create an execution and take it to IN_PROGRESS, revision 2; return its id."""
        execution_id = self.pending(agent_id)
        begin = AgentExecutionUpdateStatusInput(execution_id=execution_id)
        begin.status.phase = EXECUTION_IN_PROGRESS
        self._execution(Call.to(UPDATE_STATUS, begin))
        return execution_id

    def complete(self, execution_id: str) -> None:
        """End an execution."""
        end = AgentExecutionUpdateStatusInput(execution_id=execution_id, view=RESOURCE_VIEW_BASIC)
        end.status.phase = EXECUTION_COMPLETED
        self._execution(Call.to(UPDATE_STATUS, end))

    def revision(self, execution_id: str) -> int:
        """Tell how many changes an execution has."""
        request = GetAgentExecutionRequest(value=execution_id, view=RESOURCE_VIEW_BASIC)
        return self._execution(Call.to(_GET, request)).metadata.revision

    def _execution(self, call: Call) -> AgentExecution:
        return AgentExecution.FromString(self._answer(call))

    def _answer(self, call: Call) -> bytes:
        """Call on a connection that lives: one that is not read answers no ping, and is closed after 40 seconds."""
        if time.monotonic() - self._used > _LONGEST_PAUSE:
            self._connection.close()
            self._connection = Connection(self._address)
        self._used = time.monotonic()
        return answer(self._connection, call)


def an_execution(agent_id: str) -> AgentExecution:
    """Make the request for an execution of an agent."""
    request = AgentExecution()
    request.spec.agent_id = agent_id
    request.spec.message = "Look at the newest reports and say what is in them."
    return request


def text(execution_id: str, size: int, beginning: str = "") -> Call:
    """Make the call that streams a piece of text, answered without the lists; the whole request has `size` bytes."""
    request = AgentExecutionUpdateStatusInput(execution_id=execution_id, view=RESOURCE_VIEW_BASIC)
    message = request.status.messages.add(id="answer")
    message.content_append = beginning + "x"
    while (missing := size - request.ByteSize()) > 0:  # the length of a length may grow with the text
        message.content_append += "x" * max(1, missing - 4)
    return Call.to(UPDATE_STATUS, request)


def watch(execution_id: str, after: int = 0) -> Call:
    """Make the call that follows every change of an execution after a revision."""
    return Call.to(WATCH, WatchAgentExecutionRequest(execution_id=execution_id, after_revision=after))
