from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from runstream.storage.database import Database
from runstream.storage.folder import FolderInUse
from runstream.storage.leveldb import LevelDBStore
from runstream.storage.records import AGENT_EXECUTION, EXECUTION_HEAD
from runstream.storage.store import Query, Term, Transaction
from runstream.stored.v1.stored_pb2 import ExecutionHead
from runstream.v1.agent_execution_pb2 import AgentExecution
from tests.storage.conformance import StoreConformance
from tests.storage.samples import make_change, make_id, step

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from runstream.storage.overlay import Write


class TestLevelDBStore(StoreConformance):
    """LevelDB keeps what every store promises."""

    async def open(self, place: Path) -> LevelDBStore:
        """Open the data folder at `place`."""
        return LevelDBStore.open(place, owner={})


async def test_a_cancelled_walk_does_not_disturb_the_close(tmp_path: Path) -> None:
    """The database is closed only when the threads have left it, also for callers that went away."""
    store = LevelDBStore.open(tmp_path / "data", owner={})
    transaction = Transaction()
    for number in range(20000):
        both = [Term("a", "x" if number % 2 else "y"), Term("b", "y" if number % 2 else "x")]
        transaction.index(AGENT_EXECUTION, make_id(number), after=both)
    await store.commit(transaction)
    query = Query(AGENT_EXECUTION, ((Term("a", "x"),), (Term("b", "x"),)))
    scans = [asyncio.create_task(store.scan(query, limit=1)) for _ in range(6)]
    await asyncio.sleep(0)
    for scan in scans[:4]:
        scan.cancel()
    await store.close()
    results = await asyncio.gather(*scans, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [True] * 4 + [False] * 2
    assert results[4:] == [[], []]


async def test_what_is_on_disk_is_not_kept_in_memory(tmp_path: Path) -> None:
    """Nothing of a commit stays in the overlay once it is on disk."""
    store = LevelDBStore.open(tmp_path / "data", owner={})
    commits = [asyncio.create_task(store.commit(step(make_id(1), n))) for n in range(1, 9)]
    await asyncio.sleep(0)
    assert store.keys_in_flight
    await asyncio.gather(*commits)
    assert store.keys_in_flight == 0
    await store.close()


async def test_a_second_opener_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    """One folder has one store, in this process too, and the error tells whose it is."""
    store = LevelDBStore.open(tmp_path / "data", owner={"address": "127.0.0.1:1"})
    store.announce({"address": "127.0.0.1:8080", "since": "2026-01-01T00:00:00Z"})
    with pytest.raises(FolderInUse, match=r"address 127\.0\.0\.1:8080, since 2026-01-01") as caught:
        LevelDBStore.open(tmp_path / "data", owner={})
    assert caught.value.owner["address"] == "127.0.0.1:8080"
    await store.close()
    await LevelDBStore.open(tmp_path / "data", owner={}).close()


async def test_large_transactions_are_written_whole(tmp_path: Path) -> None:
    """A transaction larger than a write buffer, among small ones, is there after reopening."""
    store = LevelDBStore.open(tmp_path / "data", owner={})
    large = Transaction()
    for revision in range(1, 13):
        large.append(make_change(make_id(1), revision, "x" * (1 << 20)))
    small = Transaction()
    small.append(make_change(make_id(2), 1))
    await asyncio.gather(store.commit(large), store.commit(small))
    await store.close()
    store = LevelDBStore.open(tmp_path / "data", owner={})
    changes = await store.changes(make_id(1), after=0, limit=99, max_bytes=1 << 30)
    assert [change.ByteSize() >= 1 << 20 for change in changes] == [True] * 12
    assert await store.durable.change(make_id(2), 1) is not None
    await store.close()


def both(revision: int, *, record_bytes: int, head_bytes: int) -> Transaction:
    """Store record and head of an execution at a revision."""
    record, head = AgentExecution(), ExecutionHead(revision=revision)
    record.metadata.revision, record.spec.message = revision, "x" * record_bytes
    head.status.error = "x" * head_bytes
    transaction = Transaction()
    transaction.put(AGENT_EXECUTION, make_id(1), record)
    transaction.put(EXECUTION_HEAD, make_id(1), head)
    return transaction


@pytest.mark.parametrize(("record_bytes", "head_bytes"), [(10, 10), (100_000, 10), (10, 100_000)])
async def test_record_and_head_are_read_at_one_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_bytes: int, head_bytes: int
) -> None:
    """A batch that is on disk and not yet reported is seen of neither, also where one is too large for memory."""
    written, write = threading.Event(), Database.write

    def tell(database: Database, writes: Iterable[Write]) -> None:
        write(database, writes)
        written.set()

    monkeypatch.setattr(Database, "write", tell)
    store = LevelDBStore.open(tmp_path / "data", owner={})

    async def read() -> tuple[int, int]:
        record = await store.durable.get(AGENT_EXECUTION, make_id(1))
        head = await store.durable.get(EXECUTION_HEAD, make_id(1))
        return record.metadata.revision if record else 0, head.revision if head else 0

    deletion = Transaction()
    deletion.delete(AGENT_EXECUTION, make_id(1))
    deletion.delete(EXECUTION_HEAD, make_id(1))
    sizes = {"record_bytes": record_bytes, "head_bytes": head_bytes}
    expected = 0
    for transaction, after in ((both(1, **sizes), 1), (both(2, **sizes), 2), (deletion, 0)):
        written.clear()
        commit = asyncio.create_task(store.commit(transaction))
        await asyncio.sleep(0)  # accepted
        await asyncio.sleep(0)  # handed over
        assert written.wait(60)  # and the event loop is not to hear of it
        assert await read() == (expected, expected)
        await commit
        expected = after
        assert await read() == (expected, expected)
    await store.close()
