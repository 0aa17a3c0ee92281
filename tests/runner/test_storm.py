"""Everything at once: executions that are cancelled, paused, resumed, terminated, approved, over a path that breaks."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from grpc import aio

from runstream.model.phases import is_terminal
from runstream.runner import Agent, Approval
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_APPROVE,
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_PAUSED,
    EXECUTION_TERMINATED,
    EXECUTION_WAITING_FOR_APPROVAL,
    EXECUTION_WAITING_FOR_INPUT,
    MESSAGE_AI,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_INTERRUPTED,
    TOOL_CALL_PENDING,
    TOOL_CALL_RUNNING,
    AgentExecution,
)
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    PauseAgentExecutionInput,
    ResumeAgentExecutionInput,
    SubmitApprovalInput,
    SubmitInputInput,
    SubscribeAgentExecutionRequest,
    TerminateAgentExecutionInput,
)
from tests.process import ROUNDS
from tests.runner.served import Served, running
from tests.runner.severed import path_to
from tests.serving import serving

if TYPE_CHECKING:
    from pathlib import Path

    from runstream.runner import Invocation

STEPS = 12
EXECUTIONS = 40


async def works(invocation: Invocation) -> str:
    """Do twelve steps, each under its own id, of which an earlier attempt may have done some."""
    report = invocation.report
    for step in range(STEPS):
        if step == 4:
            await report.needs_input("go on?", id="ask")
        known = report.recorded(f"c-{step}")
        if known is not None and known.status == TOOL_CALL_COMPLETED:
            continue
        approval = Approval() if step == 8 else None
        async with report.tool("step", {"number": step}, id=f"c-{step}", approval=approval) as call:
            await report.text(f"{step} ")
            call.result = str(step)
    return "done"


@pytest.mark.parametrize("seed", range(2 * ROUNDS))
async def test_every_execution_comes_to_its_end_and_what_it_holds_is_right(tmp_path: Path, seed: int) -> None:
    random_ = random.Random(seed)
    breaks = iter([random_.randrange(20_000, 200_000) for _ in range(8)])
    agents = {"tested": Agent(works, resume_attempts=True)}
    async with (
        serving(tmp_path / "data", retry_backoff=0) as server,
        path_to(server.server.address, breaks) as path,
        running(path.address, agents, capacity=16) as runner,
    ):
        served = Served(server.client, runner)
        created = [await served.create() for _ in range(EXECUTIONS)]
        async with asyncio.TaskGroup() as tasks:
            for execution_id in created:
                tasks.create_task(attend(served, execution_id, random.Random(f"{seed} {execution_id[-3:]}")))
        ends = [await served.ended(execution_id) for execution_id in created]
    for state in ends:
        expect(state)
    assert {state.status.phase for state in ends} <= {EXECUTION_COMPLETED, EXECUTION_CANCELLED, EXECUTION_TERMINATED}
    assert any(state.status.phase == EXECUTION_COMPLETED for state in ends)


async def attend(served: Served, execution_id: str, random_: random.Random) -> None:
    """Answer what an execution asks, resume it when it is paused, and now and then interfere."""
    meddling = random_.random() < 0.6
    async for state in served.client.queries.Subscribe(SubscribeAgentExecutionRequest(value=execution_id)):
        if is_terminal(state.status.phase):
            return
        try:
            await answer(served, state)
            if meddling and random_.random() < 0.1:
                await meddle(served, execution_id, random_)
        except aio.AioRpcError:
            continue  # it has moved on meanwhile


async def answer(served: Served, state: AgentExecution) -> None:
    """Do what a person would be asked to do."""
    execution_id, commands = state.metadata.id, served.client.executions
    if state.status.phase == EXECUTION_WAITING_FOR_INPUT:
        await commands.SubmitInput(SubmitInputInput(execution_id=execution_id, message="yes"))
    elif state.status.phase == EXECUTION_WAITING_FOR_APPROVAL:
        await commands.SubmitApproval(
            SubmitApprovalInput(agent_execution_id=execution_id, tool_call_id="c-8", action=APPROVAL_APPROVE)
        )
    elif state.status.phase == EXECUTION_PAUSED:
        await commands.Resume(ResumeAgentExecutionInput(id=execution_id))


async def meddle(served: Served, execution_id: str, random_: random.Random) -> None:
    """Pause it, or end it one way or another."""
    chance, commands = random_.random(), served.client.executions
    if chance < 0.7:
        await commands.Pause(PauseAgentExecutionInput(id=execution_id))
    elif chance < 0.9:
        await commands.Cancel(CancelAgentExecutionInput(id=execution_id))
    else:
        await commands.Terminate(TerminateAgentExecutionInput(id=execution_id))


def expect(state: AgentExecution) -> None:
    """Check that nothing is open, and that a completed one has every step once."""
    calls = {call.id: call for call in state.status.tool_calls}
    assert len(calls) == len(state.status.tool_calls)
    assert all(call.status not in (TOOL_CALL_PENDING, TOOL_CALL_RUNNING) for call in calls.values())
    if state.status.phase != EXECUTION_COMPLETED:
        return
    assert {name: call.result for name, call in calls.items()} == {f"c-{step}": str(step) for step in range(STEPS)}
    assert [message.content for message in state.status.messages if message.type == MESSAGE_AI][-1] == "done"
    assert TOOL_CALL_INTERRUPTED not in {call.status for call in calls.values()}
