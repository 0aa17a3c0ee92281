"""How an attempt is stopped: cancelled, out of time, paused; and what its agent may still do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from runstream.runner import Agent
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    TOOL_CALL_INTERRUPTED,
)
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    PauseAgentExecutionInput,
    ResumeAgentExecutionInput,
    TerminateAgentExecutionInput,
)
from tests.clock import FakeClock
from tests.making import execution
from tests.runner.served import said, serving_agents, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from runstream.runner import Invocation


async def test_a_cancelled_agent_cleans_up_and_reports_and_then_the_execution_is_cancelled(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        try:
            async with invocation.report.tool("slow"):
                await asyncio.Event().wait()
        finally:
            await invocation.report.text("cleaned up")

    async with serving_agents(tmp_path / "data", agent) as served:
        execution_id = await served.create()
        await until(served.client, execution_id, lambda state: bool(state.status.tool_calls))
        state = await served.cancel(execution_id, "no longer needed")
    assert (state.status.phase, state.status.reason) == (EXECUTION_CANCELLED, "no longer needed")
    assert said(state) == ["cleaned up"]
    assert state.status.tool_calls[0].status == TOOL_CALL_INTERRUPTED


async def test_a_cancelled_generator_cleans_up(tmp_path: Path) -> None:
    cleaned = asyncio.Event()

    async def agent(_: Invocation) -> AsyncIterator[str]:
        try:
            yield "begun"
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    async with serving_agents(tmp_path / "data", agent) as served:
        execution_id = await served.create()
        await until(served.client, execution_id, lambda state: bool(state.status.messages))
        assert (await served.cancel(execution_id)).status.phase == EXECUTION_CANCELLED
        assert cleaned.is_set()


async def test_an_agent_that_does_not_end_in_its_grace_is_left_behind(tmp_path: Path) -> None:
    """The execution is CANCELLED by the runner; for the server, whose clock stands still, the grace never ends."""
    free = asyncio.Event()

    async def agent(invocation: Invocation) -> None:
        while not free.is_set():
            try:
                await invocation.report.flush()
                await free.wait()
            except asyncio.CancelledError:
                continue

    async with serving_agents(tmp_path / "data", agent, clock=FakeClock(), cancel_grace=0.2) as served:
        execution_id = await served.create()
        await served.in_phase(execution_id, EXECUTION_IN_PROGRESS)
        state = await served.cancel(execution_id, "enough")
        free.set()
    assert (state.status.phase, state.status.reason) == (EXECUTION_CANCELLED, "enough")


async def test_an_agent_that_answers_a_cancel_with_its_result_is_cancelled(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> str:
        try:
            await invocation.report.text("half")
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "of it"
        return ""

    async with serving_agents(tmp_path / "data", agent) as served:
        execution_id = await served.create()
        await until(served.client, execution_id, lambda state: bool(state.status.messages))
        state = await served.cancel(execution_id)
    assert (state.status.phase, said(state)) == (EXECUTION_CANCELLED, ["half", "of it"])


async def test_the_deadline_ends_the_agent(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await invocation.report.text(f"{invocation.remaining()}")

    async with serving_agents(tmp_path / "data", Agent(agent, max_duration=0.2)) as served:
        state = await served.result()
    assert (state.status.phase, state.status.reason) == (EXECUTION_FAILED, "DEADLINE_EXCEEDED")
    assert "deadline" in state.status.error.lower()
    assert said(state) == ["0.0"]


async def test_an_execution_that_is_terminated_stops_its_agent(tmp_path: Path) -> None:
    stopped = asyncio.Event()

    async def agent(invocation: Invocation) -> None:
        await invocation.report.text("begun")
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with serving_agents(tmp_path / "data", agent) as served:
        execution_id = await served.create()
        await until(served.client, execution_id, lambda state: bool(state.status.messages))
        await served.client.executions.Terminate(TerminateAgentExecutionInput(id=execution_id))
        await stopped.wait()


async def test_an_agent_is_paused_at_a_safe_point_and_resumes_with_what_it_reported(tmp_path: Path) -> None:
    asked = asyncio.Event()
    attempts: list[tuple[int, bool, list[str]]] = []

    async def agent(invocation: Invocation) -> AsyncIterator[str]:
        attempts.append((invocation.attempt, invocation.resumed, said(invocation.execution)))
        if invocation.resumed:
            yield "second half"
            return
        yield "first half"
        await asked.wait()
        while True:
            await invocation.safe_point()

    async with serving_agents(tmp_path / "data", agent) as served:
        execution_id = await served.create()
        await until(served.client, execution_id, lambda state: bool(state.status.messages))
        await served.client.executions.Pause(PauseAgentExecutionInput(id=execution_id))
        asked.set()
        await served.in_phase(execution_id, EXECUTION_PAUSED)
        await served.client.executions.Resume(ResumeAgentExecutionInput(id=execution_id))
        state = await served.ended(execution_id)
    assert (state.status.phase, said(state)) == (EXECUTION_COMPLETED, ["first half", "second half"])
    assert attempts == [(1, False, []), (2, True, ["first half"])]


async def test_each_new_step_is_a_safe_point(tmp_path: Path) -> None:
    """Of an agent that knows nothing of pauses, in whichever of its tasks."""

    async def by_tool(invocation: Invocation) -> None:
        async with invocation.report.tool("look", id="c"):
            pass

    async def by_message(invocation: Invocation) -> None:
        await invocation.report.message("hm", id="m")

    async def by_sub_agent(invocation: Invocation) -> None:
        async with invocation.report.sub_agent("finder", id="s"):
            pass

    async def by_input(invocation: Invocation) -> None:
        await invocation.report.needs_input("what now?")

    async def by_approval(invocation: Invocation) -> None:
        await invocation.report.approval("deploy")

    steps = {"tool": by_tool, "message": by_message, "sub": by_sub_agent, "input": by_input, "approval": by_approval}

    async def agent(invocation: Invocation) -> None:
        if invocation.resumed:
            return
        step = steps[invocation.message]
        while True:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(step(invocation))
            await invocation.report.flush()

    async with serving_agents(tmp_path / "data", agent) as served:
        for message in steps:
            execution_id = await served.create(message)
            await until(served.client, execution_id, lambda state: state.metadata.revision > 2)
            await served.client.executions.Pause(PauseAgentExecutionInput(id=execution_id))
            await served.in_phase(execution_id, EXECUTION_PAUSED)
            await served.client.executions.Resume(ResumeAgentExecutionInput(id=execution_id))
            assert (await served.ended(execution_id)).status.phase == EXECUTION_COMPLETED


async def test_what_is_said_again_under_an_id_takes_the_place_of_what_was_said(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        summary = await invocation.report.message(id="summary")
        await summary.text("attempt ")
        await summary.text(str(invocation.attempt))
        while not invocation.resumed:
            await invocation.safe_point()

    async with serving_agents(tmp_path / "data", agent) as served:
        execution_id = await served.create()
        await until(served.client, execution_id, lambda state: bool(state.status.messages))
        await served.client.executions.Pause(PauseAgentExecutionInput(id=execution_id))
        await served.in_phase(execution_id, EXECUTION_PAUSED)
        await served.client.executions.Resume(ResumeAgentExecutionInput(id=execution_id))
        assert said(await served.ended(execution_id)) == ["attempt 2"]


async def test_a_tool_that_is_done_need_not_run_again_after_a_pause(tmp_path: Path) -> None:
    runs: list[int] = []

    async def agent(invocation: Invocation) -> str:
        done = invocation.report.recorded("c-1")
        if done is None:
            async with invocation.report.tool("look", id="c-1") as call:
                runs.append(invocation.attempt)
                call.result = "seen"
        while not invocation.resumed:
            await invocation.safe_point()
        return done.result if done is not None else ""

    async with serving_agents(tmp_path / "data", agent) as served:
        execution_id = await served.create()
        await until(served.client, execution_id, lambda state: bool(state.status.tool_calls))
        await served.client.executions.Pause(PauseAgentExecutionInput(id=execution_id))
        await served.in_phase(execution_id, EXECUTION_PAUSED)
        await served.client.executions.Resume(ResumeAgentExecutionInput(id=execution_id))
        assert said(await served.ended(execution_id)) == ["seen"]
    assert runs == [1]


async def test_a_cancel_outweighs_a_pause(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        await invocation.report.text("begun")
        await asyncio.Event().wait()

    async with serving_agents(tmp_path / "data", agent) as served:
        execution_id = await served.create()
        await until(served.client, execution_id, lambda state: bool(state.status.messages))
        await served.client.executions.Pause(PauseAgentExecutionInput(id=execution_id))
        await served.client.executions.Cancel(CancelAgentExecutionInput(id=execution_id))
        assert (await served.ended(execution_id)).status.phase == EXECUTION_CANCELLED


async def test_the_caller_may_set_the_deadline(tmp_path: Path) -> None:
    async def agent(_: Invocation) -> None:
        await asyncio.Event().wait()

    async with serving_agents(tmp_path / "data", agent) as served:
        first = await served.create("1")
        await served.cancel(first)
        state = await until(served.client, first, lambda _: True)
        request = execution(agent_id=state.spec.agent_id)
        request.spec.context.max_duration.CopyFrom(Duration(nanos=100_000_000))
        made = await served.client.executions.Create(request)
        assert (await served.ended(made.metadata.id)).status.reason == "DEADLINE_EXCEEDED"
