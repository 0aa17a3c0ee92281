"""A runner that says of an execution that it only waits for its sub-executions: it takes no place meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runstream.v1.agent_execution_pb2 import (
    EXECUTION_COMPLETED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PENDING,
    EXECUTION_WAITING_FOR_INPUT,
)
from tests.attached import attached, held
from tests.clock import FakeClock
from tests.families import a_child, below
from tests.making import agent, an_execution, delta, execution, stored
from tests.serving import serving

if TYPE_CHECKING:
    from pathlib import Path

    from runstream.v1.agent_execution_pb2 import ExecutionPhase
    from runstream.v1.runner_pb2 import Assignment, Held
    from tests.serving import Client, Serving


def waiting(assignment: Assignment) -> Held:
    """Name what was assigned, and say that it waits."""
    named = held(assignment)
    named.waiting = True
    return named


def places_of(running: Serving, runner_id: str = "runner-1") -> int:
    """How many more executions the dispatcher would give a runner."""
    runner = running.server._dispatcher.runners.get(runner_id)  # noqa: SLF001  # a test may look
    assert runner is not None
    return runner.places


async def a_limited_agent(client: Client, name: str = "limited") -> str:
    """Create an agent of which one execution may run at a time; return its id."""
    request = agent(name)
    request.spec.max_concurrent_executions = 1
    return (await client.agents.Create(request)).metadata.id


async def report(client: Client, assignment: Assignment, phase: ExecutionPhase.ValueType) -> None:
    """Report a phase as the holder of an assignment."""
    request = delta(assignment.execution.metadata.id, phase=phase, attempt=assignment.attempt)
    await client.executions.UpdateStatus(request)


async def test_a_runner_with_one_place_gets_the_sub_execution_that_it_waits_for(client: Client) -> None:
    parent = await an_execution(client)
    async with attached(client, capacity=1) as runner:
        above = await runner.assignment()
        child = await a_child(client, parent)
        assert await runner.heartbeat(waiting(above)) == []
        below = await runner.assignment()
        assert below.execution.metadata.id == child
        assert (await stored(client, parent)).status.phase == EXECUTION_IN_PROGRESS


async def test_it_gets_nested_ones_too(client: Client) -> None:
    last = await an_execution(client)
    async with attached(client, capacity=1) as runner:
        waits = []
        for _ in range(3):
            waits.append(waiting(await runner.assignment()))
            last = await a_child(client, last)
            await runner.heartbeat(*waits)
        assert (await runner.assignment()).execution.metadata.id == last


async def test_without_saying_so_it_gets_nothing(running: Serving) -> None:
    client = running.client
    parent = await an_execution(client)
    async with attached(client, capacity=1) as runner:
        above = await runner.assignment()
        child = await a_child(client, parent)
        await runner.heartbeat(held(above))
        async with attached(client, "runner-2", capacity=1) as other:
            assert (await other.assignment()).execution.metadata.id == child
        assert places_of(running) == 0


async def test_what_is_asked_for_while_it_waits_is_assigned_at_once(client: Client) -> None:
    parent = await an_execution(client)
    async with attached(client, capacity=1) as runner:
        above = await runner.assignment()
        await runner.heartbeat(waiting(above))
        child = await a_child(client, parent)
        assert (await runner.assignment()).execution.metadata.id == child


async def test_a_runner_that_attaches_again_says_it_too(client: Client) -> None:
    parent = await an_execution(client)
    async with attached(client, capacity=1) as runner:
        above = await runner.assignment()
    child = await a_child(client, parent)
    async with attached(client, capacity=1, holding=[waiting(above)]) as runner:
        assert (await runner.assignment()).execution.metadata.id == child


async def test_when_it_waits_no_more_nothing_is_taken_back(running: Serving) -> None:
    """It has more than its capacity for a while, and gets nothing new until it has less."""
    client = running.client
    parent = await an_execution(client)
    async with attached(client, capacity=1) as runner:
        above = await runner.assignment()
        await a_child(client, parent)
        await runner.heartbeat(waiting(above))
        below = await runner.assignment()
        queued = await an_execution(client, agent="other")
        assert await runner.heartbeat(held(above), held(below)) == []
        assert places_of(running) == -1
        await report(client, below, EXECUTION_COMPLETED)
        assert (await stored(client, queued)).status.phase == EXECUTION_PENDING
        await report(client, above, EXECUTION_COMPLETED)
        assert (await runner.assignment()).execution.metadata.id == queued


async def test_waiting_for_a_person_as_well_counts_once(running: Serving) -> None:
    """Each reason ends by itself; the place is taken again when neither is left."""
    client = running.client
    await an_execution(client)
    async with attached(client, capacity=1) as runner:
        above = await runner.assignment()
        await runner.heartbeat(waiting(above))
        await report(client, above, EXECUTION_WAITING_FOR_INPUT)
        assert places_of(running) == 1
        await runner.heartbeat(held(above))
        assert places_of(running) == 1
        await runner.heartbeat(waiting(above))
        await report(client, above, EXECUTION_IN_PROGRESS)
        assert places_of(running) == 1
        await runner.heartbeat(held(above))
        assert places_of(running) == 0


@pytest.mark.parametrize("stranger", ["attempt", "execution", "runner"])
async def test_of_what_a_runner_does_not_hold_it_means_nothing(running: Serving, stranger: str) -> None:
    """An attempt that is over, an execution of somebody else, or another runner's word frees no place."""
    client = running.client
    await an_execution(client)
    async with attached(client, capacity=1) as holder:
        named = waiting(await holder.assignment())
        if stranger == "attempt":
            named.attempt += 1
        elif stranger == "execution":
            named.execution_id = await an_execution(client, agent="other")
        async with attached(client, "runner-2", agents=["none-of-these"]) as other:
            (lost,) = await (other if stranger == "runner" else holder).heartbeat(named)
        assert lost.WhichOneof("command") == "lost"
        assert places_of(running) == 0


async def test_a_lease_that_ends_takes_the_word_with_it(tmp_path: Path) -> None:
    """Whoever gets the next attempt has to say it anew, and the runner that lost it has all its places."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock, retry_backoff=0) as running:
        client = running.client
        parent = await an_execution(client)
        async with attached(client, capacity=2) as runner:
            await runner.heartbeat(waiting(await runner.assignment()))
            assert places_of(running) == 2
            clock.advance(15)
            assert (await runner.command("lost")).lost.execution_id == parent
            assert await runner.heartbeat() == []
            again = await runner.assignment()
            assert (again.execution.metadata.id, again.attempt) == (parent, 2)
            assert places_of(running) == 1


async def test_what_is_given_back_takes_the_word_with_it(running: Serving) -> None:
    client = running.client
    parent = await an_execution(client)
    async with attached(client, capacity=2) as runner:
        await runner.heartbeat(waiting(await runner.assignment()))
        await runner.detach()
        again = await runner.assignment()
        assert (again.execution.metadata.id, again.attempt) == (parent, 2)
        assert places_of(running) == 1
        await report(client, again, EXECUTION_COMPLETED)
        assert places_of(running) == 2


async def test_a_sub_execution_goes_before_the_roots_that_were_asked_for_before_it(client: Client) -> None:
    """A root in the place of what waits could wait for something that only the sub-execution frees."""
    parent = await an_execution(client)
    agent_id = (await stored(client, parent)).spec.agent_id
    async with attached(client, capacity=1) as runner:
        above = await runner.assignment()
        roots = {await an_execution(client, agent="other")}
        roots.add((await client.executions.Create(execution(agent_id=agent_id))).metadata.id)
        children = [await a_child(client, parent) for _ in range(2)]
        await runner.heartbeat(waiting(above))
        for child in children:
            below = await runner.assignment()
            assert below.execution.metadata.id == child
            assert {(await stored(client, root)).status.phase for root in roots} == {EXECUTION_PENDING}
            await report(client, below, EXECUTION_COMPLETED)
        assert (await runner.assignment()).execution.metadata.id in roots


async def test_after_a_restart_a_sub_execution_still_goes_first(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as running:
        client = running.client
        parent = await an_execution(client)
        async with attached(client, capacity=1) as runner:
            above = await runner.assignment()
            agent_id = above.agent.metadata.id
            roots = [(await client.executions.Create(execution(agent_id=agent_id))).metadata.id for _ in range(2)]
            child = await a_child(client, parent)
    async with (
        serving(tmp_path / "data") as running,
        attached(running.client, capacity=1, holding=[waiting(above)]) as runner,
    ):
        below = await runner.assignment()
        assert below.execution.metadata.id == child
        for root in roots:
            await report(running.client, below, EXECUTION_COMPLETED)
            below = await runner.assignment()
            assert below.execution.metadata.id == root


async def test_an_agent_with_a_limit_of_one_can_delegate_to_itself(client: Client) -> None:
    """At any depth, before the others that wait for its place."""
    last = (await client.executions.Create(execution(agent_id=await a_limited_agent(client)))).metadata.id
    async with attached(client) as runner:
        waits = []
        for _ in range(3):
            named = await runner.assignment()
            assert named.execution.metadata.id == last
            waits.append(waiting(named))
            await client.executions.Create(execution(agent_id=named.agent.metadata.id))
            last = await a_child(client, last)
            await runner.heartbeat(*waits)
        assert (await runner.assignment()).execution.metadata.id == last


async def test_agents_with_a_limit_of_one_can_delegate_in_a_circle(client: Client) -> None:
    agents = [await a_limited_agent(client, name) for name in ("one", "two")]
    last = (await client.executions.Create(execution(agent_id=agents[0]))).metadata.id
    async with attached(client) as runner:
        waits = []
        for agent_id in (agents[1], agents[0], agents[1]):
            named = await runner.assignment()
            assert named.execution.metadata.id == last
            waits.append(waiting(named))
            await runner.heartbeat(*waits)
            last = (await client.executions.Create(below(last, agent_id))).metadata.id
        assert (await runner.assignment()).execution.metadata.id == last


async def test_when_it_goes_on_its_agent_is_above_its_limit_for_a_while(client: Client) -> None:
    """Nothing is taken back, and nothing new begins until there is a place again."""
    agent_id = await a_limited_agent(client)
    parent = (await client.executions.Create(execution(agent_id=agent_id))).metadata.id
    async with attached(client) as runner:
        above = await runner.assignment()
        await a_child(client, parent)
        await runner.heartbeat(waiting(above))
        named = await runner.assignment()
        assert await runner.heartbeat(held(above), held(named)) == []
        queued = (await client.executions.Create(execution(agent_id=agent_id))).metadata.id
        await report(client, named, EXECUTION_COMPLETED)
        free = await an_execution(client, agent="other")
        assert (await runner.assignment()).execution.metadata.id == free
        assert (await stored(client, queued)).status.phase == EXECUTION_PENDING
        await report(client, above, EXECUTION_COMPLETED)
        assert (await runner.assignment()).execution.metadata.id == queued


async def test_what_waits_for_a_person_counts_towards_the_limit_of_its_agent(client: Client) -> None:
    """Until its runner says that it waits for its sub-executions as well; a change of its phase does not undo that."""
    agent_id = await a_limited_agent(client)
    ids = [(await client.executions.Create(execution(agent_id=agent_id))).metadata.id for _ in range(3)]
    async with attached(client) as runner:
        first = await runner.assignment()
        await report(client, first, EXECUTION_WAITING_FOR_INPUT)
        other = await an_execution(client, agent="other")
        assert (await runner.assignment()).execution.metadata.id == other
        await runner.heartbeat(waiting(first))
        second = await runner.assignment()
        assert second.execution.metadata.id == ids[1]
        await report(client, first, EXECUTION_IN_PROGRESS)
        await report(client, second, EXECUTION_COMPLETED)
        assert (await runner.assignment()).execution.metadata.id == ids[2]


async def test_the_next_attempt_counts_towards_the_limit_until_it_is_said_to_wait(client: Client) -> None:
    agent_id = await a_limited_agent(client)
    parent = (await client.executions.Create(execution(agent_id=agent_id))).metadata.id
    async with attached(client) as runner:
        await runner.heartbeat(waiting(await runner.assignment()))
        await runner.detach()
        again = await runner.assignment()
        assert (again.execution.metadata.id, again.attempt) == (parent, 2)
        queued = (await client.executions.Create(execution(agent_id=agent_id))).metadata.id
        free = await an_execution(client, agent="other")
        assert (await runner.assignment()).execution.metadata.id == free
        assert (await stored(client, queued)).status.phase == EXECUTION_PENDING
        await runner.heartbeat(waiting(again))
        assert (await runner.assignment()).execution.metadata.id == queued
