"""Executions: the service, as a runner calls it for the sub-executions of what it works on."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import grpc

from runstream.runner.backoff import Backoff
from runstream.runner.calls import until_answered
from runstream.runner.refusals import Refusal, refusal, retry_after
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    GetAgentExecutionRequest,
    WatchAgentExecutionRequest,
)
from runstream.v1.agent_execution_service_pb2_grpc import (
    AgentExecutionCommandControllerStub,
    AgentExecutionQueryControllerStub,
)
from runstream.v1.agent_service_pb2_grpc import AgentQueryControllerStub
from runstream.v1.resource_pb2 import API_RESOURCE_KIND_AGENT, ResourceReference

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable

    from grpc.aio import Channel

    from runstream.v1.agent_execution_pb2 import AgentExecution, ExecutionChange

_LOG = logging.getLogger(__name__)

#: How long a cancel may take to be told; the child is cancelled with its parent in any case.
_CANCEL_SECONDS: Final = 5.0
_AGENT_ID: Final = "agt_"


class Executions:
    """Creates, follows and cancels executions. Every call is sent until it is answered, and may come twice."""

    def __init__(self, channel: Channel) -> None:
        """Call over `channel`."""
        self._commands = AgentExecutionCommandControllerStub(channel)
        self._queries = AgentExecutionQueryControllerStub(channel)
        self._agents = AgentQueryControllerStub(channel)
        self._cancels: set[asyncio.Task[None]] = set()

    async def agent_id(self, agent: str, org: str) -> str:
        """Return the id of an agent by its slug in an organization, or by its id. Raises `Refusal`."""
        if agent.startswith(_AGENT_ID):
            return agent
        reference = ResourceReference(kind=API_RESOURCE_KIND_AGENT, org=org, slug=agent)
        return (await until_answered(self._agents.GetByReference, reference)).metadata.id

    async def create(self, request: AgentExecution, key: str) -> str:
        """Create an execution, once for each idempotency `key`; return its id. Raises `Refusal`."""
        made = await until_answered(self._commands.Create, request, metadata=(("idempotency-key", key),))
        return made.metadata.id

    async def get(self, execution_id: str) -> AgentExecution:
        """Return an execution, whole. Raises `Refusal`."""
        return await until_answered(self._queries.Get, GetAgentExecutionRequest(value=execution_id))

    async def changes(self, execution_id: str, after: int = 0) -> AsyncGenerator[ExecutionChange, None]:
        """Yield every change of an execution after a revision, once and in order, until its end. Raises `Refusal`."""
        backoff, cursor = Backoff(), after
        while True:
            request = WatchAgentExecutionRequest(execution_id=execution_id, after_revision=cursor)
            asked = 0.0
            try:
                async for change in self._queries.Watch(request):
                    backoff.reset()
                    cursor = change.revision
                    yield change
                    if change.terminal:
                        return
            except grpc.aio.AioRpcError as error:
                refused = refusal(error)
                if refused is not None:
                    raise refused from error
                asked = retry_after(error)
            await asyncio.sleep(asked + backoff.next())

    def cancel(self, execution: Awaitable[str], reason: str) -> None:
        """Cancel an execution in the background, once its id is known; one that has ended stays as it is."""
        task = asyncio.create_task(self._cancel(execution, reason))
        self._cancels.add(task)
        task.add_done_callback(self._cancels.discard)

    async def settled(self) -> None:
        """Return when all that is to be cancelled is, or could not be."""
        if self._cancels:
            await asyncio.wait(self._cancels)

    async def _cancel(self, execution: Awaitable[str], reason: str) -> None:
        try:
            async with asyncio.timeout(_CANCEL_SECONDS):
                request = CancelAgentExecutionInput(id=await execution, reason=reason)
                await until_answered(self._commands.Cancel, request)
        except (TimeoutError, Refusal) as error:
            _LOG.info("a sub-execution was not cancelled: %s", error)
