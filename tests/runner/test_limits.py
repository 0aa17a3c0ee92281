"""The SDK at the limits of a server: what is full fails with a clear reason, what must wait waits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from runstream.runner import ReportRefused
from runstream.runner.calls import open_channel
from runstream.runner.executions import Executions
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_PAUSED,
    EXECUTION_WAITING_FOR_INPUT,
    TOOL_CALL_INTERRUPTED,
    AgentExecutionStatus,
)
from runstream.v1.agent_execution_service_pb2 import (
    ListAgentExecutionsRequest,
    PauseAgentExecutionInput,
    ResumeAgentExecutionInput,
)
from tests.attached import attached
from tests.making import a_running_execution, an_agent, stored
from tests.refused import hear_of_refusals
from tests.runner.served import SECONDS, running, said, serving_agents
from tests.runner.test_outbox import changes_of, reporting, text, usage
from tests.serving import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from runstream.runner import Invocation

#: The changes that an execution may have in these tests.
MOST = 8


async def endless(invocation: Invocation) -> None:
    """Report for ever, each time until it is on disk."""
    while True:
        await invocation.report.text("again ")
        await invocation.report.flush()


async def stubborn(invocation: Invocation) -> None:
    """Report for ever, and do not mind being refused."""
    while True:
        try:
            async with invocation.report.tool("search"):
                await invocation.report.flush()
        except ReportRefused:
            await asyncio.sleep(0)


async def deaf(invocation: Invocation) -> None:
    """Report more than fits, and then nothing more, for ever."""
    for number in range(2 * MOST):
        await invocation.report.usage("m", input_tokens=number)
    await asyncio.Event().wait()


async def hasty(invocation: Invocation) -> None:
    """Report more than fits, and end before anybody can tell."""
    for number in range(2 * MOST):
        await invocation.report.usage("m", input_tokens=number)


async def generated(_: Invocation) -> AsyncIterator[str]:
    """Report for ever, as a generator."""
    while True:
        yield "x" * 5_000


@pytest.mark.parametrize("agent", [endless, stubborn, deaf, hasty, generated])
async def test_an_execution_that_becomes_too_long_has_failed_with_that_reason(tmp_path: Path, agent: Any) -> None:  # noqa: ANN401
    """However the agent takes it; what was reported before is kept, and the runner goes on to the next."""
    async with serving_agents(tmp_path / "data", agent, max_execution_changes=MOST) as served:
        for _ in range(2):
            state = await served.result()
            assert (state.status.phase, state.status.reason) == (EXECUTION_FAILED, "EXECUTION_TOO_LONG")
            assert state.status.error.startswith(f"Execution {state.metadata.id} would have {MOST + 1} changes")
            assert state.metadata.revision == MOST + 1


async def test_an_execution_that_becomes_too_large_has_failed_with_that_reason(tmp_path: Path) -> None:
    async with serving_agents(tmp_path / "data", generated, max_execution_bytes=100_000) as served:
        state = await served.result()
    assert (state.status.phase, state.status.reason) == (EXECUTION_FAILED, "EXECUTION_TOO_LARGE")
    assert 0 < len("".join(said(state))) < 100_000


async def test_the_last_change_may_be_the_end(tmp_path: Path) -> None:
    """An agent that stays within the limit has completed, though its end is beyond."""

    async def agent(invocation: Invocation) -> str:
        for _ in range(MOST - 2):
            await invocation.report.text("x")
            await invocation.report.flush()
        return "done"

    async with serving_agents(tmp_path / "data", agent, max_execution_changes=MOST) as served:
        state = await served.result()
    assert (state.status.phase, state.metadata.revision) == (EXECUTION_COMPLETED, MOST + 1)
    assert said(state)[-1] == "done"


async def test_what_cleans_up_at_the_limit_is_told_and_ends(tmp_path: Path) -> None:
    """The tool that was open is interrupted by the end, and nothing waits."""
    refused: list[str] = []

    async def agent(invocation: Invocation) -> None:
        try:
            async with invocation.report.tool("search"):
                await endless(invocation)
        finally:
            try:
                await invocation.report.message("cleaned up")
            except ReportRefused as error:
                refused.append(error.reason)

    async with serving_agents(tmp_path / "data", agent, max_execution_changes=MOST) as served:
        state = await served.result()
    assert (state.status.phase, state.status.reason) == (EXECUTION_FAILED, "EXECUTION_TOO_LONG")
    assert state.status.tool_calls[0].status == TOOL_CALL_INTERRUPTED
    assert refused == ["EXECUTION_TOO_LONG"]


async def test_one_that_is_halted_at_its_limit_and_goes_on_has_failed(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        for _ in range(MOST - 3):
            await invocation.report.text("x")
            await invocation.report.flush()
        await invocation.report.needs_input()

    async with serving_agents(tmp_path / "data", agent, max_execution_changes=MOST) as served:
        execution_id = await served.create()
        state = await served.in_phase(execution_id, EXECUTION_WAITING_FOR_INPUT)
        assert state.metadata.revision == MOST
        await served.client.executions.Pause(PauseAgentExecutionInput(id=execution_id))
        assert (await served.in_phase(execution_id, EXECUTION_PAUSED)).metadata.revision == MOST + 2
        await served.client.executions.Resume(ResumeAgentExecutionInput(id=execution_id))
        state = await served.ended(execution_id)
    assert (state.status.phase, state.status.reason) == (EXECUTION_FAILED, "EXECUTION_TOO_LONG")
    assert state.metadata.revision == MOST + 5


async def test_everything_arrives_once_however_seldom_it_may_be_sent(tmp_path: Path) -> None:
    """A server that is called too often says when to come again, and the outbox does."""
    async with serving(tmp_path / "data") as served:
        execution_id = await a_running_execution(served.client)
    async with (
        serving(tmp_path / "data", client_rate=100, client_burst=1) as served,
        reporting(served.server.address, execution_id) as outbox,
    ):
        for number in range(1, 21):
            await outbox.append(text(f"{number} "))
            await outbox.put(usage(number))
        await outbox.finish(AgentExecutionStatus(phase=EXECUTION_COMPLETED))
    async with serving(tmp_path / "data") as served:
        state = await stored(served.client, execution_id)
        changes = await changes_of(served.client, execution_id)
    assert state.status.messages[0].content == "".join(f"{number} " for number in range(1, 21))
    assert [entry.input_tokens for entry in state.status.usage] == list(range(1, 21))
    assert len(changes) == 41


async def test_a_runner_waits_for_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has all the streams it keeps does not take a runner now, but later."""
    heard = hear_of_refusals(monkeypatch)

    async def agent(_: Invocation) -> str:
        return "done"

    async with serving(tmp_path / "data", max_streams=1) as served:
        await an_agent(served.client, "tested")
        async with attached(served.client):
            starting = asyncio.create_task(_run_until_attached(served.server.address, agent))
            async with asyncio.timeout(SECONDS):
                await heard.wait()
        async with asyncio.timeout(SECONDS):
            await starting


async def test_whoever_follows_waits_for_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = hear_of_refusals(monkeypatch)
    async with serving(tmp_path / "data", max_streams=1) as served, open_channel(served.server.address) as channel:
        execution_id = await a_running_execution(served.client)
        taken = served.client.queries.WatchList(ListAgentExecutionsRequest())
        await taken.initial_metadata()
        changes = Executions(channel).changes(execution_id)
        first = asyncio.ensure_future(anext(changes))
        async with asyncio.timeout(SECONDS):
            await heard.wait()
            taken.cancel()
            assert (await first).revision == 1
        await changes.aclose()


async def _run_until_attached(address: str, agent: Any) -> None:  # noqa: ANN401  # an agent's function
    async with running(address, {"tested": agent}) as runner:
        await runner.attached()
