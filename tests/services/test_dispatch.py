from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runstream.storage.records import EXECUTION_HEAD
from runstream.storage.store import Transaction
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PENDING,
    EXECUTION_WAITING_FOR_INPUT,
    MESSAGE_AI,
    MESSAGE_HUMAN,
    MESSAGE_THINKING,
    AgentExecutionStatus,
    ExecutionPhase,
)
from runstream.v1.resource_pb2 import ResourceId
from tests.attached import attached, held
from tests.clock import FakeClock
from tests.making import agent, an_agent, an_execution, delta, execution, stored
from tests.serving import ABORTED, PRECONDITION, refusal, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from runstream.v1.runner_pb2 import Assignment
    from tests.serving import Client, Serving


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Serving]:
    """A running server."""
    async with serving(tmp_path) as running:
        yield running


@pytest.fixture
def client(served: Serving) -> Client:
    """A client of it."""
    return served.client


async def report(client: Client, assignment: Assignment, phase: ExecutionPhase.ValueType, sequence: int = 0) -> None:
    """Report a phase as the holder of an assignment."""
    await client.executions.UpdateStatus(
        delta(assignment.execution.metadata.id, phase=phase, attempt=assignment.attempt, sequence=sequence)
    )


async def test_a_pending_execution_is_assigned_with_all_that_its_agent_needs(client: Client) -> None:
    agent_id = await an_agent(client)
    request = execution(agent_id=agent_id, message="survey the north")
    request.spec.runtime_env["TOKEN"].value = "hush"
    request.spec.runtime_env["TOKEN"].is_secret = True
    request.spec.runtime_env["PLAIN"].value = "loud"
    made = await client.executions.Create(request)
    async with attached(client) as runner:
        assignment = await runner.assignment()
    assert assignment.attempt == 1
    assert not assignment.resume_from
    assert assignment.execution.metadata.id == made.metadata.id
    assert assignment.execution.spec.message == "survey the north"
    assert assignment.execution.spec.runtime_env["TOKEN"].value == "hush"
    assert assignment.execution.spec.runtime_env["PLAIN"].value == "loud"
    assert assignment.execution.status.phase == EXECUTION_IN_PROGRESS
    assert assignment.execution.status.attempt == 1
    audit = assignment.execution.status.audit.status_audit
    assert (audit.event, audit.updated_by.id) == ("assigned", runner.id)
    assert assignment.agent.metadata.id == agent_id
    assert assignment.session.metadata.id == made.spec.session_id
    assert assignment.instance.metadata.id == assignment.session.spec.agent_instance_id
    assert not assignment.history
    assert not assignment.HasField("remaining")


async def test_the_secrets_of_an_assignment_are_seen_by_nobody_else(client: Client) -> None:
    request = execution(agent_id=await an_agent(client))
    request.spec.runtime_env["TOKEN"].value = "hush"
    request.spec.runtime_env["TOKEN"].is_secret = True
    made = await client.executions.Create(request)
    async with attached(client) as runner:
        assignment = await runner.assignment()
        assert (await stored(client, made.metadata.id)).spec.runtime_env["TOKEN"].value == ""
        await report(client, assignment, EXECUTION_COMPLETED)
    assert b"hush" not in (await stored(client, made.metadata.id)).SerializeToString()


async def test_an_execution_created_while_a_runner_is_attached_is_pushed_to_it(client: Client) -> None:
    async with attached(client) as runner:
        execution_id = await an_execution(client)
        assert (await runner.assignment()).execution.metadata.id == execution_id


async def test_a_stateless_execution_is_assigned_without_session_and_instance(client: Client) -> None:
    await client.executions.Create(execution(agent_id=await an_agent(client), stateless=True))
    async with attached(client) as runner:
        assignment = await runner.assignment()
    assert not assignment.HasField("session")
    assert not assignment.HasField("instance")


async def test_a_runner_gets_no_more_than_its_capacity_until_one_has_ended(client: Client) -> None:
    agent_id = await an_agent(client)
    ids = [(await client.executions.Create(execution(agent_id=agent_id))).metadata.id for _ in range(3)]
    async with attached(client, capacity=2) as runner:
        first, second = await runner.assignment(), await runner.assignment()
        assert [first.execution.metadata.id, second.execution.metadata.id] == ids[:2]
        assert (await stored(client, ids[2])).status.phase == EXECUTION_PENDING
        await report(client, second, EXECUTION_COMPLETED)
        assert (await runner.assignment()).execution.metadata.id == ids[2]


async def test_what_waits_for_a_person_takes_no_place_of_its_runner(client: Client) -> None:
    agent_id = await an_agent(client)
    ids = [(await client.executions.Create(execution(agent_id=agent_id))).metadata.id for _ in range(2)]
    async with attached(client, capacity=1) as runner:
        await report(client, await runner.assignment(), EXECUTION_WAITING_FOR_INPUT)
        assert (await runner.assignment()).execution.metadata.id == ids[1]


async def test_a_backlog_is_taken_oldest_first_and_the_agents_in_turn(client: Client) -> None:
    many, few = await an_agent(client, "many"), await an_agent(client, "few")
    a = [(await client.executions.Create(execution(agent_id=many))).metadata.id for _ in range(3)]
    b = [(await client.executions.Create(execution(agent_id=few))).metadata.id for _ in range(2)]
    async with attached(client, capacity=5) as runner:
        got = [(await runner.assignment()).execution.metadata.id for _ in range(5)]
    assert [each for each in got if each in a] == a
    assert [each for each in got if each in b] == b
    assert {got[0], got[1]} == {a[0], b[0]}


@pytest.mark.parametrize("by", ["id", "slug"])
async def test_a_runner_gets_executions_of_its_agents_alone(client: Client, by: str) -> None:
    mine, other = await an_agent(client, "mine"), await an_agent(client, "other")
    left = await client.executions.Create(execution(agent_id=other))
    wanted = await client.executions.Create(execution(agent_id=mine))
    async with attached(client, agents=[mine if by == "id" else "mine"]) as runner:
        assert (await runner.assignment()).execution.metadata.id == wanted.metadata.id
        assert (await stored(client, left.metadata.id)).status.phase == EXECUTION_PENDING
        async with attached(client, "runner-2") as anybody:
            assert (await anybody.assignment()).execution.metadata.id == left.metadata.id


async def test_a_session_has_one_execution_at_a_time_and_the_later_one_waits(client: Client) -> None:
    agent_id = await an_agent(client)
    first = await client.executions.Create(execution(agent_id=agent_id))
    second = await client.executions.Create(execution(session_id=first.spec.session_id))
    elsewhere = await client.executions.Create(execution(agent_id=agent_id))
    async with attached(client) as runner:
        got = await runner.assignment()
        assert got.execution.metadata.id == first.metadata.id
        assert (await runner.assignment()).execution.metadata.id == elsewhere.metadata.id
        assert (await stored(client, second.metadata.id)).status.phase == EXECUTION_PENDING
        await report(client, got, EXECUTION_COMPLETED)
        assert (await runner.assignment()).execution.metadata.id == second.metadata.id


async def test_an_agent_may_let_executions_of_a_session_run_side_by_side(client: Client) -> None:
    request = agent()
    request.spec.concurrent_in_session = True
    made = await client.agents.Create(request)
    first = await client.executions.Create(execution(agent_id=made.metadata.id))
    second = await client.executions.Create(execution(session_id=first.spec.session_id))
    async with attached(client) as runner:
        got = {(await runner.assignment()).execution.metadata.id for _ in range(2)}
    assert got == {first.metadata.id, second.metadata.id}


async def test_a_sub_execution_in_the_session_of_its_parent_does_not_wait_for_it(client: Client) -> None:
    """The parent waits for it; its siblings come one after the other, before what is no part of the tree."""
    agent_id = await an_agent(client)
    parent = await client.executions.Create(execution(agent_id=agent_id))
    session_id = parent.spec.session_id
    stranger = await client.executions.Create(execution(session_id=session_id))
    async with attached(client) as runner:
        above = await runner.assignment()
        children = []
        for call in ("one", "two"):
            request = execution(session_id=session_id)
            request.spec.context.parent_execution_id = parent.metadata.id
            request.spec.context.parent_call_id = call
            children.append((await client.executions.Create(request)).metadata.id)
        for child in children:
            below = await runner.assignment()
            assert below.execution.metadata.id == child
            await report(client, below, EXECUTION_COMPLETED)
        assert (await stored(client, stranger.metadata.id)).status.phase == EXECUTION_PENDING
        await report(client, above, EXECUTION_COMPLETED)
        assert (await runner.assignment()).execution.metadata.id == stranger.metadata.id


async def test_an_agent_may_limit_how_many_run_at_a_time(client: Client) -> None:
    request = agent()
    request.spec.max_concurrent_executions = 1
    made = await client.agents.Create(request)
    other = await an_agent(client, "other")
    ids = [(await client.executions.Create(execution(agent_id=made.metadata.id))).metadata.id for _ in range(2)]
    async with attached(client) as runner:
        got = await runner.assignment()
        free = await client.executions.Create(execution(agent_id=other))
        assert (await runner.assignment()).execution.metadata.id == free.metadata.id
        assert (await stored(client, ids[1])).status.phase == EXECUTION_PENDING
        await report(client, got, EXECUTION_COMPLETED)
        assert (await runner.assignment()).execution.metadata.id == ids[1]


async def test_the_history_holds_what_was_said_in_the_session_before_oldest_first(client: Client) -> None:
    agent_id = await an_agent(client)
    first = await client.executions.Create(execution(agent_id=agent_id, message="what is this?"))
    said = delta(first.metadata.id, phase=EXECUTION_IN_PROGRESS)
    said.status.messages.add(id="thought", type=MESSAGE_THINKING, content="hm")
    said.status.messages.add(id="answer", type=MESSAGE_AI, content="a test")
    said.status.messages.add(id="aside", type=MESSAGE_AI, content="of a sub-agent", owner_id="sub")
    await client.executions.UpdateStatus(said)
    await client.executions.UpdateStatus(delta(first.metadata.id, phase=EXECUTION_COMPLETED))
    await client.executions.Create(execution(session_id=first.spec.session_id, message="and now?"))
    async with attached(client) as runner:
        history = (await runner.assignment()).history
    assert [(message.type, message.content) for message in history] == [
        (MESSAGE_HUMAN, "what is this?"),
        (MESSAGE_AI, "a test"),
    ]


async def test_the_history_is_bounded_and_keeps_the_newest(client: Client) -> None:
    agent_id = await an_agent(client)
    first = await client.executions.Create(execution(agent_id=agent_id, message="begin"))
    status = AgentExecutionStatus(phase=EXECUTION_COMPLETED)
    for number in range(300):
        status.messages.add(id=f"m{number}", type=MESSAGE_AI, content=f"line {number}")
    await client.executions.UpdateStatus(delta(first.metadata.id, status))
    await client.executions.Create(execution(session_id=first.spec.session_id))
    async with attached(client) as runner:
        history = (await runner.assignment()).history
    assert [message.content for message in history] == [f"line {number}" for number in range(100, 300)]


async def test_a_leased_execution_takes_status_of_its_attempt_alone(client: Client) -> None:
    execution_id = await an_execution(client)
    async with attached(client) as runner:
        assignment = await runner.assignment()
        before = await stored(client, execution_id)
        for attempt in (0, 2):
            refused = await refusal(
                client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED, attempt=attempt))
            )
            assert (refused.code, refused.reason) == (PRECONDITION, "STALE_ATTEMPT")
            assert refused.metadata == {"id": execution_id, "attempt": "1"}
        assert await stored(client, execution_id) == before
        await report(client, assignment, EXECUTION_COMPLETED)
    assert (await stored(client, execution_id)).status.phase == EXECUTION_COMPLETED


async def test_the_last_report_may_be_repeated_after_the_end(client: Client) -> None:
    execution_id = await an_execution(client)
    async with attached(client) as runner:
        assignment = await runner.assignment()
        await report(client, assignment, EXECUTION_COMPLETED, sequence=1)
        after = await stored(client, execution_id)
        await report(client, assignment, EXECUTION_COMPLETED, sequence=1)
        refused = await refusal(
            client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED, attempt=1, sequence=2))
        )
    assert refused.reason == "EXECUTION_TERMINAL"
    assert await stored(client, execution_id) == after


async def test_an_execution_driven_from_outside_leaves_the_queue(client: Client) -> None:
    agent_id = await an_agent(client)
    outside = await client.executions.Create(execution(agent_id=agent_id))
    await client.executions.UpdateStatus(delta(outside.metadata.id, phase=EXECUTION_IN_PROGRESS))
    queued = await client.executions.Create(execution(agent_id=agent_id))
    async with attached(client) as runner:
        assert (await runner.assignment()).execution.metadata.id == queued.metadata.id
        await client.executions.UpdateStatus(delta(outside.metadata.id, phase=EXECUTION_COMPLETED))
        assert not await runner.heartbeat()
    assert (await stored(client, outside.metadata.id)).status.attempt == 0


async def test_a_detached_runner_gives_everything_back_at_once(client: Client) -> None:
    execution_id = await an_execution(client)
    async with attached(client) as runner, attached(client, "runner-2", agents=["none-of-these"]):
        first = await runner.assignment()
        await runner.detach()
        await runner.detach()
        lost = (await runner.command("lost")).lost
        assert (lost.execution_id, lost.attempt, lost.reason) == (execution_id, 1, "DETACHED")
        again = await runner.assignment()
        assert (again.execution.metadata.id, again.attempt) == (execution_id, 2)
        refused = await refusal(
            client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED, attempt=first.attempt))
        )
        assert refused.reason == "STALE_ATTEMPT"


async def test_a_stream_that_ends_takes_nothing_from_a_runner_that_names_what_it_holds(client: Client) -> None:
    execution_id = await an_execution(client)
    async with attached(client) as runner:
        assignment = await runner.assignment()
    async with attached(client, holding=[held(assignment)]) as runner:
        assert await runner.heartbeat(held(assignment)) == []
        await report(client, assignment, EXECUTION_COMPLETED)
        other = await an_execution(client, agent="other")
        assert (await runner.assignment()).execution.metadata.id == other
        assert [command.WhichOneof("command") for command in runner.unread()] == []
    assert (await stored(client, execution_id)).status.attempt == 1


async def test_what_a_returning_runner_does_not_name_is_queued_again(client: Client) -> None:
    execution_id = await an_execution(client)
    async with attached(client) as runner:
        await runner.assignment()
    async with attached(client) as runner:
        again = await runner.assignment()
        assert (again.execution.metadata.id, again.attempt) == (execution_id, 2)


async def test_a_returning_runner_is_told_what_it_has_lost(client: Client) -> None:
    execution_id = await an_execution(client)
    async with attached(client) as runner:
        assignment = await runner.assignment()
    await client.executions.Delete(ResourceId(value=execution_id))
    async with attached(client, holding=[held(assignment)]) as runner:
        lost = (await runner.command("lost")).lost
        assert (lost.execution_id, lost.attempt, lost.reason) == (execution_id, 1, "DELETED")


async def test_an_assignment_that_a_runner_never_names_goes_back_after_a_lease(
    tmp_path: Path, clock: FakeClock
) -> None:
    """Its stream may have stalled: heartbeats alone do not keep what the runner does not know of."""
    async with serving(tmp_path, clock) as served:
        client = served.client
        execution_id = await an_execution(client)
        async with attached(client) as runner:
            await runner.assignment()
            clock.advance(10)
            await runner.heartbeat()
            assert (await stored(client, execution_id)).status.attempt == 1
            clock.advance(10)
            await runner.heartbeat()
            assert (await runner.ended()).reason == "STREAM_STALLED"
        async with attached(client) as runner:
            again = await runner.assignment()
            assert (again.execution.metadata.id, again.attempt) == (execution_id, 2)


async def test_another_stream_of_the_same_runner_ends_the_one_before(client: Client) -> None:
    async with attached(client) as first, attached(client):
        refused = await first.ended()
        assert (refused.code, refused.reason) == (ABORTED, "RUNNER_REPLACED")


def lose(clock: FakeClock, lease: float = 15) -> None:
    """Let the lease of a silent runner end."""
    clock.advance(lease)


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()


async def test_what_a_dead_runner_held_is_tried_again_by_another(tmp_path: Path, clock: FakeClock) -> None:
    async with serving(tmp_path, clock, retry_backoff=0) as served:
        client = served.client
        execution_id = await an_execution(client)
        async with attached(client, "dead") as dead:
            first = await dead.assignment()
            said = delta(execution_id, attempt=1, sequence=1)
            said.status.messages.add(id="m", type=MESSAGE_AI, content="half of")
            said.status.tool_calls.add(id="t", name="look")
            said.status.todos["one"].content = "look"
            said.status.usage.add(id="u", input_tokens=7)
            await client.executions.UpdateStatus(said)
            lose(clock)
            lost = (await dead.command("lost")).lost
            assert (lost.execution_id, lost.attempt, lost.reason) == (execution_id, 1, "LEASE_EXPIRED")
            async with attached(client, "alive") as alive:
                second = await alive.assignment()
                assert (second.execution.metadata.id, second.attempt, second.resume_from) == (execution_id, 2, False)
                status = second.execution.status
                assert (len(status.messages), len(status.tool_calls), len(status.todos)) == (0, 0, 0)
                assert status.usage[0].input_tokens == 7
                refused = await refusal(
                    client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED, attempt=1))
                )
                assert refused.reason == "STALE_ATTEMPT"
                await report(client, second, EXECUTION_COMPLETED)
        assert first.attempt == 1
        assert (await stored(client, execution_id)).status.phase == EXECUTION_COMPLETED


async def test_an_agent_that_resumes_keeps_what_the_dead_runner_reported(tmp_path: Path, clock: FakeClock) -> None:
    async with serving(tmp_path, clock, retry_backoff=0) as served:
        client = served.client
        request = agent()
        request.spec.resume_attempts = True
        made = await client.agents.Create(request)
        created = await client.executions.Create(execution(agent_id=made.metadata.id))
        async with attached(client, "dead") as dead:
            await dead.assignment()
            said = delta(created.metadata.id, attempt=1)
            said.status.messages.add(id="m", type=MESSAGE_AI, content="half of")
            await client.executions.UpdateStatus(said)
        lose(clock)
        async with attached(client, "alive") as alive:
            second = await alive.assignment()
        assert second.resume_from
        assert [message.content for message in second.execution.status.messages] == ["half of"]


async def test_an_execution_fails_when_it_has_lost_as_many_runners_as_its_agent_allows(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with serving(tmp_path, clock, retry_backoff=0) as served:
        client = served.client
        request = agent()
        request.spec.max_attempts = 2
        made = await client.agents.Create(request)
        created = await client.executions.Create(execution(agent_id=made.metadata.id))
        for attempt in (1, 2):
            async with attached(client, f"dead-{attempt}") as dead:
                assert (await dead.assignment()).attempt == attempt
                lose(clock)
                await dead.command("lost")
        ended = await stored(client, created.metadata.id)
        assert (ended.status.phase, ended.status.reason) == (EXECUTION_FAILED, "RUNNER_LOST")
        assert ended.status.attempt == 2


async def test_what_waits_for_its_next_attempt_keeps_its_place_in_the_session(tmp_path: Path, clock: FakeClock) -> None:
    async with serving(tmp_path, clock, retry_backoff=40) as served:
        client = served.client
        agent_id = await an_agent(client)
        first = await client.executions.Create(execution(agent_id=agent_id))
        second = await client.executions.Create(execution(session_id=first.spec.session_id))
        async with attached(client, "dead") as dead:
            await dead.assignment()
            lose(clock)
            await dead.command("lost")
        async with attached(client, "alive") as alive:
            elsewhere = await client.executions.Create(execution(agent_id=agent_id))
            other = await alive.assignment()
            assert other.execution.metadata.id == elsewhere.metadata.id
            for _ in range(4):
                assert (await stored(client, second.metadata.id)).status.phase == EXECUTION_PENDING
                clock.advance(10)
                await alive.heartbeat(held(other))
            again = await alive.assignment()
            assert (again.execution.metadata.id, again.attempt) == (first.metadata.id, 2)
            await report(client, again, EXECUTION_COMPLETED)
            assert (await alive.assignment()).execution.metadata.id == second.metadata.id


async def test_heartbeats_keep_a_lease_that_an_open_stream_does_not(tmp_path: Path, clock: FakeClock) -> None:
    async with serving(tmp_path, clock, retry_backoff=0) as served:
        client = served.client
        execution_id = await an_execution(client)
        async with attached(client) as runner:
            assignment = await runner.assignment()
            for _ in range(6):
                clock.advance(10)
                assert await runner.heartbeat(held(assignment)) == []
            assert (await stored(client, execution_id)).status.phase == EXECUTION_IN_PROGRESS
            lose(clock)
            assert (await runner.command("lost")).lost.execution_id == execution_id
            told = await runner.heartbeat(held(assignment))
            assert [command.lost.execution_id for command in told] == [execution_id]
            # It is alive again, and gets the next attempt.
            assert (await runner.assignment()).attempt == 2


async def test_a_jump_of_the_wall_clock_ends_no_lease(tmp_path: Path, clock: FakeClock) -> None:
    async with serving(tmp_path, clock, retry_backoff=0) as served:
        client = served.client
        execution_id = await an_execution(client)
        async with attached(client) as runner:
            assignment = await runner.assignment()
            for hours in (-1, 5):
                clock.set_now(clock.now().replace(hour=(clock.now().hour + hours) % 24))
                assert await runner.heartbeat(held(assignment)) == []
            assert (await stored(client, execution_id)).status.attempt == 1


async def test_after_a_restart_a_runner_has_a_whole_lease_to_come_back(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        execution_id = await an_execution(served.client)
        async with attached(served.client) as runner:
            assignment = await runner.assignment()
    clock = FakeClock()
    async with serving(tmp_path, clock, retry_backoff=0) as served:
        client = served.client
        clock.advance(14)
        async with attached(client, "other") as other:
            async with attached(client, holding=[held(assignment)]) as runner:
                assert await runner.heartbeat(held(assignment)) == []
                await report(client, assignment, EXECUTION_IN_PROGRESS)
            assert other.unread() == []
            clock.advance(10)
            await other.heartbeat()
            clock.advance(10)
            second = await other.assignment()
            assert (second.execution.metadata.id, second.attempt) == (execution_id, 2)


async def test_a_runner_that_does_not_come_back_after_a_restart_loses_what_it_held(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        execution_id = await an_execution(served.client)
        async with attached(served.client) as runner:
            await runner.assignment()
    clock = FakeClock()
    async with serving(tmp_path, clock, retry_backoff=0) as served:
        lose(clock)
        async with attached(served.client, "other") as other:
            second = await other.assignment()
        assert (second.execution.metadata.id, second.attempt) == (execution_id, 2)


async def test_what_is_queued_is_still_queued_after_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        agent_id = await an_agent(served.client)
        ids = [(await served.client.executions.Create(execution(agent_id=agent_id))).metadata.id for _ in range(3)]
    async with serving(tmp_path) as served, attached(served.client) as runner:
        assert [(await runner.assignment()).execution.metadata.id for _ in ids] == ids


async def test_what_was_stored_before_there_was_dispatch_is_dispatched(tmp_path: Path) -> None:
    """Heads of an earlier version name neither agent nor session."""
    async with serving(tmp_path) as served:
        agent_id = await an_agent(served.client)
        ids = [(await served.client.executions.Create(execution(agent_id=agent_id))).metadata.id for _ in range(2)]
        await served.client.executions.UpdateStatus(delta(ids[1], phase=EXECUTION_IN_PROGRESS))
        for execution_id in ids:
            head = await served.store.durable.get(EXECUTION_HEAD, execution_id)
            assert head is not None
            for name in ("agent_id", "session_id", "driven_outside"):
                head.ClearField(name)
            transaction = Transaction()
            transaction.put(EXECUTION_HEAD, execution_id, head)
            await served.store.commit(transaction)
    async with serving(tmp_path) as served, attached(served.client) as runner:
        assignment = await runner.assignment()
        assert assignment.execution.metadata.id == ids[0]
        await report(served.client, assignment, EXECUTION_COMPLETED)
        await served.client.executions.UpdateStatus(delta(ids[1], phase=EXECUTION_COMPLETED))
        assert not await runner.heartbeat()


async def test_what_lost_its_runner_while_it_waits_for_a_person_goes_on_waiting(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with serving(tmp_path, clock, retry_backoff=0) as served:
        client = served.client
        execution_id = await an_execution(client)
        async with attached(client) as runner:
            await report(client, await runner.assignment(), EXECUTION_WAITING_FOR_INPUT)
            lose(clock)
            await runner.command("lost")
        waiting = await stored(client, execution_id)
        assert (waiting.status.phase, waiting.status.attempt) == (EXECUTION_WAITING_FOR_INPUT, 1)
        refused = await refusal(
            client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_IN_PROGRESS, attempt=1))
        )
        assert refused.reason == "STALE_ATTEMPT"


async def test_a_server_that_stops_tells_its_runners(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, attached(served.client) as runner:
        await served.server.stop()
        assert (await runner.command("drain")).drain.reason == "SHUTTING_DOWN"
