"""Following on a real store: no change is missed, none comes twice, however commits and reads fall together."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runstream.feed import chunks
from runstream.model.errors import NotFound, OutOfRange, Unavailable
from runstream.model.merge import EntryIndex, fold_all
from runstream.v1.agent_execution_pb2 import AgentExecution, ExecutionChange
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC, RESOURCE_VIEW_FULL
from tests.feed.rig import EVERY_EXECUTION, Rig, every, no_start, rig

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

BOUND_SECONDS = 60
pytestmark = pytest.mark.timeout(BOUND_SECONDS + 10)
#: How often somebody lets the others go first, before each of his steps.
PAUSES = st.lists(st.integers(0, 12), min_size=1, max_size=25)


@pytest_asyncio.fixture(name="feed")
async def _feed(tmp_path: Path) -> AsyncIterator[Rig]:
    async with asyncio.timeout(BOUND_SECONDS), rig(tmp_path / "data") as made:
        yield made


async def test_a_commit_between_read_and_wait_is_not_missed(feed: Rig) -> None:
    """What lands while a reader holds the last change is there when it asks for the next."""
    execution_id = await feed.create()
    changes = feed.changes(execution_id, 0, from_snapshot=False)
    assert (await anext(changes)).revision == 1
    await feed.commit(execution_id)
    await feed.commit(execution_id)
    assert [(await anext(changes)).revision for _ in range(2)] == [2, 3]


async def test_a_reader_that_waits_goes_on_with_the_commit(feed: Rig) -> None:
    """A wake ends the wait, and the reader finds the change on disk."""
    execution_id = await feed.create()
    changes = feed.changes(execution_id, 1, from_snapshot=False)
    waiting = asyncio.ensure_future(anext(changes))
    await spin(20)
    assert not waiting.done()
    await feed.commit(execution_id)
    assert (await waiting).revision == 2


async def test_a_wake_without_a_change_is_no_change(feed: Rig) -> None:
    """A reader that is woken for nothing, as after a write in doubt, waits on."""
    execution_id = await feed.create()
    changes = feed.changes(execution_id, 1, from_snapshot=False)
    states = feed.states(execution_id, 1, RESOURCE_VIEW_FULL)
    waiting = [asyncio.ensure_future(anext(stream)) for stream in (changes, states)]
    for _ in range(5):
        feed.hub.wake(execution_id)
        await spin(20)
    assert not any(one.done() for one in waiting)
    await feed.commit(execution_id, end=True)
    change, state = await waiting[0], await waiting[1]
    assert isinstance(change, ExecutionChange)
    assert isinstance(state, AgentExecution)
    assert change.revision == state.metadata.revision == 2


async def test_a_subscriber_skips_to_the_newest(feed: Rig) -> None:
    """However much was committed while it was away, it is told one state."""
    execution_id = await feed.create()
    states = feed.states(execution_id, 0, RESOURCE_VIEW_BASIC)
    assert (await anext(states)).metadata.revision == 1
    for _ in range(20):
        await feed.commit(execution_id)
    await feed.commit(execution_id, end=True)
    assert [state.metadata.revision async for state in states] == [22]


async def test_a_long_log_is_read_in_chunks_without_a_seam(feed: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little one read takes, by number or by bytes, the changes come one after the other."""
    execution_id = await feed.create()
    for _ in range(30):
        await feed.commit(execution_id)
    await feed.commit(execution_id, end=True)
    for changes, size in ((1, 1 << 20), (7, 1 << 20), (256, 1), (256, 200), (32, 1 << 20), (16, 1 << 20)):
        monkeypatch.setattr(chunks, "CHUNK_CHANGES", changes)
        monkeypatch.setattr(chunks, "CHUNK_BYTES", size)
        stream = feed.changes(execution_id, 0, from_snapshot=False)
        assert [change.revision async for change in stream] == list(range(1, 33))


async def test_a_reader_far_behind_does_not_see_past_the_head_it_began_with_and_still_gets_all(feed: Rig) -> None:
    """Changes that land in the middle of a long read come after it, once."""
    execution_id = await feed.create()
    for _ in range(5):
        await feed.commit(execution_id)
    seen = []
    async for change in feed.changes(execution_id, 0, from_snapshot=False):
        seen.append(change.revision)
        if change.revision in (2, 6, 7):
            await feed.commit(execution_id, end=change.revision == 7)
    assert seen == list(range(1, 10))


async def test_what_takes_the_place_of_a_deleted_execution_is_followed_as_it_is(feed: Rig) -> None:
    """Taken in again under its old id with another end, it is not mistaken for what was there before."""
    execution_id = await feed.create()
    for _ in range(3):
        await feed.commit(execution_id)
    before = await feed.commit(execution_id, end=True)
    for view in (RESOURCE_VIEW_BASIC, RESOURCE_VIEW_FULL):
        async for state in feed.states(execution_id, 0, view):
            assert state.metadata.revision == before
    assert [change.revision async for change in feed.changes(execution_id, 0, from_snapshot=False)][-1] == before
    await feed.delete(execution_id)
    await feed.purge(execution_id)
    assert await feed.create() == execution_id
    await feed.relabel(execution_id, "other")
    for _ in range(2):
        await feed.commit(execution_id)
    await feed.commit(execution_id, end=True)
    assert [change async for change in feed.changes(execution_id, 0, from_snapshot=False)] == await feed.log(
        execution_id
    )
    for view in (RESOURCE_VIEW_BASIC, RESOURCE_VIEW_FULL):
        async for state in feed.states(execution_id, 0, view):
            assert state.metadata.labels == {"mood": "other"}


async def test_all_that_is_listening_is_given_back(feed: Rig) -> None:
    """A reader that leaves, is refused, or has come to the end, listens no more."""
    execution_id = await feed.create()
    async with aclosing(feed.changes(execution_id, 0, from_snapshot=True)) as changes:
        await anext(changes)
        async with aclosing(feed.follower.heads(EVERY_EXECUTION, every, no_start)) as heads:
            waiting = asyncio.ensure_future(anext(heads))
            await spin(20)
            await feed.commit(execution_id)
            await waiting
            assert feed.hub.listeners == 2
    assert feed.hub.listeners == 0
    with pytest.raises(OutOfRange):
        await anext(feed.states(execution_id, 9, RESOURCE_VIEW_FULL))
    with pytest.raises(NotFound):
        await anext(feed.changes("aex_none", 0, from_snapshot=False))
    await feed.commit(execution_id, end=True)
    assert [state.metadata.revision async for state in feed.states(execution_id, 0, RESOURCE_VIEW_FULL)] == [3]
    assert feed.hub.listeners == 0


async def test_a_reader_that_has_seen_all_is_told_of_the_deletion(feed: Rig) -> None:
    """A last change, one revision on, and then that the execution is gone."""
    execution_id = await feed.create()
    changes = feed.changes(execution_id, 0, from_snapshot=False)
    assert (await anext(changes)).revision == 1
    waiting = asyncio.ensure_future(anext(changes))
    await spin(20)
    await feed.delete(execution_id)
    last = await waiting
    assert (last.revision, last.WhichOneof("kind"), last.terminal) == (2, "deleted", True)
    with pytest.raises(NotFound, match="deleted") as told:
        await anext(changes)
    assert told.value.reason == "EXECUTION_DELETED"


async def test_another_log_of_the_same_id_is_read_as_it_is(feed: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a late reader found of a log that was purged is not told to those who read the one imported after it."""
    monkeypatch.setattr(chunks, "CHUNK_CHANGES", 2)
    execution_id = await feed.create()
    for _ in range(6):
        await feed.commit(execution_id)
    async with aclosing(feed.changes(execution_id, 0, from_snapshot=False)) as late:
        assert [(await anext(late)).revision for _ in range(2)] == [1, 2]
        await feed.delete(execution_id)
        await feed.purge(execution_id)
        with pytest.raises(NotFound, match="deleted"):
            await anext(late)
    await feed.create()
    for _ in range(6):
        await feed.commit(execution_id)
    async with aclosing(feed.changes(execution_id, 0, from_snapshot=False)) as changes:
        assert [(await anext(changes)).revision for _ in range(7)] == list(range(1, 8))


@pytest.mark.parametrize("purged", [0, 3, 1000])
async def test_a_reader_in_the_middle_of_a_deleted_log_gets_no_gap(
    feed: Rig, monkeypatch: pytest.MonkeyPatch, purged: int
) -> None:
    """It is told what is still there, or that the execution is gone; never a change with one missing before it."""
    monkeypatch.setattr(chunks, "CHUNK_CHANGES", 2)
    execution_id = await feed.create()
    for _ in range(9):
        await feed.commit(execution_id)
    changes = feed.changes(execution_id, 0, from_snapshot=False)
    await anext(changes)
    await feed.delete(execution_id)
    if purged:
        await feed.purge(execution_id, limit=purged)
    seen = [1]
    with pytest.raises(NotFound) as told:
        await _read_all(changes, seen)
    assert told.value.reason == "EXECUTION_DELETED"
    assert seen == (list(range(1, 12)) if not purged else [1, 2])


async def test_closing_the_hub_ends_all_readers_with_unavailable(feed: Rig) -> None:
    """Those that wait, and those that hold a change."""
    execution_id = await feed.create()
    streams = [
        feed.changes(execution_id, 0, from_snapshot=False),
        feed.states(execution_id, 0, RESOURCE_VIEW_FULL),
    ]
    for stream in streams:
        await anext(stream)
    heads = feed.follower.heads(EVERY_EXECUTION, every, no_start)
    waiting = asyncio.ensure_future(anext(heads))
    await spin(20)
    feed.hub.close()
    with pytest.raises(Unavailable):
        await waiting
    for stream in streams:
        with pytest.raises(Unavailable):
            await anext(stream)


async def test_heads_are_conflated_and_none_is_left_out(feed: Rig) -> None:
    """A reader that was away is told the newest of each that changed, once, and nothing of the others."""
    ids = [await feed.create(number) for number in range(1, 6)]
    heads = feed.follower.heads(EVERY_EXECUTION, every, no_start)
    waiting = asyncio.ensure_future(anext(heads))
    await spin(20)
    await feed.commit(ids[0])
    assert (await waiting).metadata.id == ids[0]
    for _ in range(10):
        for execution_id in ids[1:4]:
            await feed.commit(execution_id)
    told = [await anext(heads) for _ in range(3)]
    assert [(head.metadata.id, head.metadata.revision) for head in told] == [(name, 11) for name in ids[1:4]]
    assert not told[0].status.messages
    await aclose_after(heads, feed, ids[4])


async def test_a_state_is_that_of_its_revision_whatever_is_committed_as_the_stream_begins(feed: Rig) -> None:
    """While a stream tells its client that it has begun, the record may change; it goes with the head or not at all."""
    execution_id = await feed.create()

    async def started() -> None:
        await feed.commit(execution_id)
        await feed.relabel(execution_id, f"mood {execution_id}")

    first_change = await anext(feed.changes(execution_id, 0, from_snapshot=True, started=started))
    first_state = await anext(feed.states(execution_id, 0, RESOURCE_VIEW_FULL, started))
    log = await feed.log(execution_id)
    for state in (first_change.snapshot, first_state):
        folded = AgentExecution()
        fold_all(folded, log[: state.metadata.revision], EntryIndex())
        assert state == folded


async def test_a_reader_of_heads_that_fell_too_far_behind_starts_over(tmp_path: Path) -> None:
    """When what it missed is no longer known, it is told the newest of all that match."""
    async with asyncio.timeout(BOUND_SECONDS), rig(tmp_path / "data", capacity=3) as feed:
        ids = [await feed.create(number) for number in range(1, 8)]
        wanted = set(ids) - {ids[6]}
        heads = feed.follower.heads(EVERY_EXECUTION, lambda execution: execution.metadata.id in wanted, no_start)
        waiting = asyncio.ensure_future(anext(heads))
        await spin(20)
        await feed.commit(ids[0])
        assert (await waiting).metadata.id == ids[0]
        for execution_id in ids[:5]:
            await feed.commit(execution_id)
        told = {}
        for _ in range(6):
            head = await anext(heads)
            told[head.metadata.id] = head.metadata.revision
        assert told == dict(zip(ids[:6], [3, 2, 2, 2, 2, 1], strict=True))
        await aclose_after(heads, feed, ids[5])


async def test_a_caller_who_is_cancelled_does_not_cost_the_others_their_wake(feed: Rig) -> None:
    """A commit is announced although the one who asked for it has gone away before it was on disk."""
    execution_id = await feed.create()
    changes = feed.changes(execution_id, 1, from_snapshot=False)
    for revision in range(2, 12):
        waiting = asyncio.ensure_future(anext(changes))
        committing = asyncio.create_task(feed.commit(execution_id))
        await spin(1)
        assert await feed.store.pending.change(execution_id, revision) is not None
        committing.cancel()
        assert (await waiting).revision == revision
        await asyncio.gather(committing, return_exceptions=True)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(writer=PAUSES, waits=st.lists(st.booleans(), min_size=25, max_size=25), readers=st.lists(PAUSES, max_size=4))
def test_however_commits_and_reads_fall_together_no_wake_is_lost(
    writer: list[int], waits: list[bool], readers: list[list[int]]
) -> None:
    """Readers of every kind come to the end, whatever turns the writer and they take: a lost wake would hang."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_interleave(Path(folder) / "data", writer, waits, readers))


async def _interleave(folder: Path, writer: list[int], waits: list[bool], readers: list[list[int]]) -> None:
    async with asyncio.timeout(BOUND_SECONDS), rig(folder) as feed:
        execution_id = await feed.create()
        async with asyncio.TaskGroup() as group:
            watching = [
                group.create_task(_watch(feed, execution_id, pauses, from_snapshot=number % 2 == 1))
                for number, pauses in enumerate(readers)
            ]
            subscribing = [group.create_task(_subscribe(feed, execution_id, pauses)) for pauses in readers]
            listing = [group.create_task(_list(feed, len(writer) + 1, pauses)) for pauses in readers]
            await _write(feed, execution_id, writer, waits)
        log = await feed.log(execution_id)
        assert [change.revision for change in log] == list(range(1, len(writer) + 2))
        state = AgentExecution()
        fold_all(state, log, EntryIndex())
        assert all(task.result() == state for task in (*watching, *subscribing))
        assert all(task.result() for task in listing)


async def _write(feed: Rig, execution_id: str, pauses: list[int], waits: list[bool]) -> None:
    """Commit one change after each pause, waiting for it to be on disk or not; the last one is the end."""
    on_their_way = []
    for number, (pause, wait) in enumerate(zip(pauses, waits, strict=False), start=1):
        await spin(pause)
        commit = asyncio.ensure_future(feed.store.commit(feed.write(execution_id, end=number == len(pauses))))
        on_their_way.append(commit)
        await spin(1)
        if wait:
            await commit
    await asyncio.gather(*on_their_way)


async def _watch(feed: Rig, execution_id: str, pauses: list[int], *, from_snapshot: bool) -> AgentExecution:
    state, number = AgentExecution(), 0
    async for change in feed.changes(execution_id, 0, from_snapshot=from_snapshot):
        if number or not from_snapshot:
            assert change.revision == state.metadata.revision + 1
        fold_all(state, [change], EntryIndex())
        await spin(pauses[number % len(pauses)])
        number += 1
    return state


async def _subscribe(feed: Rig, execution_id: str, pauses: list[int]) -> AgentExecution:
    last, number = AgentExecution(), 0
    async for state in feed.states(execution_id, 0, RESOURCE_VIEW_FULL):
        assert state.metadata.revision > last.metadata.revision
        last = state
        await spin(pauses[number % len(pauses)])
        number += 1
    return last


async def _list(feed: Rig, final: int, pauses: list[int]) -> bool:
    """Follow heads from now on until the final one, unless it is there already."""
    async with aclosing(feed.follower.heads(EVERY_EXECUTION, every, no_start)) as heads:
        listed = asyncio.ensure_future(anext(heads))
        await spin(1)  # it has started
        (execution_id,) = await feed.store.scan(EVERY_EXECUTION, limit=2)
        now = await feed.executions.get(execution_id, RESOURCE_VIEW_BASIC)
        assert now is not None
        revision, number = now.metadata.revision, 0
        while revision < final:
            revision = (await listed).metadata.revision
            await spin(pauses[number % len(pauses)])
            number += 1
            listed = asyncio.ensure_future(anext(heads))
        listed.cancel()
        await asyncio.gather(listed, return_exceptions=True)
    return True


async def _read_all(changes: AsyncIterator[ExecutionChange], seen: list[int]) -> None:
    async for change in changes:
        seen.append(change.revision)  # noqa: PERF401  # what came before the error counts


async def spin(turns: int) -> None:
    """Let the others take their turns."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def aclose_after(heads: AsyncGenerator[AgentExecution, None], feed: Rig, execution_id: str) -> None:
    """See that nothing more was announced: the next head is that of the next commit."""
    waiting = asyncio.ensure_future(anext(heads))
    await spin(20)
    assert not waiting.done()
    revision = await feed.commit(execution_id)
    head = await waiting
    assert (head.metadata.id, head.metadata.revision) == (execution_id, revision)
    await heads.aclose()
