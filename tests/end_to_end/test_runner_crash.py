"""Runners and servers that are killed, or stop for a while, at any moment: all work is done, once, by one at a time."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end.numbered import GOES_ON, STARTS_OVER, Plan
from tests.end_to_end.runner_process import ATTACHED, LOST
from tests.end_to_end.storm import Storm, storm
from tests.process import ROUNDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

LEASE = 0.8
EXECUTIONS = 16
STRIKES = 3
SECONDS_OF_STORM = 1.0
#: So many changes are seen at most from one strike to the next; every third comes at once, while all are still busy
#: with the one before.
MOST_CHANGES = 120
#: So few places that some executions are always queued.
RUNNER = {"pace": 0.02, "capacity": 2}
#: Within how many leases everything has ended once nobody is killed any more. One lease and the backoff are what it
#: takes until all is queued again; the rest is for the work, on a machine that may be busy.
LEASES_TO_SETTLE = 40


async def kill_a_runner(storm: Storm) -> None:
    """Kill a runner, and start another one."""
    await storm.replace(storm.random.choice(storm.running))


async def kill_the_server(storm: Storm) -> None:
    """Kill the server, and start it again."""
    await storm.kill_server()


async def kill_both(storm: Storm) -> None:
    """Kill the server and a runner, or all runners, at the same moment, and start them again."""
    victims = storm.random.sample(storm.running, storm.random.randrange(1, len(storm.running) + 1))
    storm.server.strike()
    for victim in victims:
        victim.strike()
    async with asyncio.TaskGroup() as group:
        group.create_task(storm.kill_server())
        for victim in victims:
            group.create_task(storm.replace(victim))


async def freeze_a_runner(storm: Storm) -> None:
    """Stop a runner for longer than its lease, and let it go on."""
    victim = storm.random.choice(storm.running)
    victim.freeze()
    storm.tally["frozen"] += 1
    await asyncio.sleep(LEASE * (1 + storm.random.random()))
    victim.thaw()


async def end_the_server(storm: Storm) -> None:
    """Ask the server to end, as an operator does, and start it again."""
    await storm.end_server()


async def freeze_the_server(storm: Storm) -> None:
    """Stop the server for about a lease, and let it go on."""
    storm.server.freeze()
    storm.tally["server frozen"] += 1
    await asyncio.sleep(LEASE * (0.5 + storm.random.random()))
    storm.server.thaw()


async def end_a_runner(storm: Storm) -> None:
    """Ask a runner to end, as an operator does, and start another one."""
    victim = storm.random.choice(storm.running)
    storm.tally["runners asked to end"] += 1
    await victim.has_written(ATTACHED)  # from then on it hears signals
    async with asyncio.TaskGroup() as group:
        group.create_task(storm.start_runner())
        ending = group.create_task(victim.terminate())
    assert ending.result() == 0, victim.log


STORMS = {
    "runners": (kill_a_runner, kill_a_runner, end_a_runner),
    "server": (kill_the_server, kill_the_server, end_the_server),
    "both": (kill_both, kill_a_runner, kill_both, kill_the_server),
    "frozen": (freeze_a_runner, freeze_a_runner, freeze_the_server),
}


async def strike(storm: Storm, act: Callable[[Storm], Awaitable[None]]) -> None:
    """Do something bad at a moment that is not foreseen."""
    if storm.random.random() < 2 / 3:
        await storm.progress(storm.random.randrange(MOST_CHANGES))
    await asyncio.sleep(storm.random.random() * 0.1)
    await act(storm)


@pytest.mark.parametrize("victims", STORMS)
@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_every_execution_ends_once_and_has_one_writer_at_a_time_whoever_is_killed(
    tmp_path: Path, victims: str, seed: int
) -> None:
    """Each has one terminal change, its last; no attempt writes behind its fence; nothing is lost, doubled or stuck."""
    loop = asyncio.get_running_loop()
    seeded = random.Random(f"{victims} {seed}")
    async with storm(tmp_path / "data", seeded, runners=3, lease=LEASE, runner_options=RUNNER) as raging:
        raging.submit(EXECUTIONS, seconds=SECONDS_OF_STORM)
        acts = (STORMS[victims] * STRIKES)[:STRIKES]
        for act in seeded.sample(acts, STRIKES):
            await strike(raging, act)
        calm = loop.time()
        await raging.settled(LEASES_TO_SETTLE * LEASE)
        raging.tally["ms to settle"] = round((loop.time() - calm) * 1000)
        await raging.conclude()


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_no_work_is_begun_twice_because_the_server_was_away(tmp_path: Path, seed: int) -> None:
    """Runners that outlive the server lose nothing by it: what one has begun, the same one ends, in one attempt."""
    seeded = random.Random(f"away {seed}")
    async with storm(tmp_path / "data", seeded, runners=2, lease=15, runner_options=RUNNER) as raging:
        raging.submit(EXECUTIONS // 2, interfere=False, seconds=SECONDS_OF_STORM / 2)
        for _ in range(STRIKES - 1):
            await strike(raging, kill_the_server)
        await raging.settled(60)
        for story in (await raging.conclude()).values():
            assert not story.lost
            # One whose assignment never arrived is begun anew, and nobody has written as that attempt.
            assert story.writers.keys() == {story.attempt}


async def test_a_runner_that_returns_after_its_lease_changes_nothing_and_gets_new_work(tmp_path: Path) -> None:
    """What it still had to say is refused, another one has done its work, and then it works on as if it were new."""
    plan, options = Plan(30), {"pace": 0.02}
    async with storm(tmp_path / "data", random.Random(0), runners=1, lease=LEASE, runner_options=options) as raging:
        (sleeper,) = raging.runners
        lost = [await raging.create(plan, slug=slug) for slug in (STARTS_OVER, STARTS_OVER, GOES_ON, GOES_ON)]
        await raging.reached(lost, 8)
        sleeper.freeze()
        other = await raging.start_runner()
        await raging.settled(LEASES_TO_SETTLE * LEASE)
        sleeper.thaw()
        await sleeper.has_written(LOST, times=len(lost))
        other.strike()
        later = [await raging.create(plan, slug=slug) for slug in (STARTS_OVER, GOES_ON)]
        await raging.settled(LEASES_TO_SETTLE * LEASE)
        stories = await raging.conclude()
    for each in lost:
        story = stories[each.id]
        assert 1 in story.lost
        assert story.writers.pop(1) == {sleeper.name}
        assert story.writers
        assert all(names == {other.name} for names in story.writers.values())
    for each in later:
        assert sleeper.name in stories[each.id].writers[stories[each.id].attempt]
