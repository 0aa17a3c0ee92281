"""Deadlines: how long an execution may take, and what happens when it takes longer."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from runstream.model.times import to_datetime, to_timestamp
from runstream.v1.agent_execution_pb2 import (
    CHANGE_AUTHOR_SYSTEM,
    CONTROL_CANCEL,
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_WAITING_FOR_INPUT,
    AgentExecution,
    ExecutionPhase,
)
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    PauseAgentExecutionInput,
    RecoverAgentExecutionInput,
    WatchAgentExecutionRequest,
)
from runstream.v1.resource_pb2 import ResourceId
from runstream.v1.runner_pb2 import AttachRequest, DetachRequest
from runstream.v1.runner_pb2_grpc import RunnerControllerStub
from tests.clock import START, FakeClock
from tests.families import asked_to_end, below, end_of, until
from tests.making import agent, an_agent, delta, execution, stored
from tests.serving import Client, Serving, serving

if TYPE_CHECKING:
    from pathlib import Path

GRACE = 30.0
MINUTE = 60.0
HOUR = timedelta(hours=1)


async def limited(
    client: Client,
    seconds: float | None = MINUTE,
    *,
    agents: float | None = None,
    name: str = "survey",
    parent: str = "",
) -> AgentExecution:
    """Create an execution with a limit of its own, of a new agent with one."""
    request = agent(name)
    if agents is not None:
        request.spec.max_duration.FromMilliseconds(int(agents * 1000))
    made = await client.agents.Create(request)
    wanted = below(parent, made.metadata.id, call="call" if parent else "")
    if seconds is not None:
        wanted.spec.context.max_duration.FromMilliseconds(int(seconds * 1000))
    return await client.executions.Create(wanted)


async def limited_in(client: Client, phase: ExecutionPhase.ValueType, name: str = "survey", parent: str = "") -> str:
    """Create an execution with a limit of a minute and take it to a phase; return its id."""
    made = await limited(client, name=name, parent=parent)
    steps = {EXECUTION_PENDING: [], EXECUTION_WAITING_FOR_INPUT: [EXECUTION_IN_PROGRESS, phase]}
    for step in steps.get(phase, [phase]):
        await client.executions.UpdateStatus(delta(made.metadata.id, phase=step))
    return made.metadata.id


def seconds_of(made: AgentExecution) -> float | None:
    """How long after its creation an execution must have ended; None when it has no deadline."""
    context, created = made.spec.context, made.status.audit.spec_audit.created_at
    if not context.HasField("deadline"):
        return None
    return (to_datetime(context.deadline) - to_datetime(created)).total_seconds()


@pytest.mark.parametrize(
    ("own", "agents", "expected"), [(None, None, None), (5, None, 5), (None, 7, 7), (5, 7, 5), (7.25, 5.5, 5.5)]
)
async def test_the_shorter_limit_counts(
    client: Client, own: float | None, agents: float | None, expected: float | None
) -> None:
    """The deadline is as long after the creation as the shorter of the two limits; without any there is none."""
    made = await limited(client, own, agents=agents)
    assert seconds_of(made) == expected
    assert await stored(client, made.metadata.id) == made
    in_session = await client.executions.Create(execution(session_id=made.spec.session_id))
    assert seconds_of(in_session) == agents
    alone = await client.executions.Create(execution(agent_id=made.spec.agent_id, stateless=True))
    assert seconds_of(alone) == agents


async def test_a_client_cannot_say_the_deadline(client: Client) -> None:
    """The deadline is the server's: sent with Create or Update, it is ignored."""
    request = execution(agent_id=await an_agent(client))
    request.spec.context.deadline.CopyFrom(to_timestamp(START))
    assert seconds_of(await client.executions.Create(request)) is None
    made = await limited(client, 5, name="other")
    update = AgentExecution()
    update.CopyFrom(made)
    update.spec.context.deadline.CopyFrom(to_timestamp(START))
    update.spec.context.max_duration.seconds = 900
    assert seconds_of(await client.executions.Update(update)) == 5


async def test_no_deadline_is_after_the_parents(tmp_path: Path) -> None:
    """A child has what its parent has left, or less; at any level, by its own limit or without one."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock) as running:
        client = running.client
        root = await limited(client, 100)
        clock.advance(40)
        heir = await limited(client, None, name="heir", parent=root.metadata.id)
        longer = await limited(client, 70, name="longer", parent=root.metadata.id)
        shorter = await limited(client, 10, name="shorter", parent=root.metadata.id)
        grandchild = await limited(client, 30, name="grandchild", parent=shorter.metadata.id)
        free = await limited(client, None, name="free")
        child_of_free = await limited(client, 20, name="child", parent=free.metadata.id)
    assert [seconds_of(made) for made in (heir, longer, shorter, grandchild)] == [60, 60, 10, 10]
    assert heir.spec.context.deadline == root.spec.context.deadline
    assert (seconds_of(free), seconds_of(child_of_free)) == (None, 20)


@pytest.mark.parametrize("phase", [EXECUTION_PENDING, EXECUTION_PAUSED])
async def test_what_nobody_works_on_fails_at_its_deadline(tmp_path: Path, phase: ExecutionPhase.ValueType) -> None:
    """PENDING or PAUSED, it has FAILED with the deadline, in one change by the server that tells the limit."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock) as running:
        execution_id = await limited_in(running.client, phase)
        before = await stored(running.client, execution_id)
        clock.advance(MINUTE - 0.001)
        assert running.server._time_limits.remaining(execution_id) == pytest.approx(0.001)  # noqa: SLF001
        clock.advance(0.001)
        ended = await end_of(running.client, execution_id)
        request = WatchAgentExecutionRequest(execution_id=execution_id, after_revision=before.metadata.revision)
        (change,) = [change async for change in running.client.queries.Watch(request)]
    assert (ended.status.phase, ended.status.reason) == (EXECUTION_FAILED, "DEADLINE_EXCEEDED")
    assert "2026-03-01T12:01:00.000Z" in ended.status.error
    assert (change.author, change.terminal) == (CHANGE_AUTHOR_SYSTEM, True)
    audit = ended.status.audit.status_audit
    assert (audit.updated_by.id, audit.event) == ("system", "deadline_exceeded")


@pytest.mark.parametrize("phase", [EXECUTION_IN_PROGRESS, EXECUTION_WAITING_FOR_INPUT])
async def test_whoever_is_at_work_is_asked_to_end(tmp_path: Path, phase: ExecutionPhase.ValueType) -> None:
    """At work, the request says that the deadline asks; after the grace period the execution has FAILED."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock) as running:
        client = running.client
        execution_id = await limited_in(client, phase)
        clock.advance(MINUTE)
        asked = await asked_to_end(client, execution_id)
        control = asked.status.control
        assert (asked.status.phase, control.action, control.deadline_exceeded) == (phase, CONTROL_CANCEL, True)
        assert (control.reason, control.requested_by.id) == ("DEADLINE_EXCEEDED", "system")
        assert control.grace.seconds == GRACE
        await clock.awaited(GRACE)
        clock.advance(GRACE)
        ended = await end_of(client, execution_id)
    assert (ended.status.phase, ended.status.reason) == (EXECUTION_FAILED, "DEADLINE_EXCEEDED")
    assert not ended.status.HasField("control")


async def test_a_runner_that_completes_in_the_grace_period_has_completed(tmp_path: Path) -> None:
    """The request of a deadline is one: whoever ends the work before it is heard has ended it."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock) as running:
        execution_id = await limited_in(running.client, EXECUTION_IN_PROGRESS)
        clock.advance(MINUTE)
        await asked_to_end(running.client, execution_id)
        done = await running.client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED))
        assert done.status.phase == EXECUTION_COMPLETED


async def test_what_lost_its_runner_while_it_waits_fails(tmp_path: Path) -> None:
    """Waiting for a person with its runner gone, nobody can be asked: it has FAILED with the deadline."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock) as running:
        client = running.client
        made = await limited(client)
        runner = RunnerControllerStub(client.channel)
        stream = runner.Attach(AttachRequest(runner_id="r", capacity=1))
        async for command in stream:
            if command.HasField("assign"):
                break
        assert command.assign.remaining.seconds == MINUTE
        execution_id = made.metadata.id
        await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_WAITING_FOR_INPUT, attempt=1))
        await runner.Detach(DetachRequest(runner_id="r"))
        stream.cancel()
        assert (await stored(client, execution_id)).status.phase == EXECUTION_WAITING_FOR_INPUT
        clock.advance(MINUTE)
        ended = await end_of(client, execution_id)
    assert (ended.status.phase, ended.status.reason) == (EXECUTION_FAILED, "DEADLINE_EXCEEDED")


async def test_a_runner_is_told_that_the_deadline_asks(tmp_path: Path) -> None:
    """The command to end says so, and what the runner then calls CANCELLED has FAILED."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock, lease_duration=3600) as running:
        client = running.client
        made = await limited(client)
        runner = RunnerControllerStub(client.channel)
        stream = runner.Attach(AttachRequest(runner_id="r", capacity=1))
        async for command in stream:
            if command.HasField("assign"):
                clock.advance(MINUTE)
            elif command.HasField("cancel"):
                break
        assert (command.cancel.deadline_exceeded, command.cancel.reason) == (True, "DEADLINE_EXCEEDED")
        assert command.cancel.grace.seconds == GRACE
        request = delta(made.metadata.id, phase=EXECUTION_CANCELLED, attempt=1)
        ended = await client.executions.UpdateStatus(request)
        stream.cancel()
    assert (ended.status.phase, ended.status.reason) == (EXECUTION_FAILED, "DEADLINE_EXCEEDED")


async def test_a_cancel_that_was_asked_for_before_stays(tmp_path: Path) -> None:
    """The deadline leaves the request of a person as it is: the end is theirs."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock) as running:
        client = running.client
        execution_id = await limited_in(client, EXECUTION_IN_PROGRESS)
        clock.advance(MINUTE - 10)
        asked = await client.executions.Cancel(CancelAgentExecutionInput(id=execution_id, reason="enough"))
        clock.advance(10)
        await running.server._time_limits._deadlines.run_due()  # noqa: SLF001  # what the loop is about to do, or does
        assert await stored(client, execution_id) == asked
        clock.advance(GRACE - 10)
        ended = await end_of(client, execution_id)
    assert (ended.status.phase, ended.status.reason) == (EXECUTION_CANCELLED, "CANCEL_UNACKNOWLEDGED")


async def test_a_pause_that_was_asked_for_is_replaced(tmp_path: Path) -> None:
    """A runner that was to halt has to end instead."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock) as running:
        client = running.client
        execution_id = await limited_in(client, EXECUTION_IN_PROGRESS)
        await client.executions.Pause(PauseAgentExecutionInput(id=execution_id))
        clock.advance(MINUTE)
        asked = await until(client, execution_id, lambda state: state.status.control.action == CONTROL_CANCEL)
    assert asked.status.control.deadline_exceeded


async def test_what_has_ended_or_is_gone_has_no_deadline(tmp_path: Path) -> None:
    """Its timer goes with it, and enforcing it nevertheless is harmless."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock) as running:
        client, limits = running.client, running.server._time_limits  # noqa: SLF001
        done = await limited_in(client, EXECUTION_IN_PROGRESS, name="done")
        gone = await limited_in(client, EXECUTION_IN_PROGRESS, name="gone")
        assert [limits.remaining(name) for name in (done, gone)] == [MINUTE, MINUTE]
        ended = await client.executions.UpdateStatus(delta(done, phase=EXECUTION_COMPLETED))
        await client.executions.Delete(ResourceId(value=gone))
        assert [limits.remaining(name) for name in (done, gone)] == [None, None]
        clock.advance(2 * MINUTE)
        for name in (done, gone):
            await limits._deadlines._due(name)  # noqa: SLF001  # as when a deadline and an end cross each other
        assert await stored(client, done) == ended


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_a_jump_of_the_wall_clock_changes_nothing(tmp_path: Path, jump: timedelta) -> None:
    """Neither sooner nor later: what counts is the time that passes. A child made after the jump has the parent's."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock) as running:
        client, limits = running.client, running.server._time_limits  # noqa: SLF001
        execution_id = await limited_in(client, EXECUTION_IN_PROGRESS)
        clock.advance(20)
        clock.set_now(clock.now() + jump)
        heir = (await limited(client, None, name="heir", parent=execution_id)).metadata.id
        await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_WAITING_FOR_INPUT))
        assert [limits.remaining(name) for name in (execution_id, heir)] == [40, 40]
        clock.advance(39)
        assert (await stored(client, heir)).status.phase == EXECUTION_PENDING
        clock.advance(1)
        assert (await asked_to_end(client, execution_id)).status.control.deadline_exceeded
        assert (await end_of(client, heir)).status.reason in {"DEADLINE_EXCEEDED", "PARENT_CANCELLED"}
        assert limits.remaining(execution_id) == 0


@pytest.mark.parametrize(
    ("away", "left"),
    [(timedelta(seconds=20), 40), (timedelta(), 60), (-HOUR, 60), (timedelta(seconds=59), 1)],
)
async def test_a_restart_goes_on_with_what_is_left(tmp_path: Path, away: timedelta, left: float) -> None:
    """The next server goes by the wall clock, but gives no more than there was at first when that was set back."""
    async with serving(tmp_path / "data", FakeClock()) as running:
        execution_id = await limited_in(running.client, EXECUTION_IN_PROGRESS)
        before = await stored(running.client, execution_id)
    clock = FakeClock(START + away)
    async with serving(tmp_path / "data", clock) as running:
        limits = running.server._time_limits  # noqa: SLF001
        assert limits.remaining(execution_id) == left
        assert await stored(running.client, execution_id) == before
        await clock.awaited(left)
        clock.advance(left)
        assert (await asked_to_end(running.client, execution_id)).status.control.deadline_exceeded


async def test_a_deadline_that_passed_while_no_server_ran_is_enforced_at_once(tmp_path: Path) -> None:
    """What is overdue at the start ends then; what was asked to end before has its whole grace period."""
    async with serving(tmp_path / "data", FakeClock()) as running:
        pending = await limited_in(running.client, EXECUTION_PENDING, name="pending")
        running_one = await limited_in(running.client, EXECUTION_IN_PROGRESS, name="running")
    clock = FakeClock(START + HOUR)
    async with serving(tmp_path / "data", clock) as running:
        assert (await end_of(running.client, pending)).status.reason == "DEADLINE_EXCEEDED"
        await asked_to_end(running.client, running_one)
    clock = FakeClock(START + 2 * HOUR)
    async with serving(tmp_path / "data", clock) as running:
        await clock.awaited(GRACE)
        state = await stored(running.client, running_one)
        assert state.status.control.deadline_exceeded
        assert state.metadata.revision == 3, "it is not asked twice"
        clock.advance(GRACE)
        ended = await end_of(running.client, running_one)
    assert (ended.status.phase, ended.status.reason) == (EXECUTION_FAILED, "DEADLINE_EXCEEDED")


async def test_a_slow_end_holds_up_no_other(tmp_path: Path) -> None:
    """A hundred that fall due together all end."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock) as running:
        client = running.client
        made = await limited(client)
        ids = [made.metadata.id]
        for _ in range(100):
            request = below("", made.spec.agent_id, call="")
            request.spec.context.max_duration.seconds = int(MINUTE)
            ids.append((await client.executions.Create(request)).metadata.id)
        clock.advance(MINUTE)
        for execution_id in ids:
            assert (await end_of(client, execution_id)).status.reason == "DEADLINE_EXCEEDED"


async def test_what_is_recovered_has_as_much_time_as_at_first(tmp_path: Path) -> None:
    """Recover begins a new deadline, as often as it is called, and not after that of the parent."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock) as running:
        client, limits = running.client, running.server._time_limits  # noqa: SLF001
        parent = await limited(client, 200, name="parent")
        alone = await limited_in(client, EXECUTION_PENDING, name="alone")
        child = await limited_in(client, EXECUTION_PENDING, name="child", parent=parent.metadata.id)
        for rest, left in ((0, MINUTE), (40, 40)):
            clock.advance(MINUTE)
            for execution_id in (alone, child):
                assert (await end_of(client, execution_id)).status.reason == "DEADLINE_EXCEEDED"
            clock.advance(rest)
            for execution_id in (alone, child):
                await client.executions.Recover(RecoverAgentExecutionInput(id=execution_id))
            assert [limits.remaining(name) for name in (alone, child)] == [MINUTE, left]
            assert limits.remaining(parent.metadata.id) == 200 - MINUTE - (MINUTE + rest if rest else 0)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_what_is_recovered_after_a_jump_of_the_wall_clock_has_its_time(tmp_path: Path, jump: timedelta) -> None:
    """However the clock was set meanwhile, and whatever server goes on with it."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock) as running:
        execution_id = await limited_in(running.client, EXECUTION_FAILED)
        clock.set_now(clock.now() + jump)
        await running.client.executions.Recover(RecoverAgentExecutionInput(id=execution_id))
        assert running.server._time_limits.remaining(execution_id) == MINUTE  # noqa: SLF001
    async with serving(tmp_path / "data", FakeClock(START + jump)) as running:
        assert running.server._time_limits.remaining(execution_id) == MINUTE  # noqa: SLF001


async def test_only_live_executions_with_a_limit_are_kept_in_mind(running: Serving) -> None:
    """Those without a deadline, and those that have ended, take no memory."""
    client, limits = running.client, running.server._time_limits  # noqa: SLF001
    await limited_in(client, EXECUTION_COMPLETED, name="done")
    await limited(client, None, name="free")
    live = await limited(client, 60, name="live")
    assert set(limits._known) == {live.metadata.id}  # noqa: SLF001
    assert len(limits._deadlines) == 1  # noqa: SLF001
