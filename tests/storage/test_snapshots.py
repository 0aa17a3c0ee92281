from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runstream.storage.folds import Folds
from runstream.storage.leveldb import LevelDBStore
from runstream.storage.records import EXECUTION_HEAD, STATUS_SNAPSHOT
from runstream.storage.store import Transaction
from runstream.stored.v1.stored_pb2 import ExecutionHead
from runstream.v1.agent_execution_pb2 import EXECUTION_COMPLETED, EXECUTION_IN_PROGRESS
from tests.storage.samples import Narrator, make_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from runstream.stored.v1.stored_pb2 import StatusSnapshot

A = make_id(1)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LevelDBStore]:
    """An empty store."""
    store = LevelDBStore.open(tmp_path / "data", owner={})
    yield store
    await store.close()


class Watch:
    """Folds that hear of a narrator's commits, and the snapshots that come of it."""

    def __init__(self, store: LevelDBStore) -> None:
        self.store = store
        self.folds = Folds(store, max_bytes=1 << 24)
        self.sizes: list[int] = []
        store.on_commit(self._take_down)

    def _take_down(self, transaction: Transaction) -> None:
        self.sizes += [message.ByteSize() for (kind, _), message in transaction.puts.items() if kind is STATUS_SNAPSHOT]

    def note(self, narrator: Narrator, *, terminal: bool = False) -> None:
        """Tell of the narrator's last commit."""
        head = ExecutionHead()
        head.CopyFrom(narrator.head)
        head.status.phase = EXECUTION_COMPLETED if terminal else EXECUTION_IN_PROGRESS
        self.folds.note_commit(narrator.execution_id, head)

    async def settle(self) -> None:
        """Wait until no snapshot is under way."""
        await self.folds.settle()

    async def newest(self) -> StatusSnapshot | None:
        """Return the stored snapshot."""
        return await self.store.durable.get(STATUS_SNAPSHOT, A)


@pytest.mark.parametrize("keyed", [False, True])
async def test_snapshots_cost_no_more_than_the_log(store: LevelDBStore, keyed: bool) -> None:  # noqa: FBT001
    """All snapshots together are at most twice the log, and each tail is bounded by its snapshot."""
    watch = Watch(store)
    narrator = Narrator(store, A)
    for number in range(700):
        await narrator.commit_text("x" * 2000, message=f"m{number}" if keyed else "m")
        watch.note(narrator)
        await watch.settle()
        newest = await watch.newest()
        held, size = (0, 0) if newest is None else (newest.log_bytes, newest.ByteSize())
        assert narrator.head.log_bytes - held <= max(64 << 10, size) + 5000
    assert 2 < len(watch.sizes) < 12
    assert sum(watch.sizes) <= 2 * narrator.head.log_bytes
    fresh = Folds(store, max_bytes=0)
    assert await fresh.status(A, 700) == await watch.folds.status(A, 700)
    await watch.folds.close()


async def test_short_logs_have_no_snapshot(store: LevelDBStore) -> None:
    """Below 64 KiB of log, or 16 KiB at the end, a snapshot does not pay."""
    watch = Watch(store)
    narrator = Narrator(store, A)
    await narrator.commit_text("x" * 15000)
    watch.note(narrator, terminal=True)
    await narrator.commit_text("x" * 45000)
    watch.note(narrator)
    await watch.settle()
    assert watch.sizes == []


async def test_an_execution_that_ends_gets_a_last_snapshot(store: LevelDBStore) -> None:
    """More than 16 KiB of log behind the last snapshot are snapshotted at the end."""
    watch = Watch(store)
    narrator = Narrator(store, A)
    await narrator.commit_text("x" * 20000)
    watch.note(narrator, terminal=True)
    await watch.settle()
    newest = await watch.newest()
    assert newest is not None
    assert newest.revision == 1
    assert newest.status == await watch.folds.status(A, 1)


async def test_what_is_known_after_a_restart_is_looked_up(store: LevelDBStore) -> None:
    """Folds that have just begun do not make again a snapshot that is stored."""
    watch = Watch(store)
    narrator = Narrator(store, A)
    await narrator.commit_text("x" * 100_000)
    watch.note(narrator)
    await watch.settle()
    assert len(watch.sizes) == 1
    later = Watch(store)
    await narrator.commit_text("y")
    later.note(narrator)
    await later.settle()
    assert later.sizes == []


async def test_a_deleted_execution_gets_no_snapshot(store: LevelDBStore) -> None:
    """A snapshot that is under way when the execution is deleted is not stored."""
    watch = Watch(store)
    narrator = Narrator(store, A)
    await narrator.commit_text("x" * 100_000)
    watch.note(narrator)
    deletion = Transaction()
    deletion.delete(EXECUTION_HEAD, A)
    deletion.delete(STATUS_SNAPSHOT, A)
    await store.commit(deletion)
    await watch.settle()
    assert await watch.newest() is None


async def test_a_snapshot_that_fails_is_made_later(store: LevelDBStore, caplog: pytest.LogCaptureFixture) -> None:
    """A failure reaches nobody, is logged, and is tried again when the log has grown."""
    watch = Watch(store)
    narrator = Narrator(store, A)
    await narrator.commit_text("x" * 100_000)
    lost = narrator.head.__class__(revision=1, log_bytes=100_000)
    broken = Transaction()
    broken.append(narrator.unfoldable())
    await store.commit(broken)
    lost.revision = 2
    watch.folds.note_commit(A, lost)
    await watch.settle()
    assert "no snapshot" in caplog.text
    watch.folds.note_commit(A, lost)
    assert not watch.folds.snapshots_under_way
    lost.revision, lost.log_bytes = 1, 200_000
    watch.folds.note_commit(A, lost)
    await watch.settle()
    assert await watch.newest() is not None


async def test_closing_waits_for_what_is_under_way(store: LevelDBStore) -> None:
    """After the close no snapshot is under way, and none is begun."""
    watch = Watch(store)
    narrator = Narrator(store, A)
    await narrator.commit_text("x" * 100_000)
    watch.note(narrator)
    await watch.folds.close()
    assert len(watch.sizes) == 1
    await narrator.commit_text("x" * 300_000)
    watch.note(narrator)
    assert not watch.folds.snapshots_under_way
    await watch.folds.close()
