"""Cancel: at once where nobody is at work, else a request that the runner answers or whose grace period ends."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from runstream.v1.agent_execution_pb2 import (
    CHANGE_AUTHOR_SYSTEM,
    CHANGE_AUTHOR_USER,
    CONTROL_CANCEL,
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_TERMINATED,
    EXECUTION_WAITING_FOR_APPROVAL,
    EXECUTION_WAITING_FOR_INPUT,
    TOOL_CALL_INTERRUPTED,
    TOOL_CALL_RUNNING,
    AgentExecution,
    AgentExecutionStatus,
    ExecutionPhase,
)
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    SubscribeAgentExecutionRequest,
    TerminateAgentExecutionInput,
    WatchAgentExecutionRequest,
)
from runstream.v1.resource_pb2 import ResourceId
from tests.asking import abandoned, changes, check_fold, leased
from tests.attached import attached
from tests.clock import FakeClock
from tests.making import (
    NOWHERE,
    a_running_execution,
    an_agent,
    an_execution,
    an_execution_in,
    delta,
    execution,
    stored,
)
from tests.serving import INVALID, MISSING, PRECONDITION, Client, refusal, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

GRACE = 30.0


def cancel(execution_id: str, reason: str = "") -> CancelAgentExecutionInput:
    """A request to cancel."""
    return CancelAgentExecutionInput(id=execution_id, reason=reason)


async def last_state(client: Client, execution_id: str, after: int = 0) -> AgentExecution:
    """Subscribe, and return the state that the stream ends with."""
    request = SubscribeAgentExecutionRequest(value=execution_id, after_revision=after)
    states = [state async for state in client.queries.Subscribe(request)]
    return states[-1]


@pytest.mark.parametrize("phase", [EXECUTION_PENDING, EXECUTION_PAUSED])
async def test_what_nobody_works_on_ends_at_once(client: Client, phase: ExecutionPhase.ValueType) -> None:
    """A PENDING or PAUSED execution is CANCELLED by the call itself, with the caller's reason."""
    execution_id = await an_execution_in(client, phase)
    before = await stored(client, execution_id)
    answer = await client.executions.Cancel(cancel(execution_id, "not needed"))
    assert (answer.status.phase, answer.status.reason) == (EXECUTION_CANCELLED, "not needed")
    assert answer.status.completed_at
    assert not answer.status.HasField("control")
    assert answer.metadata.revision == before.metadata.revision + 1
    assert answer.status.audit.status_audit.event == "cancelled"
    assert await stored(client, execution_id) == answer


@pytest.mark.parametrize("phase", [EXECUTION_IN_PROGRESS, EXECUTION_WAITING_FOR_APPROVAL, EXECUTION_WAITING_FOR_INPUT])
async def test_what_a_runner_works_on_is_asked_to_end(client: Client, phase: ExecutionPhase.ValueType) -> None:
    """At work, the request stands in `status.control` and the phase stays."""
    execution_id = await an_execution_in(client, phase)
    answer = await client.executions.Cancel(cancel(execution_id, "changed my mind"))
    control = answer.status.control
    assert answer.status.phase == phase
    assert (control.action, control.reason) == (CONTROL_CANCEL, "changed my mind")
    assert (control.requested_by.id, control.grace.seconds) == ("anonymous", 30)
    assert control.HasField("request_time")
    assert await stored(client, execution_id) == answer


async def test_subscribers_and_watchers_see_the_request(client: Client) -> None:
    """A request to cancel reaches everyone who follows, as a state and as a change."""
    execution_id = await a_running_execution(client)
    subscribed = client.queries.Subscribe(SubscribeAgentExecutionRequest(value=execution_id, after_revision=2))
    watched = client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id, after_revision=2))
    states, changes = aiter(subscribed), aiter(watched)
    answer = await client.executions.Cancel(cancel(execution_id, "enough"))
    state, change = await anext(states), await anext(changes)
    assert state == answer
    assert (change.revision, change.author, change.control) == (3, CHANGE_AUTHOR_USER, answer.status.control)
    assert not change.terminal
    subscribed.cancel()
    watched.cancel()


async def test_the_runner_says_when_it_has_ended(client: Client) -> None:
    """CANCELLED by the runner is the end; the request is gone and its reason is that of the execution."""
    execution_id = await a_running_execution(client)
    await client.executions.Cancel(cancel(execution_id, "enough"))
    answer = await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_CANCELLED))
    assert (answer.status.phase, answer.status.reason) == (EXECUTION_CANCELLED, "enough")
    assert not answer.status.HasField("control")
    assert await last_state(client, execution_id) == answer


async def test_the_reason_of_the_request_outlives_an_earlier_one(client: Client) -> None:
    """What a runner reported as a reason while it worked does not stand for why it was cancelled."""
    execution_id = await a_running_execution(client)
    await client.executions.UpdateStatus(delta(execution_id, AgentExecutionStatus(reason="RATE_LIMITED")))
    await client.executions.Cancel(cancel(execution_id, "enough"))
    answer = await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_CANCELLED))
    assert answer.status.reason == "enough"


@pytest.mark.parametrize("phase", [EXECUTION_COMPLETED, EXECUTION_FAILED])
async def test_a_runner_that_ends_first_has_ended_it(client: Client, phase: ExecutionPhase.ValueType) -> None:
    """An end that comes before the cancel is heard counts; the request is cleared, its reason is not taken."""
    execution_id = await a_running_execution(client)
    await client.executions.Cancel(cancel(execution_id, "enough"))
    answer = await client.executions.UpdateStatus(delta(execution_id, phase=phase))
    assert answer.status.phase == phase
    assert answer.status.reason != "enough"
    assert not answer.status.HasField("control")
    told = await refusal(client.executions.Cancel(cancel(execution_id)))
    assert (told.code, told.reason) == (PRECONDITION, "EXECUTION_TERMINAL")


async def test_work_goes_on_until_the_runner_ends_it(client: Client) -> None:
    """Between the request and the end the runner's updates are taken, and the request stays visible."""
    execution_id = await a_running_execution(client)
    await client.executions.Cancel(cancel(execution_id))
    request = delta(execution_id, phase=EXECUTION_WAITING_FOR_INPUT)
    request.status.messages.add(id="m", content="cleaning up")
    answer = await client.executions.UpdateStatus(request)
    assert answer.metadata.revision == 4
    assert answer.status.control.action == CONTROL_CANCEL


async def test_a_repeated_request_changes_nothing(client: Client) -> None:
    """A second cancel, whatever its reason, answers with the state and makes no revision."""
    execution_id = await a_running_execution(client)
    first = await client.executions.Cancel(cancel(execution_id, "one"))
    again = await client.executions.Cancel(cancel(execution_id, "two"))
    assert again == first
    assert again.metadata.revision == 3


async def test_twenty_cancels_at_once_are_one_revision(client: Client) -> None:
    """Concurrent cancels are all answered, and one of them is recorded."""
    execution_id = await a_running_execution(client)
    answers = await asyncio.gather(*(client.executions.Cancel(cancel(execution_id, str(n))) for n in range(20)))
    assert all(answer == answers[0] for answer in answers)
    assert answers[0].metadata.revision == 3


async def test_a_cancelled_execution_can_be_cancelled_again(client: Client) -> None:
    """A cancel of what was cancelled is no error and no revision."""
    execution_id = await an_execution(client)
    first = await client.executions.Cancel(cancel(execution_id, "one"))
    assert await client.executions.Cancel(cancel(execution_id, "two")) == first


@pytest.mark.parametrize("phase", [EXECUTION_COMPLETED, EXECUTION_FAILED, EXECUTION_TERMINATED])
async def test_what_ended_otherwise_cannot_be_cancelled(client: Client, phase: ExecutionPhase.ValueType) -> None:
    """An execution that ended in another way is refused, naming both phases."""
    execution_id = await an_execution_in(client, phase)
    before = await stored(client, execution_id)
    told = await refusal(client.executions.Cancel(cancel(execution_id)))
    assert (told.code, told.reason) == (PRECONDITION, "EXECUTION_TERMINAL")
    assert told.metadata["phase"] == ExecutionPhase.Name(phase)
    assert "EXECUTION_CANCELLED" in told.message
    assert await stored(client, execution_id) == before


async def test_an_unknown_execution_or_a_long_reason_is_refused(client: Client) -> None:
    """Cancel needs an execution that exists and a reason of at most 1000 characters."""
    unknown = await refusal(client.executions.Cancel(cancel(f"aex_{NOWHERE}")))
    assert (unknown.code, unknown.reason) == (MISSING, "AGENT_EXECUTION_NOT_FOUND")
    long = await refusal(client.executions.Cancel(cancel(f"aex_{NOWHERE}", "x" * 1001)))
    assert (long.code, set(long.fields)) == (INVALID, {"reason"})


async def test_a_runner_that_does_not_comply_is_cut_off(tmp_path: Path) -> None:
    """When the grace period ends, the server ends the execution: CANCELLED, CANCEL_UNACKNOWLEDGED, all closed."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock) as running:
        client = running.client
        execution_id = await a_running_execution(client)
        request = delta(execution_id)
        request.status.tool_calls.add(id="t", status=TOOL_CALL_RUNNING)
        await client.executions.UpdateStatus(request)
        await client.executions.Cancel(cancel(execution_id, "enough"))
        watched = client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id, after_revision=4))
        clock.advance(GRACE)
        (change,) = [change async for change in watched]
        state = await stored(client, execution_id)
        late = await refusal(client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_CANCELLED)))
    assert (change.revision, change.author, change.terminal) == (5, CHANGE_AUTHOR_SYSTEM, True)
    assert (state.status.phase, state.status.reason) == (EXECUTION_CANCELLED, "CANCEL_UNACKNOWLEDGED")
    assert "30 s" in state.status.error
    assert "enough" in state.status.error
    assert state.status.audit.status_audit.updated_by.id == "system"
    assert state.status.tool_calls[0].status == TOOL_CALL_INTERRUPTED
    assert not state.status.HasField("control")
    assert late.reason == "EXECUTION_TERMINAL"


async def test_the_grace_period_is_a_setting(tmp_path: Path) -> None:
    """The grace period of the settings is told in the request and is the one that counts."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock, cancel_grace=2.5) as running:
        execution_id = await a_running_execution(running.client)
        answer = await running.client.executions.Cancel(cancel(execution_id))
        assert answer.status.control.grace.ToMilliseconds() == 2500
        clock.advance(2.5)
        state = await last_state(running.client, execution_id, after=3)
    assert state.status.reason == "CANCEL_UNACKNOWLEDGED"


async def test_the_end_of_the_grace_period_leaves_what_has_ended(tmp_path: Path) -> None:
    """A runner that ended in time is not touched when the grace period is over; others are, in their turn."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock) as running:
        client = running.client
        done = await a_running_execution(client, agent="done")
        stuck = await a_running_execution(client, agent="stuck")
        await client.executions.Cancel(cancel(done))
        clock.advance(1)
        await client.executions.Cancel(cancel(stuck))
        ended = await client.executions.UpdateStatus(delta(done, phase=EXECUTION_COMPLETED))
        clock.advance(GRACE)
        forced = await last_state(client, stuck, after=3)
        assert await stored(client, done) == ended
    assert forced.status.reason == "CANCEL_UNACKNOWLEDGED"


async def test_the_grace_period_of_what_is_deleted_ends_with_it(tmp_path: Path) -> None:
    """Once it is deleted, nothing of an execution is left to enforce, and enforcing it is harmless."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock) as running:
        client = running.client
        gone = await a_running_execution(client, agent="gone")
        stuck = await a_running_execution(client, agent="stuck")
        with capture_logs() as logs:
            await client.executions.Cancel(cancel(gone))
            await client.executions.Delete(ResourceId(value=gone))
            await client.executions.Cancel(cancel(stuck))
            clock.advance(GRACE)
            forced = await last_state(client, stuck, after=3)
            for execution_id in (gone, stuck):  # as when a deadline and an end cross each other
                await running.controls.enforce_cancel(execution_id)
        assert await stored(client, stuck) == forced
    assert logs == []


async def test_a_restart_begins_the_grace_period_anew(tmp_path: Path) -> None:
    """A cancel that a server left is enforced by the next one, after the whole grace period that it told."""
    async with serving(tmp_path / "data", FakeClock()) as running:
        execution_id = await a_running_execution(running.client)
        cancelled = await running.client.executions.Cancel(cancel(execution_id))
    clock = FakeClock()
    async with serving(tmp_path / "data", clock, cancel_grace=1) as running:  # for the cancels to come
        assert await stored(running.client, execution_id) == cancelled
        await clock.awaited(GRACE)
        clock.advance(GRACE)
        state = await last_state(running.client, execution_id, after=3)
    assert (state.status.phase, state.status.reason) == (EXECUTION_CANCELLED, "CANCEL_UNACKNOWLEDGED")


async def test_terminate_ends_what_was_asked_to_cancel(client: Client) -> None:
    """Somebody who does not want to wait for the grace period can terminate; the request is cleared."""
    execution_id = await a_running_execution(client)
    await client.executions.Cancel(cancel(execution_id, "please"))
    answer = await client.executions.Terminate(TerminateAgentExecutionInput(id=execution_id, reason="now"))
    assert (answer.status.phase, answer.status.reason) == (EXECUTION_TERMINATED, "now")
    assert not answer.status.HasField("control")


@pytest.mark.parametrize("phase", [EXECUTION_WAITING_FOR_APPROVAL, EXECUTION_WAITING_FOR_INPUT])
async def test_what_waits_for_a_person_without_a_runner_ends_at_once(
    client: Client, phase: ExecutionPhase.ValueType
) -> None:
    """An execution whose runner has gone while it waits is CANCELLED by the call itself."""
    execution_id = await abandoned(client, phase, "t")
    answer = await client.executions.Cancel(cancel(execution_id, "not needed"))
    assert (answer.status.phase, answer.status.reason) == (EXECUTION_CANCELLED, "not needed")
    assert answer.status.tool_calls[0].status == TOOL_CALL_INTERRUPTED
    await check_fold(client, execution_id)


async def test_a_cancel_that_loses_its_runner_is_done(client: Client) -> None:
    """A runner that goes while it has been asked to end leaves nothing to wait for."""
    async with leased(client) as held:
        await client.executions.Cancel(cancel(held.id, "enough"))
        command = (await held.runner.command("cancel")).cancel
        assert (command.reason, command.grace.seconds, command.deadline_exceeded) == ("enough", GRACE, False)
        await held.runner.detach()
    state = await check_fold(client, held.id)
    assert (state.status.phase, state.status.reason) == (EXECUTION_CANCELLED, "enough")


async def test_a_cancel_and_an_end_at_once_leave_one_truth(client: Client) -> None:
    """Of a cancel and an end by the runner at the same moment, the end stands, and nothing is asked any more."""
    for number in range(10):
        execution_id = await a_running_execution(client, agent=f"agent {number}")
        asked, ended = await asyncio.gather(
            client.executions.Cancel(cancel(execution_id)),
            client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED)),
            return_exceptions=True,
        )
        state = await check_fold(client, execution_id)
        assert state == ended
        assert state.metadata.revision == (3 if isinstance(asked, BaseException) else 4)
        assert not state.status.HasField("control")


@asynccontextmanager
async def overdue(tmp_path: Path, clock: FakeClock) -> AsyncIterator[tuple[Client, AgentExecution]]:
    """Serve an execution, leased to a runner, whose deadline has just asked it to end; revision 3."""
    async with serving(tmp_path / "data", clock, lease_duration=3600) as running:
        client = running.client
        request = execution(agent_id=await an_agent(client))
        request.spec.context.max_duration.seconds = 60
        execution_id = (await client.executions.Create(request)).metadata.id
        async with attached(client) as runner:
            await runner.assignment()
            clock.advance(60)
            assert (await runner.command("cancel")).cancel.deadline_exceeded
            yield client, await stored(client, execution_id)


async def test_a_person_cannot_hurry_what_the_deadline_has_asked_to_end(tmp_path: Path) -> None:
    """A cancel of what its deadline has asked to end already changes nothing."""
    async with overdue(tmp_path, FakeClock()) as (client, asked):
        assert asked.status.control.deadline_exceeded
        assert await client.executions.Cancel(cancel(asked.metadata.id, "me too")) == asked


@pytest.mark.parametrize("said", [EXECUTION_CANCELLED, EXECUTION_PAUSED])
async def test_a_runner_that_ends_for_the_deadline_has_failed(tmp_path: Path, said: ExecutionPhase.ValueType) -> None:
    """Whatever a runner calls the end that its deadline has asked for, it is FAILED, DEADLINE_EXCEEDED."""
    async with overdue(tmp_path, FakeClock()) as (client, asked):
        report = delta(asked.metadata.id, phase=said, attempt=1)
        report.status.tool_calls.add(id="t", status=TOOL_CALL_RUNNING)
        state = await client.executions.UpdateStatus(report)
        assert (state.status.phase, state.status.reason) == (EXECUTION_FAILED, "DEADLINE_EXCEEDED")
        assert state.status.error
        assert state.status.tool_calls[0].status == TOOL_CALL_INTERRUPTED
        await check_fold(client, asked.metadata.id)


async def test_a_runner_that_is_done_when_the_deadline_asks_has_completed(tmp_path: Path) -> None:
    """An end that the runner reaches by itself within the grace period counts."""
    async with overdue(tmp_path, FakeClock()) as (client, asked):
        state = await client.executions.UpdateStatus(delta(asked.metadata.id, phase=EXECUTION_COMPLETED, attempt=1))
    assert (state.status.phase, state.status.reason) == (EXECUTION_COMPLETED, "")


async def test_a_runner_that_ignores_the_deadline_is_cut_off(tmp_path: Path) -> None:
    """When the grace period of a deadline ends, the server ends the execution: FAILED, DEADLINE_EXCEEDED."""
    clock = FakeClock()
    async with overdue(tmp_path, clock) as (client, asked):
        clock.advance(GRACE)
        state = await last_state(client, asked.metadata.id, after=asked.metadata.revision)
        (change,) = await changes(client, asked.metadata.id, after=asked.metadata.revision)
    assert (state.status.phase, state.status.reason) == (EXECUTION_FAILED, "DEADLINE_EXCEEDED")
    assert "30 s" in state.status.error
    assert (change.author, change.terminal) == (CHANGE_AUTHOR_SYSTEM, True)
    assert state.status.audit.status_audit.event == "deadline_exceeded"
