from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.pacing import pieces
from examples.survey_agent import agents
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_APPROVE,
    APPROVAL_REJECT,
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_PAUSED,
    EXECUTION_WAITING_FOR_APPROVAL,
    SUB_AGENT_COMPLETED,
    TODO_COMPLETED,
    TOOL_CALL_COMPLETED,
)
from runstream.v1.agent_execution_service_pb2 import (
    PauseAgentExecutionInput,
    ResumeAgentExecutionInput,
    SubmitApprovalInput,
)
from runstream.v1.resource_pb2 import ResourceReference
from tests.making import execution
from tests.process import server_process
from tests.runner.served import Served, running, said, serving_agents, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from os import PathLike
    from pathlib import Path

    from runstream.v1.agent_execution_pb2 import AgentExecution, AgentExecutionStatus, ApprovalAction
    from tests.serving import Client

#: Not written as it is searched for, since the demonstration surveys this file too.
MARKER = "TODO" + ": sell\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "README.md").write_text("# Shop\n\nSells things.\n")
    (folder / "app.py").write_text('"""Opens the shop."""\n\n\ndef sell():\n    ...  # ' + MARKER)
    return folder


@asynccontextmanager
async def at_work(data: Path) -> AsyncIterator[Served]:
    """Run a server, and a runner of the agents."""
    async with serving_agents(data, agents) as served:
        yield served


async def created(client: Client, agent: str, folder: PathLike[str] | str, **env: str) -> str:
    """Create an execution for a folder; return its id."""
    found = await client.agent_queries.GetByReference(ResourceReference(slug=agent))
    request = execution(agent_id=found.metadata.id, message="look at it")
    for name, value in {"FOLDER": str(folder), "PACE": "0", **env}.items():
        if value:
            request.spec.runtime_env[name].value = value
    made = await client.executions.Create(request)
    return made.metadata.id


async def spoken(client: Client, execution_id: str, entry: str) -> AgentExecution:
    """Return an execution once a message of it has begun."""
    return await until(
        client, execution_id, lambda state: any(message.id == entry for message in state.status.messages)
    )


async def test_everything_it_began_is_reported_as_ended(tmp_path: Path, folder: Path) -> None:
    async with at_work(tmp_path / "data") as served:
        ended = await served.ended(await created(served.client, "survey", folder))
    status = ended.status
    assert status.phase == EXECUTION_COMPLETED
    assert {call.name for call in status.tool_calls} == set(agents["survey"].tools)
    assert {call.status for call in status.tool_calls} == {TOOL_CALL_COMPLETED}
    assert all(call.started_at <= call.completed_at and call.result for call in status.tool_calls)
    assert {todo.status for todo in status.todos.values()} == {TODO_COMPLETED}
    assert_reader_answered(status)
    assert "Left to do are 1 TODO, the first in app.py:5." in status.messages[-1].content
    (usage,) = status.usage
    assert usage.input_tokens
    assert usage.output_tokens


def assert_reader_answered(status: AgentExecutionStatus) -> None:
    """See that the one sub-agent said what it answered, and owns what it did."""
    (reader,) = status.sub_agent_executions
    assert reader.status == SUB_AGENT_COMPLETED
    told = [message.content for message in status.messages if message.owner_id == reader.id]
    assert told == [
        "README.md: Sells things. [3 lines, 1 heading (Shop)]",
        "app.py: Opens the shop. [5 lines, 1 definition (sell)]",
    ]
    assert reader.output == "\n".join(told)
    assert {call.name for call in status.tool_calls if call.owner_id == reader.id} == {"read_file"}


@pytest.mark.parametrize("agent", ["survey", "scribe"])
@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("", "The variable FOLDER is missing: the folder to look at."),
        ("/nowhere/at/all", "/nowhere/at/all cannot be listed: No such file or directory"),
        ("file:///nowhere/%ff", "/nowhere/\\xff cannot be listed: No such file or directory"),
        (__file__, f"{__file__} cannot be listed: Not a directory"),
    ],
)
async def test_without_a_folder_the_execution_fails(tmp_path: Path, agent: str, place: str, error: str) -> None:
    async with at_work(tmp_path / "data") as served:
        status = (await served.ended(await created(served.client, agent, place))).status
    assert (status.phase, status.reason, status.error) == (EXECUTION_FAILED, "NO_FOLDER", error)


async def test_a_pace_that_is_none_fails_too(tmp_path: Path, folder: Path) -> None:
    async with at_work(tmp_path / "data") as served:
        status = (await served.ended(await created(served.client, "survey", folder, PACE="fast"))).status
    assert (status.phase, status.reason) == (EXECUTION_FAILED, "WRONG_PACE")
    assert status.error == "The variable PACE must be a number, not 'fast'."


async def test_an_empty_folder_is_surveyed_too(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    async with at_work(tmp_path / "data") as served:
        ended = await served.ended(await created(served.client, "survey", tmp_path / "empty"))
    assert ended.status.phase == EXECUTION_COMPLETED
    assert said(ended)[-1] == "There is no text file in it, so there is nothing to survey."


async def test_asked_to_cancel_it_gives_up(tmp_path: Path, folder: Path) -> None:
    async with at_work(tmp_path / "data") as served:
        execution_id = await created(served.client, "survey", folder, PACE="100")
        await spoken(served.client, execution_id, "begin")
        status = (await served.cancel(execution_id, "enough")).status
    assert (status.phase, status.reason) == (EXECUTION_CANCELLED, "enough")


async def test_paused_and_resumed_it_says_nothing_twice(tmp_path: Path, folder: Path) -> None:
    async with at_work(tmp_path / "data") as served:
        client = served.client
        execution_id = await created(client, "survey", folder, PACE="1")
        await spoken(client, execution_id, "begin")
        await client.executions.Pause(PauseAgentExecutionInput(id=execution_id))
        await served.in_phase(execution_id, EXECUTION_PAUSED)
        await client.executions.Resume(ResumeAgentExecutionInput(id=execution_id))
        ended = await served.ended(execution_id)
    assert (ended.status.phase, ended.status.attempt) == (EXECUTION_COMPLETED, 2)
    assert said(ended)[0].startswith("Attempt 2, in process ")
    assert len({message.id for message in ended.status.messages}) == len(ended.status.messages) == len(set(said(ended)))
    assert {call.status for call in ended.status.tool_calls} == {TOOL_CALL_COMPLETED}
    assert_reader_answered(ended.status)


@pytest.mark.parametrize(
    ("action", "ending"),
    [
        (APPROVAL_APPROVE, (EXECUTION_COMPLETED, "", True)),
        (APPROVAL_REJECT, (EXECUTION_FAILED, "TOOL_REJECTED", False)),
    ],
)
async def test_a_file_is_written_only_as_approved(
    tmp_path: Path, folder: Path, action: ApprovalAction.ValueType, ending: tuple[int, str, bool]
) -> None:
    report = tmp_path / "report.txt"
    async with at_work(tmp_path / "data") as served:
        execution_id = await created(served.client, "scribe", folder, REPORT=str(report))
        asking = await served.in_phase(execution_id, EXECUTION_WAITING_FOR_APPROVAL)
        (call,) = [call for call in asking.status.tool_calls if call.name == "write_file"]
        assert call.args["path"] == str(report)
        assert not report.exists()
        await served.client.executions.SubmitApproval(
            SubmitApprovalInput(agent_execution_id=execution_id, tool_call_id=call.id, action=action)
        )
        status = (await served.ended(execution_id)).status
    assert (status.phase, status.reason, report.exists()) == ending
    if report.exists():
        assert report.read_text().splitlines()[-1] == "8 lines in 2 files"


async def test_a_killed_server_costs_neither_a_word_nor_says_one_twice(tmp_path: Path, folder: Path) -> None:
    async with (
        server_process(tmp_path / "data") as server,
        server.client() as client,
        running(server.address, agents) as runner,
    ):
        served = Served(client, runner)
        execution_id = await created(client, "survey", folder, PACE="1")
        await spoken(client, execution_id, "begin")
        await server.kill9()
        await server.start()
        status = (await served.ended(execution_id)).status
    assert (status.phase, status.attempt) == (EXECUTION_COMPLETED, 1)
    assert status.messages[0].content.endswith(": I survey shop.")
    assert_reader_answered(status)


async def test_many_executions_share_a_runner(tmp_path: Path, folder: Path) -> None:
    async with at_work(tmp_path / "data") as served:
        ids = [await created(served.client, "survey", folder) for _ in range(20)]
        phases = [(await each).status.phase for each in asyncio.as_completed(map(served.ended, ids))]
    assert set(phases) == {EXECUTION_COMPLETED}


@given(st.text())
def test_the_pieces_of_a_text_are_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text
