"""The examples of agents, one per framework: each program serves its agent, and ends when it is told to."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runstream.testing import Handle
from runstream.testing.client import Client
from runstream.v1.agent_execution_pb2 import SUB_AGENT_COMPLETED, TODO_COMPLETED
from tests.adapters.frameworks import require
from tests.making import an_agent, execution
from tests.runner.served import SECONDS
from tests.serving import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runstream.testing import State

FOLDER = Path(__file__).parents[2] / "examples" / "agents"

#: The program, what it needs, its agent, a message, the tool that a person is asked about if there is one, the answer.
EXAMPLES = [
    ("plain_agent.py", "runstream", "plain-adder", "2 and 3 and 4", "", "The sum is 9. That was checked."),
    ("langgraph_agent.py", "langchain", "graph-adder", "2 and 3", "publish", "Thank you."),
    (
        "deepagents_agent.py",
        "deepagents",
        "deep-reader",
        "tea and coffee",
        "",
        "Tea is made of leaves. Coffee is made of beans.",
    ),
    (
        "pydantic_ai_agent.py",
        "pydantic_ai",
        "pydantic-ai-reader",
        "a quick fox",
        "",
        "It has 3 words. The longest word is 'quick'.",
    ),
    (
        "openai_agents_agent.py",
        "agents",
        "openai-agents-reader",
        "a quick fox",
        "",
        "It has 3 words. The longest word is 'quick'.",
    ),
]


@pytest.mark.parametrize(("program", "framework", "agent", "message", "asked", "answer"), EXAMPLES)
async def test_an_example_serves_its_agent(  # noqa: PLR0913, PLR0917  # each is a column of the table
    tmp_path: Path, program: str, framework: str, agent: str, message: str, asked: str, answer: str
) -> None:
    require(framework)
    async with serving(tmp_path / "data") as server, asyncio.timeout(SECONDS):
        agent_id = await an_agent(server.client, agent)
        made = await server.client.executions.Create(execution(agent_id=agent_id, message=message))
        async with (
            closing_client(server.server.address) as client,
            serving_example(program, server.server.address),
        ):
            handle = Handle(client, made.metadata.id, SECONDS)
            if asked:
                await handle.approve(asked)
            state = (await handle.result()).expect()
    assert state.answer == answer
    assert_ended(state)


@asynccontextmanager
async def closing_client(address: str) -> AsyncIterator[Client]:
    """Give a client as handles take it, and close it."""
    client = Client(address)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def serving_example(program: str, address: str) -> AsyncIterator[None]:
    """Run an example as a process; it must have nothing to say, and end in peace."""
    process = await create_subprocess_exec(
        sys.executable, str(FOLDER / program), "--server", address, stdout=PIPE, stderr=PIPE
    )
    try:
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        said = await process.communicate()
    assert (process.returncode, *said) == (0, b"", b"")


def assert_ended(state: State) -> None:
    """Check that all that was begun has ended well."""
    assert all(call.completed_at and not call.error for call in state.tools)
    assert all(sub.status == SUB_AGENT_COMPLETED for sub in state.status.sub_agent_executions)
    assert all(todo.status == TODO_COMPLETED for todo in state.status.todos.values())
