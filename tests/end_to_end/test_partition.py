"""Runners that the network, or their own slowness, keeps from the server in part: nothing is lost, doubled or stuck."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from runstream.v1.agent_execution_pb2 import (
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
)
from runstream.v1.agent_execution_service_pb2 import CancelAgentExecutionInput, WatchAgentExecutionRequest
from runstream.v1.runner_pb2 import AttachRequest, HeartbeatRequest
from runstream.v1.runner_pb2_grpc import RunnerControllerStub
from tests.asking import changes
from tests.attached import attached, held
from tests.end_to_end.blocked import BlockedPath, path_to
from tests.end_to_end.numbered import STARTS_OVER, Plan
from tests.end_to_end.runner_process import ATTACHED, LOST
from tests.end_to_end.storm import DEADLINE_SECONDS, storm
from tests.making import agent, an_agent, an_execution, delta, execution, stored
from tests.process import ROUNDS, server_process
from tests.serving import PRECONDITION, refusal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from runstream.v1.runner_pb2 import Assignment
    from tests.end_to_end.numbered_log import Story
    from tests.end_to_end.runner_process import RunnerProcess
    from tests.end_to_end.storm import Followed, Storm
    from tests.serving import Client

LEASE = 1.0
#: For runners that must not lose theirs, however busy the machine is.
LONG_LEASE = 30
#: Nothing that a test waits for takes so long.
BOUND_SECONDS = 60
AT_WORK = 3
PLAN = Plan(30)
NARROW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 << 10))
#: Nearly as long as a message may be, so that a few of them fill every buffer on the way to who does not read.
LONG = "x" * 1_000_000


def quiet_storm(tmp_path: Path, *, lease: float = LEASE) -> AbstractAsyncContextManager[Storm]:
    """A server, and no runner yet."""
    return storm(tmp_path / "data", random.Random(0), runners=0, lease=lease, runner_options={"pace": 0.02})


async def a_runner_at_work(raging: Storm, path: BlockedPath) -> tuple[RunnerProcess, list[Followed]]:
    """Start a runner over a path, and create executions; return when it is in the middle of each."""
    runner = await raging.start_runner(path.address)
    await runner.has_written(ATTACHED)
    executions = [await raging.create(PLAN, slug=STARTS_OVER) for _ in range(AT_WORK)]
    await raging.reached(executions, 8)
    return runner, executions


def check_taken_over(stories: Iterable[Story], first: RunnerProcess, second: RunnerProcess) -> None:
    """The first runner has lost its lease, and the second has done all there was to do."""
    for story in stories:
        assert 1 in story.lost
        assert story.writers.pop(1) == {first.name}
        assert story.writers
        assert all(names == {second.name} for names in story.writers.values())


def check_kept(stories: Iterable[Story], runner: RunnerProcess) -> None:
    """The runner has done everything in one attempt."""
    for story in stories:
        assert (story.attempt, story.lost, story.returned) == (1, set(), set())
        assert story.writers == {1: {runner.name}}


@pytest.mark.parametrize("blocked", ["to the server", "both ways"])
async def test_a_runner_whose_heartbeats_do_not_arrive_loses_its_work_and_gets_new_when_they_do(
    tmp_path: Path, blocked: str
) -> None:
    """Others do what it held, though its stream is open; what it sent meanwhile is refused when it arrives at last."""
    async with quiet_storm(tmp_path) as raging, path_to(raging.server.address) as path:
        runner, executions = await a_runner_at_work(raging, path)
        path.to_server.block()
        if blocked == "both ways":
            path.to_runner.block()
        other = await raging.start_runner()
        await raging.settled(BOUND_SECONDS)
        if blocked == "to the server":
            await runner.has_written(LOST, times=AT_WORK)  # told on the stream
        path.free()
        await runner.has_written(LOST, times=AT_WORK)
        await other.stop()
        later = [await raging.create(PLAN) for _ in range(2)]
        await raging.settled(BOUND_SECONDS)
        stories = await raging.conclude()
    check_taken_over([stories[each.id] for each in executions], runner, other)
    for each in later:
        assert runner.name in stories[each.id].writers[stories[each.id].attempt]


async def test_a_runner_whose_heartbeats_arrive_keeps_its_work_though_it_hears_nothing(tmp_path: Path) -> None:
    """For leases on end no answer and no command reaches it; what it does arrives, once, and nobody else does it."""
    lease = 1.5
    async with quiet_storm(tmp_path, lease=lease) as raging, path_to(raging.server.address) as path:
        runner, executions = await a_runner_at_work(raging, path)
        path.to_runner.block()
        unheard = await raging.create(PLAN, slug=STARTS_OVER)
        other = await raging.start_runner(capacity=1)
        await asyncio.sleep(2 * lease)
        path.free()
        await raging.settled(BOUND_SECONDS)
        stories = await raging.conclude()
    check_kept([stories[each.id] for each in executions], runner)
    assert not stories[unheard.id].lost
    assert set().union(*stories[unheard.id].writers.values()) <= {runner.name, other.name}


async def test_connections_that_break_take_nothing_from_a_runner(tmp_path: Path) -> None:
    """It attaches again, names what it holds, and sends again what was not answered."""
    async with quiet_storm(tmp_path, lease=LONG_LEASE) as raging, path_to(raging.server.address) as path:
        runner, executions = await a_runner_at_work(raging, path)
        await raging.start_runner()
        for _ in range(5):
            path.cut()
            await raging.progress(4)
        await raging.settled(BOUND_SECONDS)
        stories = await raging.conclude()
    check_kept([stories[each.id] for each in executions], runner)


async def test_an_assignment_that_never_arrives_is_begun_anew_as_soon_as_its_runner_is_back(tmp_path: Path) -> None:
    """The stream ends between assignment and acknowledgement; that is not a lost runner, and takes no lease's time."""
    async with quiet_storm(tmp_path, lease=3_600) as raging, path_to(raging.server.address) as path:
        runner = await raging.start_runner(path.address)
        await runner.has_written(ATTACHED)
        path.to_runner.block()
        executions = [await raging.create(PLAN) for _ in range(AT_WORK)]
        await raging.reached(executions, 2)
        path.cut()
        path.free()
        await raging.settled(BOUND_SECONDS)
        stories = await raging.conclude()
    for story in stories.values():
        assert (story.attempt, story.returned, story.lost) == (2, {1}, set())
        assert story.writers == {2: {runner.name}}


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_runners_behind_bad_paths_lose_and_double_nothing(tmp_path: Path, seed: int) -> None:
    """Whatever is blocked, freed and cut at random: every execution ends once, with one writer at a time."""
    seeded = random.Random(f"paths {seed}")
    options = {"pace": 0.02, "capacity": 6}
    async with (
        storm(tmp_path / "data", seeded, runners=0, lease=LEASE, runner_options=options) as raging,
        path_to(raging.server.address) as first,
        path_to(raging.server.address) as second,
    ):
        for path in (first, second):
            await raging.start_runner(path.address)
        raging.submit(16, seconds=2)
        for _ in range(5):
            await raging.progress(seeded.randrange(80))
            path = seeded.choice((first, second))
            seeded.choice((path.to_server.block, path.to_runner.block, path.block))()
            await asyncio.sleep(LEASE * seeded.choice((0.1, 0.5, 1.5)))
            if seeded.random() < 0.5:
                path.cut()
            path.free()
        await raging.settled(BOUND_SECONDS)
        await raging.conclude()


@pytest.mark.parametrize("clock_off", [3_600, -3_600])
async def test_a_runner_whose_clock_is_an_hour_off_does_its_work_as_any_other(tmp_path: Path, clock_off: int) -> None:
    """Neither leases nor deadlines, nor the order of anything, depend on a runner's clock."""
    assert abs(clock_off) > DEADLINE_SECONDS
    async with quiet_storm(tmp_path, lease=LONG_LEASE) as raging:
        runner = await raging.start_runner(clock_off=clock_off)
        executions = [await raging.create(PLAN) for _ in range(AT_WORK)]
        await raging.settled(BOUND_SECONDS)
        stories = await raging.conclude()
    check_kept(stories.values(), runner)
    for each in executions:
        server_says = {change.change_time.ToDatetime(UTC) for change in each.log}
        assert max(server_says) - min(server_says) < timedelta(minutes=30)
        # The marks of the runner's own clock are stored as it gave them, an hour off.
        calls = [call for change in each.log for call in change.status.tool_calls if call.started_at]
        runner_says = {datetime.fromisoformat(call.started_at) for call in calls}
        assert all(abs(time - min(server_says)) > timedelta(minutes=30) for time in runner_says)
        assert runner_says


async def test_a_runner_that_sends_no_heartbeats_is_told_what_it_has_lost_on_its_open_stream(tmp_path: Path) -> None:
    """The stream alone keeps no lease; the next heartbeat gets the runner new work, as a new attempt."""
    async with (
        asyncio.timeout(BOUND_SECONDS),
        server_process(tmp_path / "data", lease_duration=LEASE, retry_backoff=0) as server,
        server.client() as client,
    ):
        execution_id = await an_execution(client)
        async with attached(client) as runner:
            first = await runner.assignment()
            lost = (await runner.command("lost")).lost
            assert (lost.execution_id, lost.attempt, lost.reason) == (execution_id, 1, "LEASE_EXPIRED")
            await refused_as_stale(client, first)
            assert {command.WhichOneof("command") for command in runner.unread()} <= {"ping"}
            told = await runner.heartbeat(held(first))
            assert [command.lost.execution_id for command in told] == [execution_id]
            second = await runner.assignment()
            assert (second.execution.metadata.id, second.attempt) == (execution_id, 2)
            await refused_as_stale(client, first)
            await complete(client, second)


async def test_a_cancel_reaches_a_runner_that_reads_no_stream_through_its_heartbeats(tmp_path: Path) -> None:
    """What was assigned before keeps its lease, and what is asked of it comes with the answer to a heartbeat."""
    async with (
        asyncio.timeout(BOUND_SECONDS),
        server_process(tmp_path / "data", lease_duration=LEASE, cancel_grace=3_600) as server,
        server.client() as client,
        server.client(*NARROW) as other,
    ):
        execution_id = await an_execution(client)
        stub = RunnerControllerStub(other.channel)
        stream: Any = stub.Attach(AttachRequest(runner_id="deaf", capacity=30))
        assert (await stream.read()).HasField("hello")
        assignment: Assignment = (await stream.read()).assign
        assert assignment.execution.metadata.id == execution_id
        # These fill the stream, which nobody reads any more.
        agent_id = await an_agent(client, "other")
        beat = HeartbeatRequest(runner_id="deaf", held=[held(assignment)])
        for _ in range(12):
            await client.executions.Create(execution(agent_id=agent_id, message=LONG))
            assert not (await stub.Heartbeat(beat)).commands
        await client.executions.Cancel(CancelAgentExecutionInput(id=execution_id, reason="enough"))
        for _ in range(2 * 3):
            answer = await stub.Heartbeat(beat)
            asked = [command.cancel for command in answer.commands if command.HasField("cancel")]
            assert [(each.execution_id, each.attempt, each.reason) for each in asked] == [(execution_id, 1, "enough")]
            await asyncio.sleep(LEASE / 3)
        await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_CANCELLED, attempt=1))
        ended = await stored(client, execution_id)
        assert (ended.status.phase, ended.status.attempt, ended.status.reason) == (EXECUTION_CANCELLED, 1, "enough")
        stream.cancel()


@pytest.mark.parametrize("comes_back", ["without it", "with it", "never"])
async def test_a_stream_that_ends_between_assignment_and_acknowledgement_loses_no_work(
    tmp_path: Path, comes_back: str
) -> None:
    """Not named, it is queued at once, which is no loss; named, it is kept; when nobody returns, it is lost."""
    lease = LEASE if comes_back == "never" else 3_600
    async with (
        asyncio.timeout(BOUND_SECONDS),
        server_process(tmp_path / "data", lease_duration=lease, retry_backoff=0) as server,
        server.client() as client,
    ):
        execution_id = await one_attempt_execution(client)
        async with attached(client) as runner:
            first = await runner.assignment()
        if comes_back == "without it":
            async with attached(client) as runner:
                second = await runner.assignment()
                assert (second.execution.metadata.id, second.attempt) == (execution_id, 2)
                await refused_as_stale(client, first)
                await complete(client, second)
        elif comes_back == "with it":
            async with attached(client, holding=[held(first)]) as runner:
                assert await runner.heartbeat(held(first)) == []
                await complete(client, first)
                assert runner.unread() == []
        else:
            watched = client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id))
            log = [change async for change in watched]
            ended = await stored(client, execution_id)
            assert (ended.status.phase, ended.status.reason) == (EXECUTION_FAILED, "RUNNER_LOST")
            assert [change.terminal for change in log] == [False, False, True]
            return
        log = await changes(client, execution_id)
        assert [change.terminal for change in log] == [False] * (len(log) - 1) + [True]


async def test_a_runner_that_beats_without_naming_what_it_was_assigned_gets_it_anew(tmp_path: Path) -> None:
    """An assignment that got lost on an open stream is noticed: after a lease in which the runner has not named it."""
    async with (
        asyncio.timeout(BOUND_SECONDS),
        server_process(tmp_path / "data", lease_duration=LEASE, retry_backoff=0) as server,
        server.client() as client,
    ):
        execution_id = await one_attempt_execution(client)
        async with attached(client) as runner:
            first = await runner.assignment()
            while (await stored(client, execution_id)).status.phase == EXECUTION_IN_PROGRESS:
                await runner.heartbeat()
                await asyncio.sleep(0.05)
            assert (await runner.ended()).reason == "STREAM_STALLED"  # what it is sent seems to reach nobody
        async with attached(client) as runner:
            again = await runner.assignment()
            assert (again.execution.metadata.id, again.attempt) == (execution_id, 2)
            await refused_as_stale(client, first)
            await complete(client, again)


async def one_attempt_execution(client: Client) -> str:
    """Create an execution of an agent that fails with the first runner it loses; return its id."""
    request = agent()
    request.spec.max_attempts = 1
    made = await client.agents.Create(request)
    created = await client.executions.Create(execution(agent_id=made.metadata.id))
    return created.metadata.id


async def refused_as_stale(client: Client, assignment: Assignment) -> None:
    """Report as an attempt that is over: the server refuses, and nothing has changed."""
    execution_id = assignment.execution.metadata.id
    before = await stored(client, execution_id)
    request = delta(execution_id, phase=EXECUTION_IN_PROGRESS, attempt=assignment.attempt, sequence=1)
    refused = await refusal(client.executions.UpdateStatus(request))
    assert (refused.code, refused.reason) == (PRECONDITION, "STALE_ATTEMPT")
    after = await stored(client, execution_id)
    assert after.status.messages == before.status.messages


async def complete(client: Client, assignment: Assignment) -> None:
    """Report the end as the holder of an assignment."""
    execution_id = assignment.execution.metadata.id
    request = delta(execution_id, phase=EXECUTION_COMPLETED, attempt=assignment.attempt, sequence=1)
    await client.executions.UpdateStatus(request)
    ended = await stored(client, execution_id)
    assert (ended.status.phase, ended.status.attempt) == (EXECUTION_COMPLETED, assignment.attempt)
