"""Clients of a server that has a runner: what they call, and what they wait for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from grpc import aio

from benchmarks.resources import an_execution
from runstream.v1.agent_execution_pb2 import CHANGE_AUTHOR_RUNNER, ExecutionChange
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    TerminateAgentExecutionInput,
    WatchAgentExecutionRequest,
)
from runstream.v1.agent_execution_service_pb2_grpc import (
    AgentExecutionCommandControllerStub,
    AgentExecutionQueryControllerStub,
)
from runstream.v1.agent_service_pb2_grpc import AgentQueryControllerStub
from runstream.v1.resource_pb2 import API_RESOURCE_KIND_AGENT, ResourceReference

if TYPE_CHECKING:
    from collections.abc import Callable

_PATIENCE_SECONDS: Final = 60.0


class Clients:
    """What the measurements call."""

    def __init__(self, channel: aio.Channel) -> None:
        self._channel = channel
        self._commands = AgentExecutionCommandControllerStub(channel)
        self._queries = AgentExecutionQueryControllerStub(channel)
        self._agents: dict[str, str] = {}

    async def find_agents(self, *slugs: str) -> None:
        """Wait until the runner has registered its agents."""
        stub = AgentQueryControllerStub(self._channel)
        for slug in slugs:
            reference = ResourceReference(kind=API_RESOURCE_KIND_AGENT, slug=slug)
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while slug not in self._agents:
                    try:
                        self._agents[slug] = (await stub.GetByReference(reference)).metadata.id
                    except aio.AioRpcError:
                        await asyncio.sleep(0.05)

    def agent(self, slug: str) -> str:
        """Return the id of an agent that was found."""
        return self._agents[slug]

    async def create(self, slug: str) -> str:
        """Create an execution; return its id."""
        return (await self._commands.Create(an_execution(self._agents[slug]))).metadata.id

    async def seen(self, execution_id: str, wanted: Callable[[ExecutionChange], bool], after: int = 0) -> int:
        """Watch until a change that is wanted is here; return its revision."""
        request = WatchAgentExecutionRequest(execution_id=execution_id, after_revision=after)
        watch = self._queries.Watch(request)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                async for change in watch:
                    if wanted(change):
                        return change.revision
        finally:
            watch.cancel()
        raise RuntimeError(f"{execution_id} ended before what was awaited")

    async def cancel(self, execution_id: str) -> None:
        """Ask for an end."""
        await self._commands.Cancel(CancelAgentExecutionInput(id=execution_id))

    async def terminate(self, execution_id: str) -> None:
        """End at once."""
        await self._commands.Terminate(TerminateAgentExecutionInput(id=execution_id))


def by_runner(change: ExecutionChange) -> bool:
    """Whether a runner has made the change."""
    return change.author == CHANGE_AUTHOR_RUNNER


def terminal(change: ExecutionChange) -> bool:
    """Whether the change is the last."""
    return change.terminal
