"""Copies: everything that is on disk at one moment, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from runstream.model.errors import Unavailable
from runstream.storage.leveldb import LevelDBStore
from runstream.storage.store import Copyable
from tests.care.folders import pairs_of
from tests.storage.samples import make_id, put_execution, step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from runstream.storage.store import Copy

A, B = make_id(1), make_id(2)
MANY = 1 << 30


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LevelDBStore]:
    """A store with an execution in it."""
    store = LevelDBStore.open(tmp_path / "data", owner={})
    await store.commit(put_execution(A))
    for revision in range(1, 8):
        await store.commit(step(A, revision, "word " * 100))
    yield store
    await store.close()


async def rest_of(copy: Copy, max_bytes: int = MANY) -> list[tuple[bytes, bytes]]:
    """Read a copy to its end."""
    pairs = []
    while found := await copy.next_slice(max_bytes):
        pairs += found
    return pairs


@pytest.mark.parametrize("max_bytes", [1, 700, MANY])
async def test_slices_of_any_size_make_up_everything(store: LevelDBStore, tmp_path: Path, max_bytes: int) -> None:
    """Every key comes once, in order, with its value; a copy at its end stays there."""
    assert isinstance(store, Copyable)
    copy = await store.copy()
    pairs = await rest_of(copy, max_bytes)
    assert await copy.next_slice(max_bytes) == []
    copy.release()
    await store.close()
    assert pairs == list(pairs_of(tmp_path / "data").items())


async def test_a_copy_is_one_state(store: LevelDBStore) -> None:
    """What is committed, written over or removed while it is read changes nothing in it."""
    copy, same = await store.copy(), await store.copy()
    begun = await copy.next_slice(1)
    await store.commit(put_execution(A, "another"))
    await store.commit(put_execution(B))
    for revision in range(8, 20):
        await store.commit(step(A, revision))
    while await store.purge_changes(A, limit=1000):
        pass
    assert [*begun, *await rest_of(copy, 100)] == await rest_of(same)
    newer = await store.copy()
    assert len(await rest_of(newer)) == 1 + 2  # the head, and both records
    for each in (copy, same, newer):
        each.release()


async def test_what_is_confirmed_is_in_a_copy(store: LevelDBStore) -> None:
    """A copy that begins right after a commit has it, and of one that is on its way all or nothing."""
    on_its_way = asyncio.create_task(store.commit(put_execution(B)))
    await asyncio.sleep(0)
    copy = await store.copy()
    assert len(await rest_of(copy)) in (9, 10)
    copy.release()
    await on_its_way
    copy = await store.copy()
    assert len(await rest_of(copy)) == 10
    copy.release()


async def test_a_released_copy_keeps_nothing(store: LevelDBStore) -> None:
    """A repeat does nothing, and there is nothing more to read."""
    copies = [await store.copy() for _ in range(3)]
    assert store.snapshots_kept == 3
    for copy in (*copies, *copies):
        copy.release()
    assert store.snapshots_kept == 0
    with pytest.raises(Unavailable):
        await copies[0].next_slice(1)


async def test_a_reader_that_goes_away_in_the_middle_disturbs_nobody(store: LevelDBStore) -> None:
    """Cancelled and released while a thread reads for it: the snapshot goes when the thread has left it."""
    copy = await store.copy()
    reading = asyncio.create_task(copy.next_slice(MANY))
    await asyncio.sleep(0)
    reading.cancel()
    copy.release()
    assert store.snapshots_kept == 0
    await store.close()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_closing_waits_for_a_slice_and_for_nothing_else(store: LevelDBStore) -> None:
    """A copy that stands still is cut off; one that is being read gets its slice first."""
    standing, copy = await store.copy(), await store.copy()
    await standing.next_slice(1)
    reading = asyncio.create_task(copy.next_slice(MANY))
    await asyncio.sleep(0)
    await store.close()
    assert len(await reading) == 9
    for each in (standing, copy):
        with pytest.raises(Unavailable):
            await each.next_slice(1)
        each.release()
    with pytest.raises(Unavailable):
        await store.copy()
