"""A runner inside the test's loop, executions of its agents, and what the server has stored of them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from runstream.model.phases import is_terminal, phase_name
from runstream.runner import Runner
from runstream.v1.agent_execution_pb2 import AgentExecution
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    SubscribeAgentExecutionRequest,
    WatchAgentExecutionRequest,
)
from runstream.v1.resource_pb2 import ResourceReference
from tests.making import execution
from tests.serving import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from runstream.runner import Agent, AgentFunction
    from runstream.v1.agent_execution_pb2 import ExecutionChange
    from tests.serving import Client

#: How long a test waits for what must come; nothing ever takes so long.
SECONDS = 60


class Served:
    """A server, a client of it, and a runner of the agent ``tested``."""

    def __init__(self, client: Client, runner: Runner) -> None:
        self.client = client
        self.runner = runner

    async def create(self, message: str = "look around", agent: str = "tested", **env: str) -> str:
        """Create an execution; return its id. Variables are secret."""
        found = await self.client.agent_queries.GetByReference(ResourceReference(slug=agent))
        request = execution(agent_id=found.metadata.id, message=message)
        for name, value in env.items():
            request.spec.runtime_env[name].value = value
            request.spec.runtime_env[name].is_secret = True
        made = await self.client.executions.Create(request)
        return made.metadata.id

    async def result(self, message: str = "look around", agent: str = "tested", **env: str) -> AgentExecution:
        """Create an execution; return what it has come to in the end."""
        return await self.ended(await self.create(message, agent, **env))

    async def ended(self, execution_id: str) -> AgentExecution:
        """Return an execution once it has ended."""
        return await until(self.client, execution_id, lambda state: is_terminal(state.status.phase))

    async def in_phase(self, execution_id: str, phase: int) -> AgentExecution:
        """Return an execution once it is in a phase."""
        return await until(self.client, execution_id, lambda state: state.status.phase == phase)

    async def cancel(self, execution_id: str, reason: str = "") -> AgentExecution:
        """Cancel an execution; return what it has come to."""
        await self.client.executions.Cancel(CancelAgentExecutionInput(id=execution_id, reason=reason))
        return await self.ended(execution_id)

    async def changes(self, execution_id: str) -> list[ExecutionChange]:
        """Return the log of an execution that has ended."""
        request = WatchAgentExecutionRequest(execution_id=execution_id)
        async with asyncio.timeout(SECONDS):
            return [change async for change in self.client.queries.Watch(request)]


@asynccontextmanager
async def serving_agents(
    data: Path,
    agents: Mapping[str, AgentFunction | Agent] | AgentFunction | Agent,
    **settings: Any,  # noqa: ANN401  # a setting of any type
) -> AsyncIterator[Served]:
    """Run a server, and a runner of some agents, or of one that is called ``tested``."""
    named: Any = agents if isinstance(agents, dict) else {"tested": agents}
    async with serving(data, **settings) as server, running(server.server.address, named) as runner:
        yield Served(server.client, runner)


@asynccontextmanager
async def running(
    address: str,
    agents: Mapping[str, AgentFunction | Agent],
    **options: Any,  # noqa: ANN401  # an option of any type
) -> AsyncIterator[Runner]:
    """Run a runner for the length of the block; it is attached when the block begins."""
    runner = Runner(address, agents, **options)
    serving_task = asyncio.create_task(runner.serve())
    attached = asyncio.create_task(runner.attached())
    try:
        async with asyncio.timeout(SECONDS):
            await asyncio.wait({serving_task, attached}, return_when=asyncio.FIRST_COMPLETED)
        attached.cancel()
        yield runner
    finally:
        async with asyncio.timeout(SECONDS):
            await runner.stop()
            await serving_task


async def until(client: Client, execution_id: str, holds: Callable[[AgentExecution], bool]) -> AgentExecution:
    """Return the first state of an execution for which this holds; its last one if it never does."""
    last = AgentExecution()
    states = client.queries.Subscribe(SubscribeAgentExecutionRequest(value=execution_id))
    async with asyncio.timeout(SECONDS):
        async for state in states:
            if holds(state):
                states.cancel()
                return state
            last = state
    raise AssertionError(f"it ended as {phase_name(last.status.phase)}: {last.status.error}")


def said(state: AgentExecution) -> list[str]:
    """What was said, in order."""
    return [message.content for message in state.status.messages]
