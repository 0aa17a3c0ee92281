"""The time to decide: what the runner wants to be decided when nobody does, by a clock that no jump moves."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from runstream.model.times import to_datetime
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_APPROVE,
    APPROVAL_REJECT,
    APPROVAL_SKIP,
    CHANGE_AUTHOR_SYSTEM,
    EXECUTION_COMPLETED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_WAITING_FOR_APPROVAL,
    TOOL_CALL_FAILED,
    TOOL_CALL_PENDING,
    TOOL_CALL_SKIPPED,
    TOOL_CALL_WAITING_APPROVAL,
    AgentExecution,
    ApprovalAction,
    ToolCallStatus,
)
from runstream.v1.agent_execution_service_pb2 import SubscribeAgentExecutionRequest
from runstream.v1.resource_pb2 import ResourceId
from tests.asking import changes, check_fold, decision, leased, pause, question
from tests.attached import attached
from tests.clock import START, FakeClock
from tests.making import a_running_execution, delta, stored
from tests.serving import INVALID, Client, refusal, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.serving import Serving


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()


@pytest.fixture
async def timed(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Serving]:
    """A running server by that clock."""
    async with serving(tmp_path / "data", clock) as made:
        yield made


async def asking(
    client: Client, *call_ids: str, seconds: float = 30, default: ApprovalAction.ValueType = APPROVAL_REJECT
) -> AgentExecution:
    """Create an execution driven from outside that asks, for so long; return it."""
    execution_id = await a_running_execution(client, agent=f"agent {'-'.join(call_ids)}")
    return await client.executions.UpdateStatus(question(execution_id, *call_ids, seconds=seconds, default=default))


async def next_state(client: Client, after: AgentExecution) -> AgentExecution:
    """Return the state of an execution once it is a newer one."""
    request = SubscribeAgentExecutionRequest(value=after.metadata.id, after_revision=after.metadata.revision)
    subscribed = client.queries.Subscribe(request)
    state = await anext(aiter(subscribed))
    subscribed.cancel()
    return state


@pytest.mark.parametrize(
    ("default", "status", "error"),
    [
        (APPROVAL_APPROVE, TOOL_CALL_PENDING, ""),
        (APPROVAL_SKIP, TOOL_CALL_SKIPPED, ""),
        (APPROVAL_REJECT, TOOL_CALL_SKIPPED, "Rejected by system: nobody decided in time."),
    ],
)
async def test_what_nobody_decides_is_decided_by_the_system(
    timed: Serving,
    clock: FakeClock,
    default: ApprovalAction.ValueType,
    status: ToolCallStatus.ValueType,
    error: str,
) -> None:
    asked = await asking(timed.client, "a call", default=default)
    approval = asked.status.tool_calls[0].approval
    assert to_datetime(approval.expire_time) == START + timedelta(seconds=30)
    clock.advance(29.9)
    assert await stored(timed.client, asked.metadata.id) == asked
    clock.advance(0.1)
    state = await next_state(timed.client, asked)
    (call,) = state.status.tool_calls
    assert state.status.phase == EXECUTION_IN_PROGRESS
    assert (call.status, call.error, call.approval.action) == (status, error, default)
    assert (call.approval.decided_by.id, call.approval.comment) == ("system", "")
    assert to_datetime(call.approval.decide_time) == clock.now()
    change = (await changes(timed.client, asked.metadata.id, after=asked.metadata.revision))[0]
    assert change.author == CHANGE_AUTHOR_SYSTEM
    await check_fold(timed.client, asked.metadata.id)


async def test_a_runner_hears_what_time_has_decided(timed: Serving, clock: FakeClock) -> None:
    async with leased(timed.client) as lease:
        await timed.client.executions.UpdateStatus(
            question(lease.id, "t", attempt=1, seconds=10, default=APPROVAL_SKIP)
        )
        clock.advance(10)
        told = (await lease.runner.command("approval")).approval
    assert (told.action, told.decided_by.id) == (APPROVAL_SKIP, "system")


async def test_every_call_has_its_own_time(timed: Serving, clock: FakeClock) -> None:
    asked = await asking(timed.client, "early", seconds=10)
    execution_id = asked.metadata.id
    asked = await timed.client.executions.UpdateStatus(
        question(execution_id, "late", seconds=20, default=APPROVAL_APPROVE)
    )
    asked = await timed.client.executions.UpdateStatus(question(execution_id, "never", default=APPROVAL_REJECT))
    clock.advance(10)
    one = await next_state(timed.client, asked)
    clock.advance(10)
    two = await next_state(timed.client, one)
    clock.advance(10**8)
    actions = [call.approval.action for call in two.status.tool_calls]
    assert actions == [APPROVAL_REJECT, APPROVAL_APPROVE, 0]
    assert two.status.phase == EXECUTION_WAITING_FOR_APPROVAL
    assert await stored(timed.client, execution_id) == two


async def test_a_decision_in_time_stands(timed: Serving, clock: FakeClock) -> None:
    asked = await asking(timed.client, "t")
    made = await timed.client.executions.SubmitApproval(decision(asked.metadata.id, "t", APPROVAL_APPROVE))
    other = await asking(timed.client, "u")
    clock.advance(30)
    await next_state(timed.client, other)
    assert await stored(timed.client, asked.metadata.id) == made


async def test_a_question_that_is_repeated_has_no_more_time(timed: Serving, clock: FakeClock) -> None:
    asked = await asking(timed.client, "t")
    clock.advance(20)
    repeated = question(asked.metadata.id, "t", seconds=30, default=APPROVAL_APPROVE)
    again = await timed.client.executions.UpdateStatus(repeated)
    assert again.status.tool_calls[0].approval == asked.status.tool_calls[0].approval
    clock.advance(10)
    state = await next_state(timed.client, again)
    assert state.status.tool_calls[0].approval.action == APPROVAL_REJECT


async def test_a_question_that_is_taken_back_and_asked_anew_has_its_own_time(timed: Serving, clock: FakeClock) -> None:
    asked = await asking(timed.client, "t")
    taken_back = delta(asked.metadata.id, phase=EXECUTION_IN_PROGRESS)
    taken_back.status.tool_calls.add(id="t", status=TOOL_CALL_FAILED)
    await timed.client.executions.UpdateStatus(taken_back)
    clock.advance(20)
    again = await timed.client.executions.UpdateStatus(
        question(asked.metadata.id, "t", seconds=30, default=APPROVAL_SKIP)
    )
    # As when the earlier time and the question cross each other.
    first = asked.status.tool_calls[0].approval.expire_time.ToNanoseconds()
    await timed.controls.decide_by_default(f"{asked.metadata.id} {first} t")
    clock.advance(10)
    assert await stored(timed.client, asked.metadata.id) == again
    clock.advance(20)
    state = await next_state(timed.client, again)
    assert state.status.tool_calls[0].approval.action == APPROVAL_SKIP


async def test_the_time_of_what_ends_or_is_deleted_ends_with_it(timed: Serving, clock: FakeClock) -> None:
    client = timed.client
    ended, gone, last = [await asking(client, call_id) for call_id in ("ended", "gone", "last")]
    with capture_logs() as logs:
        state = await client.executions.UpdateStatus(delta(ended.metadata.id, phase=EXECUTION_COMPLETED))
        await client.executions.Delete(ResourceId(value=gone.metadata.id))
        clock.advance(30)
        await next_state(client, last)
        for asked, call_id in ((ended, "ended"), (gone, "gone")):  # as when both cross each other
            expires = asked.status.tool_calls[0].approval.expire_time.ToNanoseconds()
            await timed.controls.decide_by_default(f"{asked.metadata.id} {expires} {call_id}")
    assert await stored(client, ended.metadata.id) == state
    assert logs == []


async def test_time_decides_without_a_runner_and_about_what_is_paused(timed: Serving, clock: FakeClock) -> None:
    client = timed.client
    async with leased(client, "lost") as first:
        await client.executions.UpdateStatus(question(first.id, "t", attempt=1, seconds=10, default=APPROVAL_APPROVE))
        await first.runner.detach()
    async with leased(client, "paused", "runner-2") as second:
        await client.executions.UpdateStatus(question(second.id, "t", attempt=1, seconds=10, default=APPROVAL_APPROVE))
        await second.runner.detach()
    waiting, paused = await stored(client, first.id), await client.executions.Pause(pause(second.id))
    clock.advance(10)
    queued, still = await next_state(client, waiting), await next_state(client, paused)
    assert (queued.status.phase, still.status.phase) == (EXECUTION_PENDING, EXECUTION_PAUSED)
    assert still.status.tool_calls[0].status == TOOL_CALL_PENDING
    async with attached(client, "next") as runner:
        assert (await runner.assignment()).resume_from


async def test_a_person_and_time_at_once_decide_once(timed: Serving) -> None:
    for number in range(10):
        asked = await asking(timed.client, f"t{number}")
        call = asked.status.tool_calls[0]
        name = f"{asked.metadata.id} {call.approval.expire_time.ToNanoseconds()} {call.id}"
        made, _ = await asyncio.gather(
            timed.client.executions.SubmitApproval(decision(asked.metadata.id, call.id, APPROVAL_APPROVE)),
            timed.controls.decide_by_default(name),
            return_exceptions=True,
        )
        state = await check_fold(timed.client, asked.metadata.id)
        by_time = isinstance(made, BaseException)
        assert state.status.tool_calls[0].approval.action == (APPROVAL_REJECT if by_time else APPROVAL_APPROVE)
        assert state.metadata.revision == asked.metadata.revision + 1


@pytest.mark.parametrize(("away", "left"), [(0, 30), (20, 10), (100, 0), (-3600, 30)])
async def test_a_restart_goes_on_with_the_time_that_is_left(tmp_path: Path, away: float, left: float) -> None:
    async with serving(tmp_path / "data", FakeClock()) as running:
        asked = await asking(running.client, "t")
    clock = FakeClock(START + timedelta(seconds=away))
    async with serving(tmp_path / "data", clock) as running:
        if left:
            await clock.awaited(left)
            assert await stored(running.client, asked.metadata.id) == asked
            clock.advance(left)
        state = await next_state(running.client, asked)
    assert state.status.tool_calls[0].approval.action == APPROVAL_REJECT


async def test_a_jump_of_the_wall_clock_decides_nothing(timed: Serving, clock: FakeClock) -> None:
    asked = await asking(timed.client, "t")
    clock.set_now(START + timedelta(days=365))
    clock.advance(29)
    assert await stored(timed.client, asked.metadata.id) == asked
    clock.set_now(START - timedelta(days=365))
    clock.advance(1)
    assert (await next_state(timed.client, asked)).status.phase == EXECUTION_IN_PROGRESS


async def test_a_time_without_a_default_is_refused(timed: Serving) -> None:
    execution_id = await a_running_execution(timed.client)
    before = await stored(timed.client, execution_id)
    request = question(execution_id, "free")
    request.status.tool_calls.add(id="t", status=TOOL_CALL_WAITING_APPROVAL).approval.timeout.seconds = 5
    told = await refusal(timed.client.executions.UpdateStatus(request))
    assert (told.code, told.reason) == (INVALID, "APPROVAL_DEFAULT_REQUIRED")
    assert set(told.fields) == {"status.tool_calls[1].approval.default_action"}
    assert await stored(timed.client, execution_id) == before
