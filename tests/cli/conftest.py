from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest

from runstream.v1.agent_execution_pb2 import AgentExecution, AgentExecutionSpec
from runstream.v1.agent_pb2 import Agent
from runstream.v1.resource_pb2 import ResourceMetadata, ResourceReference
from tests.cli.processes import CommandLine, ServerProcess
from tests.serving import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

_NUMBERS = count(1)


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for all tests that do not mind the others' resources."""
    server = ServerProcess(tmp_path_factory.mktemp("shared") / "data")
    yield server
    server.end()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server for one test alone."""
    server = ServerProcess(tmp_path / "data")
    yield server
    server.end()


@pytest.fixture
def cli(shared_server: ServerProcess) -> Iterator[CommandLine]:
    """The command line of the shared server."""
    command_line = CommandLine(shared_server.address)
    yield command_line
    command_line.end()


@pytest.fixture
def own_cli(own_server: ServerProcess) -> Iterator[CommandLine]:
    """The command line of the test's own server."""
    command_line = CommandLine(own_server.address)
    yield command_line
    command_line.end()


@pytest.fixture
async def client(shared_server: ServerProcess) -> AsyncIterator[Client]:
    """A gRPC client of the shared server, which does a runner's work."""
    made = Client(shared_server.address)
    yield made
    await made.channel.close()


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"thing-{next(_NUMBERS)}"


@pytest.fixture
async def agent(client: Client, name: str) -> str:
    """The slug of an agent."""
    made = await client.agents.Create(Agent(metadata=ResourceMetadata(name=name)))
    return made.metadata.slug


@pytest.fixture
async def execution(client: Client, agent: str) -> str:
    """The id of a new execution of the agent."""
    found = await client.agent_queries.GetByReference(ResourceReference(slug=agent))
    spec = AgentExecutionSpec(agent_id=found.metadata.id, message="do it")
    made = await client.executions.Create(AgentExecution(spec=spec))
    return made.metadata.id
