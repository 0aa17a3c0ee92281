"""Agents that do what agents should not: each is dealt with alone, and what people see of it is true."""

from __future__ import annotations

import asyncio
import logging
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from typing import TYPE_CHECKING

import pytest

from runstream.runner import AgentFailure, Runner
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_PAUSED,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_INTERRUPTED,
)
from runstream.v1.agent_execution_service_pb2 import PauseAgentExecutionInput, ResumeAgentExecutionInput
from tests.attached import attached, held
from tests.clock import FakeClock
from tests.making import an_agent, an_execution, execution, token
from tests.runner.served import SECONDS, serving_agents, until
from tests.serving import serving

if TYPE_CHECKING:
    from pathlib import Path

    from runstream.runner import Invocation

UNRULY = """
import asyncio, logging, sys
from runstream.runner import Runner

async def exits(invocation):
    async def tool():
        sys.exit(4)
    await asyncio.gather(tool(), asyncio.sleep(3600))

async def stays(invocation):
    yield "begun"
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

async def answers(invocation):
    return "fine"

logging.basicConfig(level=logging.INFO, format="%(message)s")
agents = {"exits": exits, "stays": stays, "answers": answers}
Runner(sys.argv[1], agents=agents, drain_timeout=0).run()
print("ended")
"""


async def test_an_agent_that_exits_or_stays_neither_ends_its_runner_nor_keeps_it(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as server, asyncio.timeout(SECONDS):
        client = server.client
        ids = {name: await an_agent(client, name) for name in ("exits", "stays", "answers")}
        process = await create_subprocess_exec(
            sys.executable, "-c", UNRULY, server.server.address, stdout=PIPE, stderr=PIPE
        )
        made = {name: (await client.executions.Create(execution(agent_id=ids[name]))).metadata.id for name in ids}
        ended = await until(client, made["exits"], lambda state: state.status.phase == EXECUTION_FAILED)
        assert (ended.status.reason, ended.status.attempt) == ("AGENT_ERROR", 1)
        await until(client, made["answers"], lambda state: state.status.phase == EXECUTION_COMPLETED)
        await until(client, made["stays"], lambda state: bool(state.status.messages))
        process.terminate()
        out, err = await process.communicate()
    assert (process.returncode, out.decode()) == (0, "ended\n"), err.decode()
    assert "left behind" in err.decode()


async def test_what_a_gather_leaves_behind_is_stopped_before_the_end_is_reported(tmp_path: Path) -> None:
    effects: list[str] = []
    left: list[asyncio.Task[object]] = []

    async def agent(invocation: Invocation) -> None:
        begun = asyncio.Event()

        async def works() -> None:
            async with invocation.report.tool("slow"):
                begun.set()
                await asyncio.sleep(3600)
                effects.append("done")

        async def breaks() -> None:
            await begun.wait()
            raise ValueError("no more")

        try:
            await asyncio.gather(works(), breaks())
        finally:
            left.extend(task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__name__", "") == "works")

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    assert [task.cancelled() for task in left] == [True]
    assert effects == []
    assert state.status.phase == EXECUTION_FAILED
    assert state.status.tool_calls[0].status != TOOL_CALL_COMPLETED


async def test_a_report_on_another_loop_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    def agent(invocation: Invocation) -> None:
        asyncio.run(invocation.report.text("never"))

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    assert state.status.phase == EXECUTION_FAILED
    assert "invocation.wait" in state.status.error


async def test_a_question_that_is_given_up_does_not_take_the_tool_with_it(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        async with invocation.report.tool("look", id="look") as call:
            try:
                async with asyncio.timeout(0.05):
                    await invocation.report.approval(call)
            except TimeoutError:
                call.result = "without asking"

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    (call,) = state.status.tool_calls
    assert (call.status, call.result) == (TOOL_CALL_COMPLETED, "without asking")


async def test_a_question_that_nobody_will_ask_again_does_not_go_on_waiting(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> str:
        if not invocation.resumed:
            await invocation.report.approval("deploy")
        return "done"

    async with serving_agents(tmp_path / "data", agent) as served:
        execution_id = await served.create()
        await until(served.client, execution_id, lambda state: bool(state.status.tool_calls))
        await served.client.executions.Pause(PauseAgentExecutionInput(id=execution_id))
        await served.in_phase(execution_id, EXECUTION_PAUSED)
        await served.client.executions.Resume(ResumeAgentExecutionInput(id=execution_id))
        state = await served.ended(execution_id)
    assert [call.status for call in state.status.tool_calls] == [TOOL_CALL_INTERRUPTED]


async def test_a_secret_is_in_no_reason_and_in_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def agent(invocation: Invocation) -> None:
        if invocation.message == "reason":
            raise AgentFailure(invocation.env["TOKEN"], "wrong token")
        raise ValueError(f"no access with {invocation.env['TOKEN']}")

    caplog.set_level(logging.DEBUG, "runstream")
    async with serving_agents(tmp_path / "data", agent) as served:
        for message in ("reason", "error"):
            state = await served.result(message, TOKEN="hunter2hunter2")  # noqa: S106  # it is not to be found
            assert state.status.phase == EXECUTION_FAILED
            assert b"hunter2" not in state.SerializeToString()
    assert "no access with ***" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("address", ["", "foo", "http://localhost:7400", "localhost:port"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        Runner(address, {"tested": print})


async def test_steady_work_does_not_keep_the_pings_from_a_runner(tmp_path: Path) -> None:
    """Reports more frequent than pings must not let the stream look dead."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock) as server:
        execution_id = await an_execution(server.client)
        async with attached(server.client) as runner:
            assignment = await runner.assignment()
            for number in range(1, 13):
                clock.advance(1)
                request = token(execution_id, "x", sequence=number)
                request.attempt = assignment.attempt
                await server.client.executions.UpdateStatus(request)
            assert await runner.heartbeat(held(assignment)) == []
            assert (await runner.command("ping")).HasField("ping")
            assert (await runner.command("ping")).HasField("ping")
