"""Following an execution: its changes, each once and in order, however often the connection is lost.

The cursor is the revision of the last change; a lost connection is resumed after it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import grpc
from grpc.aio import AioRpcError

from runstream.cli.failure import is_lost_connection, retry_after
from runstream.cli.patience import Patience
from runstream.v1.agent_execution_pb2 import ExecutionChange
from runstream.v1.agent_execution_service_pb2 import GetAgentExecutionRequest, WatchAgentExecutionRequest
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from grpc.aio import UnaryStreamCall

    from runstream.cli.client import Client


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection was lost after a revision; the first of an outage says so."""

    after: int
    first: bool


@dataclass(frozen=True, slots=True)
class Resumed:
    """The connection is back, and goes on after a revision."""

    after: int


Happening: TypeAlias = ExecutionChange | Lost | Resumed


@dataclass(slots=True)
class Follower:
    """Follows one execution from a cursor."""

    client: Client
    execution_id: str
    after: int
    """The cursor; moves with every change."""

    from_snapshot: bool
    """Begin with the state instead of all changes, while the cursor is 0."""

    retry_for: float
    """How many seconds to try again after the connection was lost, or the server has asked to try later."""

    connected: bool = False
    """Whether the server was reached before: else a first failure is final."""

    async def happenings(self) -> AsyncGenerator[Happening, None]:
        """Yield the changes, and what happens to the connection; ends after the last change.

        Raises `AioRpcError` for what the server refused, and when patience has run out.
        """
        outage, limit, told = Patience(self.retry_for), Patience(self.retry_for), False
        while True:
            call = None
            try:
                if outage.lost:
                    await self._answered()
                    outage.resumed()
                    limit.resumed()
                    if told:
                        told = False
                        yield Resumed(self.after)
                call = self._call()
                self.connected = await self._opened(call) or self.connected
                async for change in call:
                    limit.resumed()
                    self.after = change.revision
                    yield change
            except AioRpcError as error:
                lost, asked = self.connected and is_lost_connection(error), retry_after(error)
                # Of a server that has said when to try, nothing else is asked: that would take the place of the watch.
                delay = (outage if lost else limit).next_delay()
                if delay is None or not (lost or asked is not None):
                    raise
                delay = max(delay, asked or 0)
                if lost:
                    yield Lost(self.after, not told)
                    told = True
            else:
                return
            finally:
                if call is not None:
                    call.cancel()
            await asyncio.sleep(delay)

    async def _answered(self) -> None:
        """Wait until the server has answered a call; that it has a connection says nothing while it shuts down."""
        request = GetAgentExecutionRequest(value=self.execution_id, view=RESOURCE_VIEW_BASIC)
        await self.client.call(self.client.queries.Get, request)

    def _call(self) -> UnaryStreamCall[WatchAgentExecutionRequest, ExecutionChange]:
        return self.client.queries.Watch(
            WatchAgentExecutionRequest(
                execution_id=self.execution_id,
                after_revision=self.after,
                from_snapshot=self.from_snapshot and self.after == 0,
            )
        )

    async def _opened(self, call: UnaryStreamCall[WatchAgentExecutionRequest, ExecutionChange]) -> bool:
        """Wait until the call has a connection; False when it failed instead.

        A server answers a watch only when there is something to see, which may take a while.
        """
        answered = asyncio.ensure_future(call.initial_metadata())
        ready = asyncio.ensure_future(self.client.channel.channel_ready())
        try:
            await asyncio.wait({answered, ready}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            answered.cancel()
            ready.cancel()
        return not call.done() or await call.code() is grpc.StatusCode.OK
