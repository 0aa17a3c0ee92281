"""Retention: what ended long enough ago goes, oldest first and a few at a time; everything else stays."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from runstream.care.doctor import diagnose
from runstream.dispatch.steady_clock import BELIEVED_AFTER
from runstream.services.executions import retention
from runstream.services.executions.retention import DELETES_A_TURN, LOOKS_A_TURN, TREE_SECONDS, Retention
from runstream.storage.offline import OfflineFolder
from runstream.storage.records import SESSION
from runstream.storage.store import Query
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    ExecutionPhase,
)
from runstream.v1.agent_execution_service_pb2 import ListAgentExecutionsRequest, RecoverAgentExecutionInput
from runstream.v1.agent_service_pb2 import ListAgentsRequest
from tests.clock import FakeClock
from tests.families import a_child
from tests.logs import everything_logged
from tests.making import an_agent, delta, execution
from tests.serving import Client, Serving, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

DAY = 86_400


async def ids_of(client: Client) -> list[str]:
    """What is there, oldest first."""
    listed = await client.queries.List(ListAgentExecutionsRequest(page_size=1000))
    return [entry.metadata.id for entry in listed.entries][::-1]


async def end(client: Client, execution_id: str, phase: ExecutionPhase.ValueType = EXECUTION_COMPLETED) -> None:
    """End an execution."""
    await client.executions.UpdateStatus(delta(execution_id, phase=phase))


async def make(client: Client, count: int, agent_id: str, **spec: Any) -> list[str]:  # noqa: ANN401
    """Create executions, which all run; return their ids, oldest first."""
    made = [(await client.executions.Create(execution(agent_id=agent_id, **spec))).metadata.id for _ in range(count)]
    for each in made:
        await client.executions.UpdateStatus(delta(each, phase=EXECUTION_IN_PROGRESS))
    return made


def keeper(running: Serving) -> Retention:
    """The server's own retention, whose turns a test takes."""
    return running.server._retention  # noqa: SLF001


@asynccontextmanager
async def keeping(data: Path, clock: FakeClock, retain: str) -> AsyncIterator[Serving]:
    """Run a server whose retention takes its turns when the test says so."""
    async with serving(data, clock, retain=retain) as running:
        (task,) = [task for task in running.server._tasks if task.get_name() == "Retention"]  # noqa: SLF001
        task.cancel()
        yield running


async def settle(running: Serving) -> int:
    """Take turns until nothing is due; return how many it took."""
    turns = 1
    while await keeper(running).take_turn():
        turns += 1
    return turns


async def test_what_ended_long_ago_goes(tmp_path: Path) -> None:
    """By the time of its end, not of its creation; what has not ended stays, and what it belongs to stays."""
    clock = FakeClock()
    async with keeping(tmp_path / "data", clock, retain="30d") as running:
        client = running.client
        early, late, live = await make(client, 3, await an_agent(client))
        await end(client, early)
        clock.advance(20 * DAY)
        await end(client, late, EXECUTION_FAILED)
        await settle(running)
        clock.advance(10 * DAY)
        await settle(running)
        assert await ids_of(client) == [late, live]
        clock.advance(20 * DAY)
        with everything_logged() as logs:
            await settle(running)
        assert await ids_of(client) == [live]
        (told,) = [log for log in logs if log["event"] == "executions_retired"]
        assert (told["total"], told["failed"]) == (1, 1)
        assert len((await client.agent_queries.List(ListAgentsRequest())).entries) == 1
        assert len(await running.store.scan(Query(SESSION), limit=9)) == 3
    assert findings(tmp_path / "data") == []


def findings(data: Path) -> list[str]:
    """What the doctor finds."""
    found: list[str] = []
    with OfflineFolder.open(data, purpose="test") as folder:
        diagnose(folder, lambda finding: found.append(str(finding)))
    return found


async def test_each_phase_has_its_time(tmp_path: Path) -> None:
    """Those of a phase that is not named are kept."""
    clock = FakeClock()
    async with keeping(tmp_path / "data", clock, retain="COMPLETED=1d") as running:
        done, failed = await make(running.client, 2, await an_agent(running.client))
        await end(running.client, done)
        await end(running.client, failed, EXECUTION_FAILED)
        clock.advance(400 * DAY)
        await settle(running)
        assert await ids_of(running.client) == [failed]


async def test_the_oldest_go_first_and_few_at_a_time(tmp_path: Path) -> None:
    """One turn deletes no more than it may; what is left is always the newest."""
    clock = FakeClock()
    count = 2 * DELETES_A_TURN + 5
    async with keeping(tmp_path / "data", clock, retain="1d") as running:
        made = await make(running.client, count, await an_agent(running.client))
        for each in reversed(made):
            await end(running.client, each)
        clock.advance(DAY)
        for turn in (1, 2):
            assert await keeper(running).take_turn()
            assert await ids_of(running.client) == made[turn * DELETES_A_TURN :]
        await settle(running)
        assert await ids_of(running.client) == []


async def test_what_is_kept_is_not_walked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are that are not due yet, later turns look at none of them."""
    clock = FakeClock()
    async with keeping(tmp_path / "data", clock, retain="1d") as running:
        made = await make(running.client, LOOKS_A_TURN + 5, await an_agent(running.client), stateless=True)
        clock.advance(DAY)
        for each in made:
            await end(running.client, each)
        assert await settle(running) == 2
        looks = 0
        look = Retention._look_at  # noqa: SLF001

        async def counted(self: Retention, execution_id: str, now_ms: int) -> bool:
            nonlocal looks
            looks += 1
            return await look(self, execution_id, now_ms)

        monkeypatch.setattr(Retention, "_look_at", counted)
        clock.advance(DAY / 2)
        assert (await settle(running), looks) == (1, 0)
        clock.advance(DAY / 2)
        await settle(running)
        assert looks == len(made)
        assert await ids_of(running.client) == []


async def test_more_than_can_be_remembered_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is forgotten behind the cursor is walked anew when the first of it is due."""
    monkeypatch.setattr(retention, "MOST_REMEMBERED", 4)
    clock = FakeClock()
    async with keeping(tmp_path / "data", clock, retain="1d") as running:
        made = await make(running.client, 12, await an_agent(running.client))
        clock.advance(DAY)
        for each in made:
            await end(running.client, each)
            clock.advance(60)
        await settle(running)
        assert await ids_of(running.client) == made
        for left in range(11, -1, -1):
            clock.advance(DAY - 12 * 60 if left == 11 else 60)
            await settle(running)
            assert await ids_of(running.client) == made[12 - left :]


async def test_what_is_recovered_stays(tmp_path: Path) -> None:
    """One that was queued again counts from its next end."""
    clock = FakeClock()
    async with keeping(tmp_path / "data", clock, retain="1d") as running:
        (failed,) = await make(running.client, 1, await an_agent(running.client))
        await end(running.client, failed, EXECUTION_FAILED)
        clock.advance(DAY / 2)
        await running.client.executions.Recover(RecoverAgentExecutionInput(id=failed))
        clock.advance(DAY)
        await settle(running)
        assert await ids_of(running.client) == [failed]
        await end(running.client, failed)
        clock.advance(DAY / 2)
        await settle(running)
        assert await ids_of(running.client) == [failed]
        clock.advance(DAY / 2)
        await settle(running)
        assert await ids_of(running.client) == []


async def test_a_tree_at_work_keeps_its_parts(tmp_path: Path) -> None:
    """Sub-executions stay until the first execution of the tree has ended, and go within the hour after."""
    clock = FakeClock()
    async with keeping(tmp_path / "data", clock, retain="1d") as running:
        client = running.client
        (root,) = await make(client, 1, await an_agent(client))
        child = await a_child(client, root)
        await client.executions.UpdateStatus(delta(child, phase=EXECUTION_IN_PROGRESS))
        grandchild = await a_child(client, child)
        await end(client, grandchild)
        await end(client, child)
        clock.advance(3 * DAY)
        await settle(running)
        assert await ids_of(client) == [root, child, grandchild]
        await end(client, root)
        clock.advance(TREE_SECONDS)
        await settle(running)
        assert await ids_of(client) == [root]
        clock.advance(DAY)
        await settle(running)
        assert await ids_of(client) == []


async def test_a_restart_goes_on(tmp_path: Path) -> None:
    """What is due after a restart goes, once the wall clock has proved itself."""
    clock = FakeClock()
    async with keeping(tmp_path / "data", clock, retain="1d") as running:
        made = await make(running.client, 3, await an_agent(running.client))
        for each in made[:2]:
            await end(running.client, each)
    clock.advance(2 * DAY)
    async with keeping(tmp_path / "data", clock, retain="1d") as running:
        await settle(running)
        assert await ids_of(running.client) == made
        clock.advance(BELIEVED_AFTER)
        await settle(running)
        assert await ids_of(running.client) == made[2:]


async def test_a_clock_that_jumps_deletes_nothing(tmp_path: Path) -> None:
    """A wall clock that is ahead by years for less than an hour takes nothing with it."""
    clock = FakeClock()
    async with keeping(tmp_path / "data", clock, retain="1d") as running:
        made = await make(running.client, 2, await an_agent(running.client))
        for each in made:
            await end(running.client, each)
        await settle(running)
        right = clock.now()
        clock.set_now(right + timedelta(days=4000))
        await settle(running)
        assert await ids_of(running.client) == made
        clock.set_now(right)
        await settle(running)
        assert await ids_of(running.client) == made


async def test_it_runs_by_itself(tmp_path: Path) -> None:
    """The server takes the turns, and rests between them."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock, retain="1d") as running:
        made = await make(running.client, DELETES_A_TURN + 1, await an_agent(running.client))
        for each in made:
            await end(running.client, each)
        await clock.awaited(retention.SWEEP_SECONDS)
        clock.advance(DAY)
        await clock.awaited(retention.BETWEEN_TURNS)
        assert await ids_of(running.client) == made[DELETES_A_TURN:]
        clock.advance(retention.BETWEEN_TURNS)
        await clock.awaited(retention.SWEEP_SECONDS)
        assert await ids_of(running.client) == []


async def test_without_it_everything_stays(tmp_path: Path) -> None:
    """Nothing is deleted, looked at or listened to unless it was asked for."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock) as running:
        (made,) = await make(running.client, 1, await an_agent(running.client))
        await end(running.client, made)
        clock.advance(4000 * DAY)
        await settle(running)
        assert await ids_of(running.client) == [made]
        assert keeper(running).on_commit not in running.store._listeners  # type: ignore[attr-defined]  # noqa: SLF001
