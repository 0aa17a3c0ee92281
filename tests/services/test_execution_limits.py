"""The limits of one execution's log: met exactly, and never in the way of an end."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.model.errors import ResourceExhausted
from runstream.model.phases import is_terminal
from runstream.services.executions.limits import MORE_BYTES, MORE_CHANGES, ExecutionLimits
from runstream.storage.records import EXECUTION_HEAD
from runstream.stored.v1.stored_pb2 import ExecutionHead
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_APPROVE,
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_TERMINATED,
    EXECUTION_WAITING_FOR_APPROVAL,
    EXECUTION_WAITING_FOR_INPUT,
    SUB_AGENT_COMPLETED,
    TOOL_CALL_INTERRUPTED,
    TOOL_CALL_RUNNING,
    TOOL_CALL_WAITING_APPROVAL,
    AgentExecutionStatus,
    ToolCall,
)
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    PauseAgentExecutionInput,
    RecoverAgentExecutionInput,
    ResumeAgentExecutionInput,
    SubmitApprovalInput,
    SubmitInputInput,
    TerminateAgentExecutionInput,
    WatchAgentExecutionRequest,
)
from runstream.v1.resource_pb2 import ResourceId
from tests.attached import attached, held
from tests.clock import FakeClock
from tests.families import a_child, below
from tests.making import a_running_execution, an_agent, delta, execution, stored, token
from tests.serving import EXHAUSTED, MISSING, refusal, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.serving import Client, Serving

#: The changes that an execution may have in these tests.
MOST = 6


@pytest.fixture(name="served")
async def _served(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(tmp_path / "data", max_execution_changes=MOST) as made:
        yield made


@pytest.fixture(name="client")
def _client(served: Serving) -> Client:
    return served.client


async def a_full_execution(client: Client, most: int = MOST, **spec: Any) -> str:  # noqa: ANN401
    """Make an execution in progress that is at its limit of changes; return its id."""
    execution_id = await a_running_execution(client, **spec)
    for number in range(3, most + 1):
        await client.executions.UpdateStatus(token(execution_id, f"{number} "))
    return execution_id


async def test_the_last_change_is_taken_and_the_one_after_it_refused(client: Client) -> None:
    execution_id = await a_full_execution(client)
    before = await stored(client, execution_id)
    assert before.metadata.revision == MOST
    for _ in range(2):
        told = await refusal(client.executions.UpdateStatus(token(execution_id, "too much")))
        expected = (
            f"Execution {execution_id} would have 7 changes, but may have 6. It can still end; go on in another one."
        )
        assert told.message == expected
        assert (told.code, told.reason, told.retry_after) == (EXHAUSTED, "EXECUTION_TOO_LONG", None)
        assert told.metadata == {
            "id": execution_id,
            "limit": "6",
            "current": "7",
            "setting": "max_execution_changes",
        }
    assert await stored(client, execution_id) == before


async def test_a_repeat_of_the_last_change_is_answered(client: Client) -> None:
    """It changes nothing, so nothing becomes too long."""
    execution_id = await a_running_execution(client)
    for number in range(1, MOST - 1):
        await client.executions.UpdateStatus(token(execution_id, "x", sequence=number))
    answer = await client.executions.UpdateStatus(token(execution_id, "x", sequence=MOST - 2))
    assert answer.metadata.revision == MOST


async def test_the_last_byte_is_taken_and_the_one_after_it_refused(tmp_path: Path) -> None:
    async with serving(tmp_path / "a", FakeClock()) as served:  # a time may be written in more or fewer bytes
        execution_id = await a_running_execution(served.client)
        await served.client.executions.UpdateStatus(token(execution_id, "x" * 100))
        head = await served.store.durable.get(EXECUTION_HEAD, execution_id)
        assert head is not None
    async with serving(tmp_path / "b", FakeClock(), max_execution_bytes=head.log_bytes) as served:
        execution_id = await a_running_execution(served.client)
        told = await refusal(served.client.executions.UpdateStatus(token(execution_id, "x" * 101)))
        assert (told.code, told.reason) == (EXHAUSTED, "EXECUTION_TOO_LARGE")
        assert told.metadata == {
            "id": execution_id,
            "limit": str(head.log_bytes),
            "current": str(head.log_bytes + 1),
            "setting": "max_execution_bytes",
        }
        await served.client.executions.UpdateStatus(token(execution_id, "x" * 100))
        told = await refusal(served.client.executions.UpdateStatus(token(execution_id, "")))
        assert told.reason == "EXECUTION_TOO_LARGE"


async def test_without_limits_there_are_none(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", max_execution_changes=0, max_execution_bytes=0) as served:
        assert (await stored(served.client, await a_full_execution(served.client, 20))).metadata.revision == 20


@pytest.mark.parametrize("phase", [EXECUTION_COMPLETED, EXECUTION_FAILED, EXECUTION_CANCELLED])
async def test_whoever_works_on_it_can_still_report_the_end(client: Client, phase: Any) -> None:  # noqa: ANN401
    """With the last of the work, whatever its size, and with what the server settles."""
    execution_id = await a_running_execution(client)
    calls = AgentExecutionStatus(tool_calls=[ToolCall(id="c", name="search", status=TOOL_CALL_RUNNING)])
    await client.executions.UpdateStatus(delta(execution_id, calls))
    for _ in range(3, MOST):
        await client.executions.UpdateStatus(token(execution_id, "x"))
    last = token(execution_id, "y" * 1_000)
    last.status.phase = phase
    await client.executions.UpdateStatus(last)
    state = await stored(client, execution_id)
    assert (state.metadata.revision, state.status.phase) == (MOST + 1, phase)
    assert state.status.messages[0].content.endswith("y" * 1_000)
    assert state.status.tool_calls[0].status == TOOL_CALL_INTERRUPTED


async def test_it_can_be_cancelled_and_the_runner_complies(client: Client) -> None:
    execution_id = await a_full_execution(client)
    await client.executions.Cancel(CancelAgentExecutionInput(id=execution_id, reason="enough"))
    told = await refusal(client.executions.UpdateStatus(token(execution_id, "x")))
    assert told.reason == "EXECUTION_TOO_LONG"
    # A halt that is reported now is the end that was asked for.
    await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_PAUSED))
    assert (await stored(client, execution_id)).status.phase == EXECUTION_CANCELLED


async def test_it_can_be_terminated(client: Client) -> None:
    execution_id = await a_full_execution(client)
    await client.executions.Terminate(TerminateAgentExecutionInput(id=execution_id))
    assert (await stored(client, execution_id)).status.phase == EXECUTION_TERMINATED


async def test_a_cancel_that_nobody_complies_with_is_enforced(served: Serving) -> None:
    execution_id = await a_full_execution(served.client)
    await served.client.executions.Cancel(CancelAgentExecutionInput(id=execution_id))
    await served.controls.enforce_cancel(execution_id)
    status = (await stored(served.client, execution_id)).status
    assert (status.phase, status.reason) == (EXECUTION_CANCELLED, "CANCEL_UNACKNOWLEDGED")


async def test_its_deadline_ends_it(tmp_path: Path) -> None:
    clock = FakeClock()
    async with serving(tmp_path / "data", clock, max_execution_changes=MOST) as served:
        request = execution(agent_id=await an_agent(served.client))
        request.spec.context.max_duration.FromTimedelta(timedelta(seconds=60))
        execution_id = (await served.client.executions.Create(request)).metadata.id
        for number in range(2, MOST + 1):
            await served.client.executions.UpdateStatus(
                delta(execution_id, phase=EXECUTION_IN_PROGRESS) if number == 2 else token(execution_id, "x")
            )
        changes = aiter(
            served.client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id, after_revision=MOST))
        )
        clock.advance(60)
        assert (await anext(changes)).control.deadline_exceeded
        await clock.awaited(30)
        clock.advance(30)
        assert (await anext(changes)).terminal
        status = (await stored(served.client, execution_id)).status
    assert (status.phase, status.reason) == (EXECUTION_FAILED, "DEADLINE_EXCEEDED")


async def test_a_runner_that_goes_gives_it_back_until_that_ends_it(tmp_path: Path) -> None:
    """It is queued and assigned as ever; each attempt can report its end and nothing else."""
    async with serving(tmp_path / "data", max_execution_changes=3) as served:
        agent_id = await an_agent(served.client)
        execution_id = (await served.client.executions.Create(execution(agent_id=agent_id))).metadata.id
        async with attached(served.client) as runner:
            for number in range(1, 4):
                assert (await runner.assignment()).attempt == number
                await runner.detach()
            assignment = await runner.assignment()
            report = token(execution_id, "x", sequence=1)
            report.attempt = assignment.attempt
            assert (await refusal(served.client.executions.UpdateStatus(report))).reason == "EXECUTION_TOO_LONG"
            assert await runner.heartbeat(held(assignment)) == []
            report.status.phase = EXECUTION_FAILED
            await served.client.executions.UpdateStatus(report)
        assert is_terminal((await stored(served.client, execution_id)).status.phase)


async def test_an_execution_whose_runners_are_lost_fails_in_the_end(tmp_path: Path) -> None:
    clock = FakeClock()
    async with serving(tmp_path / "data", clock, max_execution_changes=2, retry_backoff=0) as served:
        agent_id = await an_agent(served.client)
        execution_id = (await served.client.executions.Create(execution(agent_id=agent_id))).metadata.id
        watch = served.client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id, after_revision=1))
        for number in range(1, 4):
            async with attached(served.client, f"runner-{number}") as runner:
                await runner.assignment()
            clock.advance(15)
        changes = [change async for change in watch]
    assert [change.status.phase for change in changes] == [EXECUTION_IN_PROGRESS, EXECUTION_PENDING] * 2 + [
        EXECUTION_IN_PROGRESS,
        EXECUTION_FAILED,
    ]
    assert changes[-1].status.reason == "RUNNER_LOST"


async def test_it_can_be_deleted_and_leaves_nothing(served: Serving) -> None:
    execution_id = await a_full_execution(served.client)
    await served.client.executions.Delete(ResourceId(value=execution_id))
    assert (await refusal(stored(served.client, execution_id))).code == MISSING
    assert await served.store.durable.get(EXECUTION_HEAD, execution_id) is None
    while await served.store.purge_changes(execution_id, limit=100):
        pass
    assert await served.store.changes(execution_id, after=0, limit=10, max_bytes=1 << 20) == []


async def test_people_have_some_room_beyond_the_limit(client: Client) -> None:
    """To halt it and have it go on, to change it, and to answer it; the runner has it for the halt alone."""
    execution_id = await a_full_execution(client)
    await client.executions.Pause(PauseAgentExecutionInput(id=execution_id))
    await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_PAUSED))
    state = await stored(client, execution_id)
    assert (state.metadata.revision, state.status.phase) == (MOST + 2, EXECUTION_PAUSED)
    state.metadata.labels["team"] = "x"
    await client.executions.Update(state)
    await client.executions.Resume(ResumeAgentExecutionInput(id=execution_id))
    told = await refusal(client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_IN_PROGRESS)))
    assert told.reason == "EXECUTION_TOO_LONG"


@pytest.mark.parametrize("phase", [EXECUTION_WAITING_FOR_INPUT, EXECUTION_WAITING_FOR_APPROVAL])
async def test_a_question_at_the_limit_can_be_answered(client: Client, phase: Any) -> None:  # noqa: ANN401
    execution_id = await a_full_execution(client, MOST - 1)
    question = delta(execution_id, phase=phase)
    if phase == EXECUTION_WAITING_FOR_APPROVAL:
        question.status.tool_calls.add(id="c", name="rm", status=TOOL_CALL_WAITING_APPROVAL)
    await client.executions.UpdateStatus(question)
    if phase == EXECUTION_WAITING_FOR_APPROVAL:
        answer = SubmitApprovalInput(agent_execution_id=execution_id, tool_call_id="c", action=APPROVAL_APPROVE)
        await client.executions.SubmitApproval(answer)
    else:
        await client.executions.SubmitInput(SubmitInputInput(execution_id=execution_id, message="yes"))
    state = await stored(client, execution_id)
    assert (state.metadata.revision, state.status.phase) == (MOST + 1, EXECUTION_IN_PROGRESS)


async def test_the_room_of_people_ends_too(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """And even then it can be cancelled."""
    monkeypatch.setattr("runstream.services.executions.limits.MORE_CHANGES", 2)
    execution_id = await a_full_execution(client)
    await client.executions.Pause(PauseAgentExecutionInput(id=execution_id))
    await client.executions.Resume(ResumeAgentExecutionInput(id=execution_id))
    told = await refusal(client.executions.Pause(PauseAgentExecutionInput(id=execution_id)))
    assert (told.code, told.reason) == (EXHAUSTED, "EXECUTION_TOO_LONG")
    await client.executions.Cancel(CancelAgentExecutionInput(id=execution_id))
    await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_CANCELLED))
    state = await stored(client, execution_id)
    assert (state.metadata.revision, state.status.phase) == (MOST + 4, EXECUTION_CANCELLED)
    told = await refusal(client.executions.Update(state))
    assert told.reason == "EXECUTION_TOO_LONG"


async def test_what_failed_at_its_limit_is_recovered_when_the_limit_is_raised(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", max_execution_changes=MOST) as served:
        execution_id = await a_full_execution(served.client)
        await served.client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_FAILED))
        told = await refusal(served.client.executions.Recover(RecoverAgentExecutionInput(id=execution_id)))
        assert told.reason == "EXECUTION_TOO_LONG"
    async with serving(tmp_path / "data", max_execution_changes=MOST + 2) as served:
        await served.client.executions.Recover(RecoverAgentExecutionInput(id=execution_id))


async def test_a_parent_at_its_limit_has_no_more_sub_executions_and_hears_of_those_it_has(client: Client) -> None:
    parent_id = await a_running_execution(client)
    agent_id = (await stored(client, parent_id)).spec.agent_id
    child_id = await a_child(client, parent_id)
    for _ in range(3, MOST):
        await client.executions.UpdateStatus(token(parent_id, "x"))
    before = await stored(client, parent_id)
    told = await refusal(client.executions.Create(below(parent_id, agent_id, call="two")))
    assert (told.code, told.reason, told.metadata["id"]) == (EXHAUSTED, "EXECUTION_TOO_LONG", parent_id)
    assert await stored(client, parent_id) == before
    await client.executions.UpdateStatus(delta(child_id, phase=EXECUTION_IN_PROGRESS))
    await client.executions.UpdateStatus(delta(child_id, phase=EXECUTION_COMPLETED))
    state = await stored(client, parent_id)
    assert (state.metadata.revision, state.status.sub_agent_executions[0].status) == (MOST + 2, SUB_AGENT_COMPLETED)


async def test_a_new_execution_that_is_too_large_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", max_execution_bytes=10_000) as served:
        agent_id = await an_agent(served.client)
        told = await refusal(served.client.executions.Create(execution(agent_id=agent_id, message="x" * 10_000)))
        assert (told.code, told.reason) == (EXHAUSTED, "EXECUTION_TOO_LARGE")
        await served.client.executions.Create(execution(agent_id=agent_id))


@given(st.integers(1, 50), st.integers(1, 5_000), st.integers(0, 2_000), st.integers(0, 20 << 20), st.booleans())
def test_a_head_is_refused_exactly_beyond_what_it_may_have(
    changes: int,
    size: int,
    revision: int,
    log_bytes: int,
    more: bool,  # noqa: FBT001  # made up by Hypothesis
) -> None:
    limits, head = ExecutionLimits.of(changes, size), ExecutionHead(revision=revision, log_bytes=log_bytes)
    room = (MORE_CHANGES, MORE_BYTES) if more else (0, 0)
    fits = revision <= changes + room[0] and log_bytes <= size + room[1]
    if fits:
        limits.check("x", head, more=more)
        return
    with pytest.raises(ResourceExhausted) as refused:
        limits.check("x", head, more=more)
    assert int(refused.value.metadata["limit"]) < int(refused.value.metadata["current"])
