"""Recover: the one way out of an end, for what has FAILED, with all its work."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from runstream.model.merge import fold_all
from runstream.model.times import to_datetime
from runstream.storage.records import STATUS_SNAPSHOT
from runstream.v1.agent_execution_pb2 import (
    CHANGE_AUTHOR_USER,
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_TERMINATED,
    EXECUTION_WAITING_FOR_APPROVAL,
    EXECUTION_WAITING_FOR_INPUT,
    MESSAGE_AI,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_INTERRUPTED,
    TOOL_CALL_RUNNING,
    AgentExecution,
    AgentExecutionStatus,
    ExecutionPhase,
)
from runstream.v1.agent_execution_service_pb2 import (
    SubscribeAgentExecutionRequest,
    WatchAgentExecutionRequest,
)
from tests.asking import changes, check_fold, recover
from tests.attached import attached
from tests.clock import FakeClock
from tests.making import (
    NOWHERE,
    a_running_execution,
    agent,
    an_agent,
    an_execution,
    an_execution_in,
    delta,
    execution,
    stored,
    token,
)
from tests.serving import MISSING, PRECONDITION, Client, refusal, serving

if TYPE_CHECKING:
    from pathlib import Path


async def fail(client: Client, execution_id: str, attempt: int = 0) -> AgentExecution:
    """Report that an execution has failed."""
    status = AgentExecutionStatus(phase=EXECUTION_FAILED, error="the mast broke", reason="MAST_BROKEN")
    return await client.executions.UpdateStatus(delta(execution_id, status, attempt=attempt))


async def test_a_failed_execution_is_queued_again_with_all_its_work(client: Client) -> None:
    execution_id = await an_execution(client)
    async with attached(client) as runner:
        await runner.assignment()
        report = delta(execution_id, attempt=1)
        report.status.messages.add(id="m", type=MESSAGE_AI, content="half of it")
        report.status.tool_calls.add(id="t", name="look", status=TOOL_CALL_RUNNING)
        report.status.todos["one"].content = "look"
        await client.executions.UpdateStatus(report)
        failed = await fail(client, execution_id, attempt=1)
        recovered = await client.executions.Recover(recover(execution_id, "mast mended"))
        again = await runner.assignment()
    status = recovered.status
    assert (status.phase, status.attempt) == (EXECUTION_PENDING, 1)
    assert recovered.metadata.revision == failed.metadata.revision + 1
    assert (status.error, status.reason, status.completed_at) == ("", "", "")
    assert status.started_at == failed.status.started_at
    assert status.audit.status_audit.event == "recovered"
    assert status.tool_calls[0].status == TOOL_CALL_INTERRUPTED
    assert (again.attempt, again.resume_from) == (2, True)
    assert again.execution.status.messages == failed.status.messages
    assert "one" in again.execution.status.todos
    change = (await changes(client, execution_id, after=failed.metadata.revision))[0]
    assert (change.author, change.terminal) == (CHANGE_AUTHOR_USER, False)
    assert list(change.replace_mask) == ["completed_at", "error", "reason"]
    assert (change.status.control.reason, change.status.control.requested_by.id) == ("mast mended", "anonymous")
    await check_fold(client, execution_id)


async def test_what_was_interrupted_can_be_done_by_the_next_attempt(client: Client) -> None:
    execution_id = await an_execution(client)
    async with attached(client) as runner:
        await runner.assignment()
        report = delta(execution_id, attempt=1)
        report.status.tool_calls.add(id="t", name="look", status=TOOL_CALL_RUNNING)
        await client.executions.UpdateStatus(report)
        await fail(client, execution_id, attempt=1)
        await client.executions.Recover(recover(execution_id))
        await runner.assignment()
        report = delta(execution_id, attempt=2, phase=EXECUTION_COMPLETED)
        report.status.tool_calls.add(id="t", status=TOOL_CALL_COMPLETED)
        ended = await client.executions.UpdateStatus(report)
    assert ended.status.phase == EXECUTION_COMPLETED
    assert [call.status for call in ended.status.tool_calls] == [TOOL_CALL_COMPLETED]
    assert ended.status.completed_at


async def test_the_runners_that_were_lost_before_do_not_count(tmp_path: Path) -> None:
    clock = FakeClock()
    async with serving(tmp_path, clock, retry_backoff=0) as running:
        client = running.client
        request = agent()
        request.spec.max_attempts = 2
        agent_id = (await client.agents.Create(request)).metadata.id
        execution_id = (await client.executions.Create(execution(agent_id=agent_id))).metadata.id
        for attempt in (1, 2):
            async with attached(client, f"lost-{attempt}") as runner:
                assert (await runner.assignment()).attempt == attempt
                clock.advance(15)
                await runner.command("lost")
        failed = await stored(client, execution_id)
        assert (failed.status.phase, failed.status.reason) == (EXECUTION_FAILED, "RUNNER_LOST")
        await client.executions.Recover(recover(execution_id))
        async with attached(client, "lost-3") as runner:
            assert (await runner.assignment()).resume_from
            clock.advance(15)
            await runner.command("lost")
        assert (await stored(client, execution_id)).status.phase == EXECUTION_PENDING


async def test_the_secrets_are_still_there(client: Client) -> None:
    request = execution(agent_id=await an_agent(client))
    request.spec.runtime_env["TOKEN"].value = "hush"
    request.spec.runtime_env["TOKEN"].is_secret = True
    execution_id = (await client.executions.Create(request)).metadata.id
    async with attached(client) as runner:
        await runner.assignment()
        await fail(client, execution_id, attempt=1)
        await client.executions.Recover(recover(execution_id))
        again = await runner.assignment()
    assert again.execution.spec.runtime_env["TOKEN"].value == "hush"


@pytest.mark.parametrize(
    "phase",
    [
        EXECUTION_PENDING,
        EXECUTION_IN_PROGRESS,
        EXECUTION_PAUSED,
        EXECUTION_WAITING_FOR_APPROVAL,
        EXECUTION_WAITING_FOR_INPUT,
    ],
)
async def test_what_is_live_is_left_as_it_is(client: Client, phase: ExecutionPhase.ValueType) -> None:
    execution_id = await an_execution_in(client, phase)
    before = await stored(client, execution_id)
    assert await client.executions.Recover(recover(execution_id)) == before


@pytest.mark.parametrize("phase", [EXECUTION_COMPLETED, EXECUTION_CANCELLED, EXECUTION_TERMINATED])
async def test_what_ended_otherwise_stays_so(client: Client, phase: ExecutionPhase.ValueType) -> None:
    execution_id = await an_execution_in(client, phase)
    before = await stored(client, execution_id)
    told = await refusal(client.executions.Recover(recover(execution_id)))
    assert (told.code, told.reason) == (PRECONDITION, "EXECUTION_TERMINAL")
    assert told.metadata["phase"] == ExecutionPhase.Name(phase)
    assert await stored(client, execution_id) == before


async def test_twenty_at_once_are_one_revision(client: Client) -> None:
    execution_id = await an_execution_in(client, EXECUTION_FAILED)
    answers = await asyncio.gather(*(client.executions.Recover(recover(execution_id)) for _ in range(20)))
    assert {answer.metadata.revision for answer in answers} == {3}


async def test_an_unknown_execution_is_not_found(client: Client) -> None:
    told = await refusal(client.executions.Recover(recover(f"aex_{NOWHERE}")))
    assert (told.code, told.reason) == (MISSING, "AGENT_EXECUTION_NOT_FOUND")


async def test_an_execution_fails_and_is_recovered_as_often_as_need_be(client: Client) -> None:
    execution_id = await an_execution(client)
    async with attached(client) as runner:
        for attempt in (1, 2, 3):
            assert (await runner.assignment()).attempt == attempt
            await fail(client, execution_id, attempt=attempt)
            await client.executions.Recover(recover(execution_id))
        assert (await runner.assignment()).attempt == 4
        done = await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED, attempt=4))
    assert await check_fold(client, execution_id) == done


async def test_whoever_has_seen_the_end_goes_on_from_there(client: Client) -> None:
    execution_id = await a_running_execution(client)
    failed = await fail(client, execution_id)
    cursor = failed.metadata.revision
    seen = WatchAgentExecutionRequest(execution_id=execution_id, after_revision=cursor)
    assert [change async for change in client.queries.Watch(seen)] == []
    await client.executions.Recover(recover(execution_id))
    watched = client.queries.Watch(seen)
    subscribed = client.queries.Subscribe(SubscribeAgentExecutionRequest(value=execution_id, after_revision=cursor))
    assert (await anext(aiter(watched))).status.phase == EXECUTION_PENDING
    assert (await anext(aiter(subscribed))).status.phase == EXECUTION_PENDING
    await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED))
    assert [change.revision async for change in watched] == [cursor + 2]
    assert [state.status.phase async for state in subscribed][-1] == EXECUTION_COMPLETED
    everything = client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id))
    terminal = [change.terminal async for change in everything]
    assert terminal == [False, False, True, False, True]


async def test_a_state_folds_from_every_snapshot_before_and_after_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        client, folds = running.client, running.server._folds  # noqa: SLF001  # a test may look
        execution_id = await a_running_execution(client)
        snapshots: list[AgentExecution] = []
        for number in range(3):
            await client.executions.UpdateStatus(token(execution_id, "x" * (100 << 10)))
            request = delta(execution_id)
            request.status.tool_calls.add(id=f"t{number}", status=TOOL_CALL_RUNNING)
            await client.executions.UpdateStatus(request)
            await fail(client, execution_id)
            await folds.settle()
            snapshot = await running.store.durable.get(STATUS_SNAPSHOT, execution_id)
            assert snapshot is not None
            snapshots.append(AgentExecution(status=snapshot.status))
            snapshots[-1].metadata.revision = snapshot.revision
            await client.executions.Recover(recover(execution_id))
            await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_IN_PROGRESS))
        state = await check_fold(client, execution_id)
        for folded in snapshots:
            fold_all(folded, await changes(client, execution_id, after=folded.metadata.revision))
            assert folded.status == state.status
    async with serving(tmp_path) as running:  # from the newest snapshot, with nothing in memory
        assert await stored(running.client, execution_id) == state


async def test_it_gets_as_much_time_as_it_had_at_first(tmp_path: Path) -> None:
    clock = FakeClock()
    async with serving(tmp_path, clock) as running:
        client = running.client
        request = execution(agent_id=await an_agent(client))
        request.spec.context.max_duration.FromTimedelta(timedelta(seconds=60))
        execution_id = (await client.executions.Create(request)).metadata.id
        for _ in range(2):
            await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_IN_PROGRESS))
            clock.advance(50)
            await fail(client, execution_id)
            clock.advance(1000)
            recovered = await client.executions.Recover(recover(execution_id))
            deadline = to_datetime(recovered.spec.context.deadline)
            assert deadline == clock.now() + timedelta(seconds=60)
            await check_fold(client, execution_id)
        recovered = await stored(client, execution_id)
        last = recovered.metadata.revision
        subscribed = client.queries.Subscribe(SubscribeAgentExecutionRequest(value=execution_id, after_revision=last))
        clock.advance(59)
        assert await stored(client, execution_id) == recovered
        clock.advance(1)
        states = [state async for state in subscribed]
    assert (states[-1].status.phase, states[-1].status.reason) == (EXECUTION_FAILED, "DEADLINE_EXCEEDED")


async def test_the_new_time_is_a_change_of_its_own_in_the_same_commit(tmp_path: Path) -> None:
    async with serving(tmp_path, FakeClock()) as running:
        client = running.client
        request = execution(agent_id=await an_agent(client))
        request.spec.context.max_duration.FromTimedelta(timedelta(seconds=60))
        execution_id = (await client.executions.Create(request)).metadata.id
        failed = await fail(client, execution_id)
        await client.executions.Recover(recover(execution_id))
        kinds = [change.WhichOneof("kind") for change in await changes(client, execution_id, failed.metadata.revision)]
        assert kinds == ["status", "updated"]
        async with attached(client) as runner:
            assert (await runner.assignment()).remaining.seconds == 60


async def test_one_recovery_and_many_reports_at_once_leave_a_whole_log(client: Client) -> None:
    execution_id = await a_running_execution(client)
    await fail(client, execution_id)
    outcomes = await asyncio.gather(
        client.executions.Recover(recover(execution_id)),
        *(client.executions.UpdateStatus(token(execution_id, f"{n} ")) for n in range(20)),
        return_exceptions=True,
    )
    taken = sum(not isinstance(outcome, BaseException) for outcome in outcomes)
    state = await check_fold(client, execution_id)
    assert state.metadata.revision == 3 + taken
