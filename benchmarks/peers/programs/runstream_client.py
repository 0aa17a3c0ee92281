"""Runstream's client: Create, Watch with a cursor."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from grpc import aio

from benchmarks.peers.programs.counting import Piece
from benchmarks.peers.programs.measuring import FAILED, FINISHED, UNFINISHED, main
from runstream.v1.agent_execution_pb2 import EXECUTION_COMPLETED, EXECUTION_FAILED, AgentExecution
from runstream.v1.agent_execution_service_pb2 import GetAgentExecutionRequest, WatchAgentExecutionRequest
from runstream.v1.agent_execution_service_pb2_grpc import (
    AgentExecutionCommandControllerStub,
    AgentExecutionQueryControllerStub,
)
from runstream.v1.agent_service_pb2_grpc import AgentQueryControllerStub
from runstream.v1.resource_pb2 import API_RESOURCE_KIND_AGENT, RESOURCE_VIEW_BASIC, ResourceReference

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_PATIENCE_SECONDS = 30.0
_OPTIONS = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]


class RunstreamClient:
    """Calls one server on one channel."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._agents: dict[str, str] = {}

    async def connect(self) -> None:
        """Wait until the runner has registered its agents."""
        self._channel = aio.insecure_channel(self._address, options=_OPTIONS)
        self._commands = AgentExecutionCommandControllerStub(self._channel)
        self._queries = AgentExecutionQueryControllerStub(self._channel)
        agents = AgentQueryControllerStub(self._channel)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            for slug in ("trivial", "counting", "joining"):
                reference = ResourceReference(kind=API_RESOURCE_KIND_AGENT, slug=slug)
                while slug not in self._agents:
                    try:
                        self._agents[slug] = (await agents.GetByReference(reference)).metadata.id
                    except aio.AioRpcError:
                        await asyncio.sleep(0.05)

    async def create(self) -> str:
        """Start a trivial execution."""
        return await self._create("trivial", "measure")

    async def run(self) -> None:
        """Start one, and watch it to its end."""
        watch = self._queries.Watch(WatchAgentExecutionRequest(execution_id=await self.create()))
        async for change in watch:
            if change.terminal:
                return

    async def begin(self, events: int, pause: float, *, joined: bool) -> str:
        """Start an execution that counts."""
        return await self._create("joining" if joined else "counting", f"{events} {pause}")

    async def read(self, run: str, cursor: str | None) -> AsyncGenerator[Piece, None]:
        """Watch from the start, or after a revision."""
        watch = self._queries.Watch(WatchAgentExecutionRequest(execution_id=run, after_revision=int(cursor or 0)))
        try:
            async for change in watch:
                said = "".join(message.content_append for message in change.status.messages)
                yield Piece(str(change.revision), [int(word) for word in said.split()])
        finally:
            watch.cancel()

    async def state(self, run: str) -> str:
        """Get its phase."""
        request = GetAgentExecutionRequest(value=run, view=RESOURCE_VIEW_BASIC)
        phase = (await self._queries.Get(request)).status.phase
        return {EXECUTION_COMPLETED: FINISHED, EXECUTION_FAILED: FAILED}.get(phase, UNFINISHED)

    async def _create(self, slug: str, message: str) -> str:
        request = AgentExecution()
        request.spec.agent_id = self._agents[slug]
        request.spec.message = message
        return (await self._commands.Create(request)).metadata.id


if __name__ == "__main__":
    main(RunstreamClient(os.environ["PEER_SERVER"]))
