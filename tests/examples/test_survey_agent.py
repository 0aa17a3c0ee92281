from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.reporter import pieces
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    SUB_AGENT_COMPLETED,
    TODO_COMPLETED,
    TOOL_CALL_COMPLETED,
    AgentExecution,
)
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    GetAgentExecutionRequest,
    WatchAgentExecutionRequest,
)
from runstream.v1.agent_pb2 import Agent
from tests.process import server_process
from tests.serving import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from os import PathLike

    from runstream.v1.agent_execution_pb2 import AgentExecutionStatus
    from tests.serving import Client

REPOSITORY = Path(__file__).resolve().parents[2]

#: Not written as it is searched for, since the demonstration surveys this file too.
MARKER = "TODO" + ": sell\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "README.md").write_text("# Shop\n\nSells things.\n")
    (folder / "app.py").write_text('"""Opens the shop."""\n\n\ndef sell():\n    ...  # ' + MARKER)
    return folder


async def pending(client: Client, folder: PathLike[str] | str) -> str:
    """Create an execution for the folder; return its id."""
    agent = Agent()
    agent.metadata.name = "Survey"
    applied = await client.agents.Apply(agent)
    execution = AgentExecution()
    execution.spec.agent_id = applied.metadata.id
    execution.spec.message = "Survey it"
    if folder:
        execution.spec.context.attributes.update({"folder": str(folder)})
    return (await client.executions.Create(execution)).metadata.id


async def state(client: Client, execution_id: str) -> AgentExecution:
    return await client.queries.Get(GetAgentExecutionRequest(value=execution_id))


@asynccontextmanager
async def at_work(address: str, execution_id: str, *, pace: int = 0) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start the agent's process; it is gone after the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "examples.survey_agent", address, execution_id, "--pace", str(pace)),
        cwd=REPOSITORY,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_everything_it_began_is_reported_as_ended(tmp_path: Path, folder: Path) -> None:
    async with serving(tmp_path / "data") as server:
        execution_id = await pending(server.client, folder)
        async with at_work(server.server.address, execution_id) as agent:
            assert await agent.wait() == 0
        status = (await state(server.client, execution_id)).status
        assert status.phase == EXECUTION_COMPLETED
        names = {"list_files", "count_lines", "read_file", "find_markers", "count_imports"}
        assert {call.name for call in status.tool_calls} == names
        assert {call.status for call in status.tool_calls} == {TOOL_CALL_COMPLETED}
        assert all(call.started_at <= call.completed_at and call.result for call in status.tool_calls)
        assert {todo.status for todo in status.todos.values()} == {TODO_COMPLETED}
        assert_reader_answered(status)
        assert "Left to do are 1 TODO, the first in app.py:5." in status.messages[-1].content


def assert_reader_answered(status: AgentExecutionStatus) -> None:
    """See that the one sub-agent said what it answered, and owns what it did."""
    (reader,) = status.sub_agent_executions
    assert reader.status == SUB_AGENT_COMPLETED
    said = [message.content for message in status.messages if message.owner_id == reader.id]
    assert said == [
        "README.md: Sells things. [3 lines, 1 heading (Shop)]",
        "app.py: Opens the shop. [5 lines, 1 definition (sell)]",
    ]
    assert reader.output == "\n".join(said)
    assert {call.name for call in status.tool_calls if call.owner_id == reader.id} == {"read_file"}


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("", "spec.context.attributes.folder is missing: the folder to survey"),
        ("/nowhere/at/all", "/nowhere/at/all cannot be listed: No such file or directory"),
        ("file:///nowhere/%ff", "/nowhere/\\xff cannot be listed: No such file or directory"),
        (__file__, f"{__file__} cannot be listed: Not a directory"),
    ],
)
async def test_without_a_folder_the_execution_fails(tmp_path: Path, place: str, error: str) -> None:
    async with serving(tmp_path / "data") as server:
        execution_id = await pending(server.client, place)
        async with at_work(server.server.address, execution_id) as agent:
            assert await agent.wait() == 1
        status = (await state(server.client, execution_id)).status
        assert (status.phase, status.reason, status.error) == (EXECUTION_FAILED, "NO_FOLDER", error)


async def test_an_empty_folder_is_surveyed_too(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    async with serving(tmp_path / "data") as server:
        execution_id = await pending(server.client, tmp_path / "empty")
        async with at_work(server.server.address, execution_id) as agent:
            assert await agent.wait() == 0
        assert (await state(server.client, execution_id)).status.phase == EXECUTION_COMPLETED


async def test_asked_to_cancel_it_gives_up(tmp_path: Path, folder: Path) -> None:
    async with serving(tmp_path / "data") as server:
        execution_id = await pending(server.client, folder)
        async with at_work(server.server.address, execution_id, pace=20) as agent:
            async for change in server.client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id)):
                if change.status.phase == EXECUTION_IN_PROGRESS:
                    asked = CancelAgentExecutionInput(id=execution_id, reason="enough")
                    await server.client.executions.Cancel(asked)
            assert await agent.wait() == 1
        status = (await state(server.client, execution_id)).status
        assert (status.phase, status.reason) == (EXECUTION_CANCELLED, "enough")


async def test_an_execution_that_has_begun_is_left_alone(tmp_path: Path, folder: Path) -> None:
    async with serving(tmp_path / "data") as server:
        execution_id = await pending(server.client, folder)
        async with at_work(server.server.address, execution_id) as first:
            await first.wait()
        before = await state(server.client, execution_id)
        async with at_work(server.server.address, execution_id) as second:
            _, said = await second.communicate()
        assert second.returncode == 1
        assert b"only a pending one can be begun" in said
        assert await state(server.client, execution_id) == before


async def test_a_killed_server_costs_neither_a_word_nor_says_one_twice(tmp_path: Path, folder: Path) -> None:
    async with server_process(tmp_path / "data") as server, server.client() as client:
        execution_id = await pending(client, folder)
        async with at_work(server.address, execution_id, pace=1) as agent:
            async for change in client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id)):
                if change.status.messages:
                    break
            await server.kill9()
            await server.start()
            assert await agent.wait() == 0
        status = (await state(client, execution_id)).status
        assert status.phase == EXECUTION_COMPLETED
        expected = "I am going to survey the folder shop. First I list what is in it."
        assert status.messages[0].content == expected
        assert_reader_answered(status)


@given(st.text())
def test_the_pieces_of_a_text_are_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text
