"""Follow: the log of one execution, read as far as a test has looked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from runstream.model.merge import fold
from runstream.testing.state import State, describe
from runstream.v1.agent_execution_pb2 import AgentExecution
from runstream.v1.agent_execution_service_pb2 import GetAgentExecutionRequest, WatchAgentExecutionRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from runstream.v1.agent_execution_service_pb2_grpc import AgentExecutionQueryControllerStub

_LOOK_SECONDS: Final = 5.0


class NotReached(AssertionError):
    """What a test waited for did not come. Says what, and where the execution stands instead."""


class Follow:
    """Reads the log change by change, so that nothing is missed, however short.

    `cursor` is the revision that was looked at last: what a test waits for is looked for there and after it.
    """

    def __init__(self, queries: AgentExecutionQueryControllerStub, execution_id: str) -> None:
        """Follow from the first change."""
        self._queries = queries
        self._id = execution_id
        self._state = AgentExecution()
        self._least = 1

    def passed(self, revision: int) -> None:
        """Look at nothing before this revision any more: the test has done something there."""
        self._least = max(self._least, revision)

    async def until(self, holds: Callable[[State], bool], what: str, seconds: float) -> State:
        """Return the first state, from the cursor on, of which `holds` is true. `NotReached` when none comes in time.

        Also when the execution ends before. Several may wait at a time.
        """
        reader = _Reader(self._queries, self._id, _copy(self._state))
        try:
            async with asyncio.timeout(seconds):
                found = await reader.until(lambda state: state.revision >= self._least and holds(state))
        except TimeoutError:
            raise NotReached(f"waited {seconds:g} s for {what}: {describe(await self._newest(reader.state))}") from None
        if not found:
            raise NotReached(f"waited for {what}, which will not come any more: {describe(reader.state)}")
        if reader.state.metadata.revision > self._state.metadata.revision:
            self._state = reader.state
        return State(reader.state)

    async def _newest(self, otherwise: AgentExecution) -> AgentExecution:
        """Return the state now, so that a failure tells the newest; what was read when it cannot be had."""
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                return await self._queries.Get(GetAgentExecutionRequest(value=self._id))
        except TimeoutError:
            return otherwise


class _Reader:
    """Folds changes into a state of its own."""

    def __init__(self, queries: AgentExecutionQueryControllerStub, execution_id: str, state: AgentExecution) -> None:
        self._queries = queries
        self._id = execution_id
        self.state = state

    async def until(self, holds: Callable[[State], bool]) -> bool:
        """Read on until this holds; tell whether it did before the log ended."""
        if holds(State(self.state)):
            return True
        request = WatchAgentExecutionRequest(execution_id=self._id, after_revision=self.state.metadata.revision)
        changes = self._queries.Watch(request)
        try:
            async for change in changes:
                fold(self.state, change)
                if holds(State(self.state)):
                    return True
        finally:
            changes.cancel()
        return False


def _copy(state: AgentExecution) -> AgentExecution:
    copy = AgentExecution()
    copy.CopyFrom(state)
    return copy
