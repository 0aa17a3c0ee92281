from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from runstream.model.errors import Unavailable
from runstream.storage.database import Database
from runstream.storage.folder import DataFolder
from runstream.storage.leveldb import LevelDBStore
from runstream.storage.records import EXECUTION_HEAD
from runstream.storage.store import Conflict, Query, Term, Transaction
from tests.storage.samples import make_id, step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from runstream.storage.overlay import Write

A = make_id(1)


class Doubtful(Database):
    """LevelDB on a disk that now and then takes a batch and reports an error, as a failed sync may."""

    fails = False

    def write(self, writes: Iterable[Write]) -> None:
        """Write, then fail."""
        super().write(writes)
        if self.fails:
            raise OSError("sync failed")


@pytest.fixture
async def database(tmp_path: Path) -> Doubtful:
    """A database that can fail."""
    return Doubtful(DataFolder.hold(tmp_path / "data", {}))


@pytest.fixture
async def store(database: Doubtful) -> AsyncIterator[LevelDBStore]:
    """The store around it."""
    store = LevelDBStore(database)
    yield store
    await store.close()


async def test_a_batch_that_comes_back_is_told_to_listeners(database: Doubtful, store: LevelDBStore) -> None:
    """A commit that failed in doubt and is found on disk later is whole, and listeners hear of it."""
    await store.commit(step(A, 1))
    heard: list[Transaction] = []
    store.on_commit(heard.append)
    database.fails = True
    doubtful = step(A, 2)
    with pytest.raises(Unavailable):
        await store.commit(doubtful)
    assert heard == []
    database.fails = False
    with pytest.raises(Conflict):
        await store.commit(step(A, 2))
    assert heard == [doubtful]
    await store.commit(step(A, 3))
    assert [c.revision for c in await store.changes(A, after=0, limit=9, max_bytes=999)] == [1, 2, 3]


async def test_recovery_waits_for_running_walks(database: Doubtful, store: LevelDBStore) -> None:
    """Scans that run while the handle is replaced end as if nothing had happened."""
    transaction = Transaction()
    for number in range(10000):
        one, other = ("x", "y") if number % 2 else ("y", "x")
        both = [Term("a", one), Term("b", other)]
        transaction.index(EXECUTION_HEAD, make_id(number), after=both)
    await store.commit(transaction)
    query = Query(EXECUTION_HEAD, ((Term("a", "x"),), (Term("b", "x"),)))
    database.fails = True
    with pytest.raises(Unavailable):
        await store.commit(step(A, 1))
    database.fails = False
    scans = [asyncio.create_task(store.scan(query, limit=1)) for _ in range(8)]
    await asyncio.sleep(0)
    await store.commit(Transaction())
    assert await asyncio.gather(*scans) == [[]] * 8


async def test_recovery_waits_for_no_copy_and_cuts_it_off(database: Doubtful, store: LevelDBStore) -> None:
    """A copy that stands still loses its state when the handle is replaced, and is told so; the next one is whole."""
    for revision in range(1, 4):
        await store.commit(step(A, revision))
    standing, reading = await store.copy(), await store.copy()
    assert len(await standing.next_slice(1)) == 1
    database.fails = True
    with pytest.raises(Unavailable):
        await store.commit(step(A, 4))
    database.fails = False
    assert len(await standing.next_slice(1)) == 1
    slices = asyncio.create_task(reading.next_slice(1 << 20))
    await asyncio.sleep(0)
    await store.commit(Transaction())
    assert len(await slices) == 4
    assert store.snapshots_kept == 0
    for copy in (standing, reading):
        with pytest.raises(Unavailable) as cut:
            await copy.next_slice(1)
        assert cut.value.reason == "BACKUP_CUT_OFF"
        copy.release()
    again = await store.copy()
    assert len(await again.next_slice(1 << 20)) == 5
    again.release()


async def test_a_database_that_does_not_come_back_is_tried_again(database: Doubtful, store: LevelDBStore) -> None:
    """While LevelDB cannot be opened anew all is Unavailable; once it can, the next call finds it."""
    await store.commit(step(A, 1))
    current = database.folder.database / "CURRENT"
    told = current.read_bytes()
    database.fails = True
    with pytest.raises(Unavailable):
        await store.commit(step(A, 2))
    database.fails = False
    current.write_bytes(b"nonsense\n")
    for _ in range(2):
        with pytest.raises(Unavailable):
            await store.commit(step(A, 2))
        with pytest.raises(Unavailable):
            await store.durable.get(EXECUTION_HEAD, A)
        with pytest.raises(Unavailable):
            await store.changes(A, after=0, limit=1, max_bytes=1)
    current.write_bytes(told)
    assert await store.pending.get(EXECUTION_HEAD, A) is not None
    await store.commit(Transaction())
