"""The runner as a whole: how it begins, loses and finds the server, and ends."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from typing import TYPE_CHECKING

import pytest

from runstream.runner import Agent, Runner, RunnerRefused
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_COMPLETED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PENDING,
    TOOL_CALL_COMPLETED,
)
from runstream.v1.resource_pb2 import ResourceReference
from tests.clock import FakeClock
from tests.making import an_agent, an_execution, execution
from tests.process import server_process
from tests.runner.served import SECONDS, Served, running, said, serving_agents, until
from tests.runner.severed import path_to
from tests.serving import MISSING, refusal, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from runstream.runner import Invocation


async def greeter(invocation: Invocation) -> str:
    """An agent that ends at once."""
    return f"Hello, {invocation.message}."


async def test_agents_that_the_server_knows_stay_as_they_are(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as server:
        known = await an_agent(server.client, "greeter")
        async with running(server.server.address, {"greeter": Agent(greeter, instructions="Greet.")}):
            found = await server.client.agent_queries.GetByReference(ResourceReference(slug="greeter"))
    assert (found.metadata.id, found.metadata.revision, found.spec.instructions) == (known, 1, "")


async def test_nothing_is_created_unless_wanted(tmp_path: Path) -> None:
    async with (
        serving(tmp_path / "data") as server,
        running(server.server.address, {"greeter": greeter}, register=False),
    ):
        missing = await refusal(server.client.agent_queries.GetByReference(ResourceReference(slug="greeter")))
    assert missing.code is MISSING


async def test_a_runner_gets_the_work_of_its_own_agents_alone(tmp_path: Path) -> None:
    async with serving_agents(tmp_path / "data", {"greeter": greeter}) as served:
        other = await an_execution(served.client, agent="other")
        assert (await served.result(agent="greeter")).status.phase == EXECUTION_COMPLETED
        assert (await until(served.client, other, lambda _: True)).status.phase == EXECUTION_PENDING


async def test_a_runner_may_be_started_before_its_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with server_process(tmp_path / "data") as server, server.client() as client:
        await server.kill9()
        runner = Runner(server.address, {"tested": greeter})
        serve = asyncio.create_task(runner.serve())
        await server.start()
        async with asyncio.timeout(SECONDS):
            await runner.attached()
        assert said(await Served(client, runner).result("Ada")) == ["Hello, Ada."]
        await runner.stop()
        await serve
    assert "ERROR" not in caplog.text


async def test_a_runner_that_the_server_never_takes_says_so(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as server:
        for option in ({"labels": {str(number): "" for number in range(65)}}, {"org": "x" * 201}):
            with pytest.raises(RunnerRefused, match="INVALID_FIELDS"):
                await Runner(server.server.address, {"greeter": greeter}, **option).serve()


def test_a_runner_that_makes_no_sense_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="needs an agent"):
        Runner("127.0.0.1:1", {})
    with pytest.raises(ValueError, match="the same slug, 'a-b'"):
        Runner("127.0.0.1:1", {"a b": greeter, "A-B": greeter})
    with pytest.raises(ValueError, match="no letter or digit"):
        Runner("127.0.0.1:1", {"…": greeter})
    with pytest.raises(ValueError, match="from 1 to 10000, not 0"):
        Runner("127.0.0.1:1", {"a": greeter}, capacity=0)


async def test_work_goes_on_while_the_server_is_killed_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    """In the same attempt: the text, the tools, the end."""
    halfway, gone, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def agent(invocation: Invocation) -> AsyncIterator[str]:
        for number in range(300):
            yield f"{number} "
        async with invocation.report.tool("look", id="c-1") as call:
            halfway.set()
            await gone.wait()
            call.result = "seen"
        for number in range(300):
            yield f"{number} "
        ended.set()

    async with (
        server_process(tmp_path / "data") as server,
        server.client() as client,
        running(server.address, {"tested": agent}) as runner,
    ):
        served = Served(client, runner)
        execution_id = await served.create()
        await halfway.wait()
        await server.kill9()
        gone.set()
        await ended.wait()
        await server.start()
        state = await served.ended(execution_id)
    counted = "".join(f"{number} " for number in range(300))
    assert (state.status.phase, state.status.attempt) == (EXECUTION_COMPLETED, 1)
    assert said(state) == [counted, counted]
    assert [call.status for call in state.status.tool_calls] == [TOOL_CALL_COMPLETED]


async def test_work_goes_on_over_connections_that_break(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cut = asyncio.Event()

    async def agent(invocation: Invocation) -> AsyncIterator[str]:
        yield "before "
        async with invocation.report.tool("look"):
            await cut.wait()
        yield "after"

    async with (
        serving(tmp_path / "data") as server,
        path_to(server.server.address) as path,
        running(path.address, {"tested": agent}) as runner,
    ):
        served = Served(server.client, runner)
        created = [await served.create() for _ in range(5)]
        for execution_id in created:
            await until(server.client, execution_id, lambda state: bool(state.status.tool_calls))
        with caplog.at_level(logging.INFO, "runstream.runner"):
            path.cut()
            cut.set()
            for execution_id in created:
                state = await served.ended(execution_id)
                assert (state.status.phase, state.status.attempt) == (EXECUTION_COMPLETED, 1)
                assert said(state) == ["before ", "after"]
            assert said(await served.result("6")) == ["before ", "after"]
    assert caplog.text.count("not attached, trying again") == 1


async def test_what_another_runner_has_meanwhile_is_dropped(tmp_path: Path) -> None:
    """A runner that was cut off for longer than its lease stops the agent when it is back, and writes nothing more."""
    clock = FakeClock()
    first_works, stopped, second_works = asyncio.Event(), asyncio.Event(), asyncio.Event()
    finish = asyncio.Event()

    async def cut_off(invocation: Invocation) -> None:
        await invocation.report.text("by the first")
        await invocation.report.flush()
        first_works.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async def takes_over(invocation: Invocation) -> str:
        second_works.set()
        await finish.wait()
        return f"by the second, attempt {invocation.attempt}"

    async with (
        serving(tmp_path / "data", clock, retry_backoff=0) as server,
        path_to(server.server.address) as path,
        running(path.address, {"tested": cut_off}) as first,
    ):
        served = Served(server.client, first)
        execution_id = await served.create()
        await first_works.wait()
        path.closed = True
        path.cut()
        clock.advance(60)
        async with running(server.server.address, {"tested": takes_over}):
            await second_works.wait()
            assert not stopped.is_set()
            path.closed = False
            await stopped.wait()
            finish.set()
            state = await served.ended(execution_id)
    assert said(state) == ["by the second, attempt 2"]


async def test_a_drained_runner_finishes_what_it_holds_and_takes_nothing_new(tmp_path: Path) -> None:
    finish = asyncio.Event()

    async def agent(_: Invocation) -> str:
        await finish.wait()
        return "finished"

    async with serving(tmp_path / "data") as server:
        runner = Runner(server.server.address, {"tested": agent})
        serve = asyncio.create_task(runner.serve())
        await runner.attached()
        served = Served(server.client, runner)
        held = await served.create()
        await served.in_phase(held, EXECUTION_IN_PROGRESS)
        runner.drain()
        async with running(server.server.address, {"other": greeter}):
            # By the time that another runner has attached and worked, this one would have got it too.
            refused = await served.create()
            await served.result(agent="other")
        assert (await until(server.client, refused, lambda _: True)).status.phase == EXECUTION_PENDING
        finish.set()
        await serve
        assert said(await served.ended(held)) == ["finished"]
        assert (await until(server.client, refused, lambda _: True)).status.phase == EXECUTION_PENDING


async def test_a_draining_runner_still_hears_of_a_cancel(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        await invocation.report.text("begun")
        await asyncio.Event().wait()

    async with serving(tmp_path / "data") as server:
        runner = Runner(server.server.address, {"tested": agent})
        serve = asyncio.create_task(runner.serve())
        await runner.attached()
        served = Served(server.client, runner)
        execution_id = await served.create()
        await served.in_phase(execution_id, EXECUTION_IN_PROGRESS)
        runner.drain()
        await served.cancel(execution_id)
        await serve


async def test_what_is_not_finished_in_time_is_given_back_with_all_that_was_reported(tmp_path: Path) -> None:
    stopped = asyncio.Event()

    async def agent(invocation: Invocation) -> str:
        if invocation.resumed:
            return "finished"
        await invocation.report.text("begun")
        try:
            await asyncio.Event().wait()
        finally:
            await invocation.report.text(", given back")
            stopped.set()
        return ""

    agents = {"tested": Agent(agent, resume_attempts=True)}
    async with serving(tmp_path / "data") as server:
        runner = Runner(server.server.address, agents, drain_timeout=0)
        serve = asyncio.create_task(runner.serve())
        await runner.attached()
        served = Served(server.client, runner)
        execution_id = await served.create()
        await served.in_phase(execution_id, EXECUTION_IN_PROGRESS)
        await until(server.client, execution_id, lambda state: bool(state.status.messages))
        runner.drain()
        await serve
        assert stopped.is_set()
        state = await until(server.client, execution_id, lambda _: True)
        assert (state.status.phase, said(state)) == (EXECUTION_PENDING, ["begun, given back"])
        async with running(server.server.address, agents):
            state = await served.ended(execution_id)
    assert (said(state), state.status.attempt) == (["begun, given back", "finished"], 2)


async def test_a_runner_that_is_cancelled_gives_back_too(tmp_path: Path) -> None:
    async def agent(_: Invocation) -> None:
        await asyncio.Event().wait()

    async with serving(tmp_path / "data") as server:
        runner = Runner(server.server.address, {"tested": agent})
        serve = asyncio.create_task(runner.serve())
        await runner.attached()
        served = Served(server.client, runner)
        execution_id = await served.create()
        await served.in_phase(execution_id, EXECUTION_IN_PROGRESS)
        serve.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serve
        await served.in_phase(execution_id, EXECUTION_PENDING)


async def test_a_runner_serves_once(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as server:
        async with running(server.server.address, {"greeter": greeter}) as runner:
            pass
        with pytest.raises(RuntimeError, match="serves once"):
            await runner.serve()
    await Runner("127.0.0.1:1", {"greeter": greeter}).stop()


PROGRAM = """
import asyncio, logging, sys
from runstream.runner import Runner

async def agent(invocation):
    yield "begun"
    await asyncio.Event().wait()

logging.basicConfig(level=logging.INFO, format="%(message)s")
Runner(sys.argv[1], agents={"tested": agent}).run()
print("ended")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_a_second_one_gives_everything_back_at_once(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with serving(tmp_path / "data") as server, asyncio.timeout(SECONDS):
        await an_agent(server.client, "tested")
        process = await create_subprocess_exec(
            sys.executable, "-c", PROGRAM, server.server.address, stdout=PIPE, stderr=PIPE
        )
        found = await server.client.agent_queries.GetByReference(ResourceReference(slug="tested"))
        made = await server.client.executions.Create(execution(agent_id=found.metadata.id))
        await until(server.client, made.metadata.id, lambda state: bool(state.status.messages))
        assert process.stderr is not None
        assert b"attached as" in await process.stderr.readline()
        process.send_signal(number)
        assert f"{number.name}: draining for up to 30 s" in (await process.stderr.readline()).decode()
        process.send_signal(number)
        out, _ = await process.communicate()
        assert (process.returncode, out.decode()) == (0, "ended\n")
        assert (await until(server.client, made.metadata.id, lambda _: True)).status.phase == EXECUTION_PENDING
