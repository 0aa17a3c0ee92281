from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from runstream.model.merge import fold
from runstream.storage.folds import Folds
from runstream.storage.leveldb import LevelDBStore
from runstream.storage.records import STATUS_SNAPSHOT
from runstream.storage.store import Transaction
from runstream.stored.v1.stored_pb2 import StatusSnapshot
from runstream.v1.agent_execution_pb2 import AgentExecution, AgentExecutionStatus
from tests.storage.samples import Narrator, make_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MUCH = 64 << 20
A = make_id(1)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LevelDBStore]:
    """An empty store."""
    store = LevelDBStore.open(tmp_path / "data", owner={})
    yield store
    await store.close()


async def from_scratch(store: LevelDBStore, execution_id: str, revision: int) -> AgentExecutionStatus:
    """Fold an execution from its first change, one by one."""
    execution = AgentExecution()
    for change in await store.changes(execution_id, after=0, limit=revision, max_bytes=1 << 40):
        fold(execution, change)
    assert execution.metadata.revision == revision
    return execution.status


@pytest.mark.parametrize("max_bytes", [0, 5000, MUCH])
async def test_a_status_is_the_fold_of_all_changes(store: LevelDBStore, max_bytes: int) -> None:
    """At any revisions, in any order, with any cache, the status is that folded from scratch."""
    narrator = Narrator(store, A, seed=1)
    await narrator.write(300)
    folds = Folds(store, max_bytes=max_bytes)
    seeded = random.Random(2)
    for revision in [300, 1, 300, 299, *(seeded.randrange(1, 301) for _ in range(20))]:
        assert await folds.status(A, revision) == await from_scratch(store, A, revision)
    assert folds.cached_bytes <= max_bytes


async def test_a_status_follows_the_log(store: LevelDBStore) -> None:
    """A kept fold goes on with what was written since, also beside older ones."""
    narrator = Narrator(store, A, seed=3)
    folds = Folds(store, max_bytes=MUCH)
    for revision in range(1, 80):
        await narrator.write(1)
        assert await folds.status(A, revision) == await from_scratch(store, A, revision)
        earlier = random.Random(revision).randrange(1, revision + 1)
        assert await folds.status(A, earlier) == await from_scratch(store, A, earlier)


async def test_snapshot_and_tail_are_the_whole(store: LevelDBStore) -> None:
    """A fold that begins with a snapshot equals one from scratch, whatever revision it was made at."""
    await Narrator(store, A, seed=4).write(200)
    for revision in (1, 57, 199, 200):
        snapshot = StatusSnapshot(revision=revision, status=await from_scratch(store, A, revision))
        transaction = Transaction()
        transaction.put(STATUS_SNAPSHOT, A, snapshot)
        await store.commit(transaction)
        for wanted in (200, revision, max(1, revision - 1)):
            folds = Folds(store, max_bytes=MUCH)
            assert await folds.status(A, wanted) == await from_scratch(store, A, wanted)


async def test_an_earlier_status_does_not_displace_a_later_one(store: LevelDBStore) -> None:
    """Whoever asks for the past leaves the fold of the present where it was."""
    await Narrator(store, A, seed=9).write(100)
    folds = Folds(store, max_bytes=MUCH)
    await folds.status(A, 100)
    kept = folds.cached_bytes
    await folds.status(A, 3)
    assert folds.cached_bytes == kept


async def test_a_status_beyond_the_log_is_none(store: LevelDBStore) -> None:
    """What the log does not reach is None, not an earlier state."""
    folds = Folds(store, max_bytes=MUCH)
    assert await folds.status(A, 1) is None
    await Narrator(store, A).write(3)
    assert await folds.status(A, 4) is None
    assert await folds.status(A, 0) is None
    assert await folds.status(A, 3) is not None
    assert await folds.status(A, 4) is None


async def test_a_purged_log_reaches_nothing(store: LevelDBStore) -> None:
    """While the log of a deleted execution is purged its states are None, and nothing is kept."""
    await Narrator(store, A).write(9)
    folds = Folds(store, max_bytes=MUCH)
    assert await folds.status(A, 5) is not None
    folds.forget(A)
    assert folds.cached_bytes == 0
    assert await store.purge_changes(A, limit=4)
    assert await folds.status(A, 9) is None
    assert folds.cached_bytes == 0


async def test_pending_changes_are_folded_and_not_kept(store: LevelDBStore) -> None:
    """A pending status holds what is on its way to disk; what is kept does not."""
    narrator = Narrator(store, A, seed=5)
    await narrator.write(20)
    other = Narrator(store, make_id(2))
    heavy = asyncio.create_task(other.commit_text("x" * (48 << 20)))
    await asyncio.sleep(0)
    folds = Folds(store, max_bytes=MUCH)
    writing = [asyncio.create_task(store.commit(narrator.next())) for _ in range(5)]
    await asyncio.sleep(0)
    assert await folds.status(A, 25) is None
    ahead = await folds.status(A, 25, pending=True)
    assert await folds.status(A, 26, pending=True) is None
    assert await folds.status(A, 20) == await from_scratch(store, A, 20)
    await asyncio.gather(heavy, *writing)
    assert ahead == await from_scratch(store, A, 25)
    assert await folds.status(A, 25) == ahead


async def test_an_answer_belongs_to_the_caller(store: LevelDBStore) -> None:
    """What a caller does to its answer changes no other one, nor does what happens later."""
    narrator = Narrator(store, A, seed=6)
    await narrator.write(30)
    folds = Folds(store, max_bytes=MUCH)
    target = AgentExecution()
    first = await folds.status(A, 30, into=target.status)
    assert first is not None
    assert target.status == await from_scratch(store, A, 30)
    first.Clear()
    await narrator.write(10)
    second = await folds.status(A, 30)
    assert second == await from_scratch(store, A, 30)
    await folds.status(A, 40)
    assert second == await from_scratch(store, A, 30)


async def test_concurrent_callers_fold_each_change_once(store: LevelDBStore) -> None:
    """Many callers at once, some of which go away, all get the right status."""
    narrator = Narrator(store, A, seed=7)
    await narrator.write(400)
    folds = Folds(store, max_bytes=MUCH)
    seeded = random.Random(8)
    wanted = [seeded.randrange(1, 401) for _ in range(40)]
    callers = [asyncio.create_task(folds.status(A, revision)) for revision in wanted]
    for turn in range(10):
        await asyncio.sleep(0)
        callers[turn * 4].cancel()
    results = await asyncio.gather(*callers, return_exceptions=True)
    for number, (revision, result) in enumerate(zip(wanted, results, strict=True)):
        if number % 4 or not isinstance(result, asyncio.CancelledError):
            assert result == await from_scratch(store, A, revision)


async def test_the_cache_is_bounded_and_keeps_the_recent(store: LevelDBStore) -> None:
    """Folds of many executions never take more than was allowed; the recent ones stay."""
    folds = Folds(store, max_bytes=100_000)
    for number in range(1, 30):
        narrator = Narrator(store, make_id(number))
        await narrator.commit_text("x" * 9000)
        await folds.status(make_id(number), 1)
        assert folds.cached_bytes <= 100_000
    assert folds.cached_bytes > 80_000


async def test_text_that_grew_token_by_token_is_given_back(store: LevelDBStore) -> None:
    """What a fold holds does not grow with how often its text was written anew."""
    narrator = Narrator(store, A)
    folds = Folds(store, max_bytes=MUCH)
    for revision in range(1, 600):
        await narrator.commit_text("x" * 500)
        await folds.status(A, revision)
    assert folds.cached_bytes < 4 * 600 * 500
