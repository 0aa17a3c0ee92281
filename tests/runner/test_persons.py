"""Agents that wait for a person: approvals of tools, and input."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from runstream.runner import Agent, Approval, ToolRejected, ToolSkipped
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_APPROVE,
    APPROVAL_APPROVE_ALL,
    APPROVAL_REJECT,
    APPROVAL_SKIP,
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_WAITING_FOR_APPROVAL,
    EXECUTION_WAITING_FOR_INPUT,
    MESSAGE_AI,
    MESSAGE_HUMAN,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_INTERRUPTED,
    TOOL_CALL_SKIPPED,
    TOOL_CALL_WAITING_APPROVAL,
)
from runstream.v1.agent_execution_service_pb2 import (
    PauseAgentExecutionInput,
    ResumeAgentExecutionInput,
    SubmitApprovalInput,
    SubmitInputInput,
)
from tests.runner.served import Served, running, said, serving_agents, until
from tests.serving import serving

if TYPE_CHECKING:
    from pathlib import Path

    from runstream.runner import Invocation
    from runstream.v1.agent_execution_pb2 import ApprovalAction


async def decide(served: Served, execution_id: str, action: ApprovalAction.ValueType, call: str = "c-1") -> None:
    """Wait until a call waits for approval, and decide about it."""
    await until(
        served.client,
        execution_id,
        lambda state: any(c.id == call and c.status == TOOL_CALL_WAITING_APPROVAL for c in state.status.tool_calls),
    )
    await served.client.executions.SubmitApproval(
        SubmitApprovalInput(agent_execution_id=execution_id, tool_call_id=call, action=action, comment="so be it")
    )


async def asked(served: Served, execution_id: str, told: int) -> None:
    """Wait until input is asked for, after so many messages."""
    await until(
        served.client,
        execution_id,
        lambda state: state.status.phase == EXECUTION_WAITING_FOR_INPUT and len(said(state)) == told,
    )


async def deploys(invocation: Invocation) -> str:
    """An agent that asks before it deploys."""
    try:
        async with invocation.report.tool("deploy", {"to": "here"}, id="c-1", approval=Approval()) as call:
            assert call.approved
            assert call.decision is not None
            call.result = call.decision.comment
    except ToolSkipped as skipped:
        return f"skipped: {skipped.decision.comment}"
    return "deployed"


async def test_an_approved_tool_runs(tmp_path: Path) -> None:
    async with serving_agents(tmp_path / "data", deploys) as served:
        execution_id = await served.create()
        await served.in_phase(execution_id, EXECUTION_WAITING_FOR_APPROVAL)
        await decide(served, execution_id, APPROVAL_APPROVE)
        state = await served.ended(execution_id)
    (call,) = state.status.tool_calls
    assert (call.status, call.result, call.name) == (TOOL_CALL_COMPLETED, "so be it", "deploy")
    assert said(state) == ["deployed"]


async def test_a_skipped_tool_does_not_run_and_the_agent_goes_on(tmp_path: Path) -> None:
    async with serving_agents(tmp_path / "data", deploys) as served:
        execution_id = await served.create()
        await decide(served, execution_id, APPROVAL_SKIP)
        state = await served.ended(execution_id)
    assert (state.status.phase, said(state)) == (EXECUTION_COMPLETED, ["skipped: so be it"])
    assert state.status.tool_calls[0].status == TOOL_CALL_SKIPPED


async def test_an_agent_fails_of_a_rejected_tool_unless_it_catches(tmp_path: Path) -> None:
    async with serving_agents(tmp_path / "data", deploys) as served:
        execution_id = await served.create()
        await decide(served, execution_id, APPROVAL_REJECT)
        state = await served.ended(execution_id)
    assert (state.status.phase, state.status.reason) == (EXECUTION_FAILED, "TOOL_REJECTED")
    assert state.status.error == "The tool 'deploy' was declined (reject): so be it"
    assert state.status.tool_calls[0].status == TOOL_CALL_SKIPPED


async def test_the_default_is_decided_when_nobody_does_in_time(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> str:
        decision = await invocation.report.approval("deploy", timeout=0.1, default="reject")
        assert not decision.approved
        return f"{decision.action} by {decision.decided_by}"

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    assert said(state) == ["reject by system"]
    assert state.status.tool_calls[0].status == TOOL_CALL_SKIPPED


async def test_a_tool_can_be_asked_for_first_and_run_later(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        decision = await invocation.report.approval("deploy", {"to": "here"}, id="c-1")
        assert decision.approved
        async with invocation.report.tool("deploy", {"to": "here"}, id=decision.call_id) as call:
            call.result = "done"

    async with serving_agents(tmp_path / "data", agent) as served:
        execution_id = await served.create()
        await decide(served, execution_id, APPROVAL_APPROVE)
        (call,) = (await served.ended(execution_id)).status.tool_calls
    assert (call.status, call.result) == (TOOL_CALL_COMPLETED, "done")


@pytest.mark.parametrize(
    ("action", "status"), [(APPROVAL_APPROVE, TOOL_CALL_COMPLETED), (APPROVAL_REJECT, TOOL_CALL_SKIPPED)]
)
async def test_a_tool_can_ask_while_it_runs(tmp_path: Path, action: ApprovalAction.ValueType, status: int) -> None:
    async def agent(invocation: Invocation) -> str:
        async with invocation.report.tool("deploy", id="c-1") as call:
            decision = await invocation.report.approval(call)
            return decision.action

    async with serving_agents(tmp_path / "data", agent) as served:
        execution_id = await served.create()
        await decide(served, execution_id, action)
        state = await served.ended(execution_id)
    assert state.status.phase == EXECUTION_COMPLETED
    assert said(state) == ["approve" if action == APPROVAL_APPROVE else "reject"]
    assert state.status.tool_calls[0].status == status


async def test_several_tools_wait_together_and_one_approval_may_do_for_all(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(3):
                tasks.create_task(use(invocation, f"c-{number}"))
        await use(invocation, "c-9")

    async def use(invocation: Invocation, call_id: str) -> None:
        async with invocation.report.tool("deploy", id=call_id, approval=Approval()):
            pass

    async with serving_agents(tmp_path / "data", agent) as served:
        execution_id = await served.create()
        await decide(served, execution_id, APPROVAL_APPROVE, "c-2")
        await decide(served, execution_id, APPROVAL_APPROVE_ALL, "c-0")
        state = await served.ended(execution_id)
    assert {call.id: call.status for call in state.status.tool_calls} == dict.fromkeys(
        ("c-0", "c-1", "c-2", "c-9"), TOOL_CALL_COMPLETED
    )


async def test_a_question_that_is_given_up_is_withdrawn(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> str:
        asking = asyncio.create_task(invocation.report.approval("deploy", id="c-1"))
        await served.in_phase(invocation.execution.metadata.id, EXECUTION_WAITING_FOR_APPROVAL)
        asking.cancel()
        await asyncio.wait({asking})
        await invocation.report.flush()
        state = await served.in_phase(invocation.execution.metadata.id, EXECUTION_IN_PROGRESS)
        assert state.status.tool_calls[0].status == TOOL_CALL_INTERRUPTED
        return "went on"

    async with serving_agents(tmp_path / "data", agent) as served:
        assert said(await served.result()) == ["went on"]


async def test_a_cancel_ends_the_wait_for_a_person(tmp_path: Path) -> None:
    async with serving_agents(tmp_path / "data", deploys) as served:
        execution_id = await served.create()
        await served.in_phase(execution_id, EXECUTION_WAITING_FOR_APPROVAL)
        state = await served.cancel(execution_id)
    assert state.status.phase == EXECUTION_CANCELLED
    assert state.status.tool_calls[0].status == TOOL_CALL_INTERRUPTED


async def test_a_question_outlives_a_pause(tmp_path: Path) -> None:
    async with serving_agents(tmp_path / "data", deploys) as served:
        execution_id = await served.create()
        await served.in_phase(execution_id, EXECUTION_WAITING_FOR_APPROVAL)
        await served.client.executions.Pause(PauseAgentExecutionInput(id=execution_id))
        await served.in_phase(execution_id, EXECUTION_PAUSED)
        await served.client.executions.Resume(ResumeAgentExecutionInput(id=execution_id))
        await served.in_phase(execution_id, EXECUTION_WAITING_FOR_APPROVAL)
        await decide(served, execution_id, APPROVAL_APPROVE)
        state = await served.ended(execution_id)
    assert (state.status.attempt, said(state)) == (2, ["deployed"])


async def test_what_was_decided_while_no_runner_was_there_is_not_asked_again(tmp_path: Path) -> None:
    """Neither the approval nor the answer of a person."""

    async def agent(invocation: Invocation) -> str:
        name = await invocation.report.needs_input("Who are you?", id="name")
        async with invocation.report.tool("greet", {"name": name}, id="c-1", approval=Approval()):
            pass
        return f"{name} {invocation.attempt}"

    agents = {"tested": Agent(agent, resume_attempts=True)}
    async with serving(tmp_path / "data") as server:
        async with running(server.server.address, agents) as runner:
            served = Served(server.client, runner)
            execution_id = await served.create()
            await served.in_phase(execution_id, EXECUTION_WAITING_FOR_INPUT)
        await server.client.executions.SubmitInput(SubmitInputInput(execution_id=execution_id, message="Ada"))
        await served.in_phase(execution_id, EXECUTION_PENDING)
        async with running(server.server.address, agents):
            await served.in_phase(execution_id, EXECUTION_WAITING_FOR_APPROVAL)
        await decide(served, execution_id, APPROVAL_APPROVE)
        await served.in_phase(execution_id, EXECUTION_PENDING)
        async with running(server.server.address, agents):
            state = await served.ended(execution_id)
    assert said(state) == ["Who are you?", "Ada", "Ada 3"]


async def test_input_is_asked_for_and_answered(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> str:
        first = await invocation.report.needs_input("Who are you?")
        second = await invocation.report.needs_input()
        return f"{first} {second}"

    async with serving_agents(tmp_path / "data", agent) as served:
        execution_id = await served.create()
        for told, word in ((1, "Ada"), (2, "Lovelace")):
            await asked(served, execution_id, told)
            await served.client.executions.SubmitInput(SubmitInputInput(execution_id=execution_id, message=word))
        state = await served.ended(execution_id)
    assert said(state) == ["Who are you?", "Ada", "Lovelace", "Ada Lovelace"]
    assert [message.type for message in state.status.messages] == [
        MESSAGE_AI,
        MESSAGE_HUMAN,
        MESSAGE_HUMAN,
        MESSAGE_AI,
    ]


async def test_input_and_approvals_wait_for_each_other(tmp_path: Path) -> None:
    """An execution is in one phase at a time."""

    async def agent(invocation: Invocation) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(invocation.report.needs_input("a?", id="a"))
            tasks.create_task(invocation.report.approval("deploy", id="c-1"))
            tasks.create_task(invocation.report.needs_input("b?", id="b"))

    async with serving_agents(tmp_path / "data", agent) as served:
        execution_id = await served.create()
        await served.in_phase(execution_id, EXECUTION_WAITING_FOR_INPUT)
        await served.client.executions.SubmitInput(SubmitInputInput(execution_id=execution_id, message="A"))
        await decide(served, execution_id, APPROVAL_APPROVE)
        await asked(served, execution_id, 3)
        await served.client.executions.SubmitInput(SubmitInputInput(execution_id=execution_id, message="B"))
        assert said(await served.ended(execution_id)) == ["a?", "A", "b?", "B"]


async def test_input_that_is_given_up_is_not_the_answer_to_the_next_question(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> str:
        execution_id = invocation.execution.metadata.id
        asking = asyncio.create_task(invocation.report.needs_input("first?"))
        await served.in_phase(execution_id, EXECUTION_WAITING_FOR_INPUT)
        await served.client.executions.SubmitInput(SubmitInputInput(execution_id=execution_id, message="first"))
        asking.cancel()
        await asyncio.wait({asking})
        return await invocation.report.needs_input("second?")

    async with serving_agents(tmp_path / "data", agent) as served:
        execution_id = await served.create()
        await asked(served, execution_id, 3)
        await served.client.executions.SubmitInput(SubmitInputInput(execution_id=execution_id, message="second"))
        assert said(await served.ended(execution_id))[-1] == "second"


async def test_an_agent_that_waits_for_input_no_longer_is_at_work_again(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> str:
        execution_id = invocation.execution.metadata.id
        asking = asyncio.create_task(invocation.report.needs_input("what now?"))
        await served.in_phase(execution_id, EXECUTION_WAITING_FOR_INPUT)
        asking.cancel()
        await asyncio.wait({asking})
        await served.in_phase(execution_id, EXECUTION_IN_PROGRESS)
        return "went on"

    async with serving_agents(tmp_path / "data", agent) as served:
        assert said(await served.result()) == ["what now?", "went on"]


def test_a_timeout_goes_with_a_default() -> None:
    with pytest.raises(ValueError, match="go together"):
        Approval(timeout=1)
    with pytest.raises(ValueError, match="go together"):
        Approval(default="skip")
    with pytest.raises(ValueError, match="more than 0"):
        Approval(timeout=0, default="skip")
    assert issubclass(ToolRejected, Exception)
