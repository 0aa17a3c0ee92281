"""Outlet: where reports go: to the server, by an outbox, or nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from runstream.runner.errors import AgentFailure
from runstream.runner.outbox import Receipt
from runstream.v1.agent_execution_pb2 import AgentExecution, AgentExecutionStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runstream.v1.agent_execution_pb2 import AgentMessage


class Outlet(Protocol):
    """Takes reports; see `Outbox` for what each method does and raises."""

    async def append(self, message: AgentMessage) -> None:
        """Take text that a message goes on with."""

    async def put(self, delta: AgentExecutionStatus, replace: Sequence[str] = ()) -> None:
        """Take a delta."""

    async def record(self, delta: AgentExecutionStatus, *, gather: bool = False) -> Receipt:
        """Take a delta, and return when it is on disk."""

    def post(self, delta: AgentExecutionStatus, replace: Sequence[str] = ()) -> None:
        """Take a delta without waiting."""

    async def room(self) -> None:
        """Return when there is room for more."""

    async def flush(self) -> None:
        """Return when everything is on disk."""


class Unstored(Outlet):
    """The outlet of what runs outside of any execution: a listener hears each delta, nothing is stored."""

    def __init__(self, hear: Callable[[AgentExecutionStatus], None] | None = None) -> None:
        """Tell each delta to `hear`, if anybody hears."""
        self._hear = hear

    async def append(self, message: AgentMessage) -> None:
        """Take text that a message goes on with."""
        self.post(AgentExecutionStatus(messages=[message]))

    async def put(self, delta: AgentExecutionStatus, replace: Sequence[str] = ()) -> None:
        """Take a delta."""
        self.post(delta, replace)

    async def record(self, delta: AgentExecutionStatus, *, gather: bool = False) -> Receipt:
        """Take a delta. AgentFailure, reason NOBODY_TO_ASK, for one that waits for a person."""
        _ = gather
        if delta.phase:
            raise AgentFailure("NOBODY_TO_ASK", "Outside of any execution there is nobody to ask.")
        self.post(delta)
        return Receipt(0, AgentExecution())

    def post(self, delta: AgentExecutionStatus, replace: Sequence[str] = ()) -> None:
        """Take a delta without waiting."""
        _ = replace
        if self._hear is not None:
            self._hear(delta)

    async def room(self) -> None:
        """Return at once: nothing is unsent."""

    async def flush(self) -> None:
        """Return at once: nothing is stored."""
