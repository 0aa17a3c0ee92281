"""Housekeeping: logs of the deleted go in pieces, a crash in the middle loses nothing, and expired keys go."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from structlog.testing import capture_logs

from runstream.dispatch import housekeeping
from runstream.dispatch.housekeeping import (
    EXPIRE_EVERY_SECONDS,
    RETRY_SECONDS,
    IdempotencyExpiry,
    Purger,
)
from runstream.model.times import to_timestamp
from runstream.storage.database import Database
from runstream.storage.folder import DataFolder
from runstream.storage.leveldb import LevelDBStore
from runstream.storage.records import IDEMPOTENCY, TOMBSTONE
from runstream.storage.store import Query, Transaction
from runstream.stored.v1.stored_pb2 import IdempotencyRecord, Tombstone
from runstream.v1.agent_execution_pb2 import ExecutionChange
from tests.clock import START, FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    import pytest

    from runstream.storage.overlay import Write


def execution_id(number: int) -> str:
    """The id of a made-up execution."""
    return f"aex_{number:026}"


async def leave(store: LevelDBStore, number: int, changes: int) -> str:
    """Leave what the deletion of an execution leaves: its log and a tombstone."""
    transaction = Transaction()
    for revision in range(1, changes + 1):
        transaction.append(ExecutionChange(execution_id=execution_id(number), revision=revision))
    transaction.put(TOMBSTONE, execution_id(number), Tombstone(revision=changes + 1))
    await store.commit(transaction)
    return execution_id(number)


async def left(store: LevelDBStore) -> dict[str, int]:
    """The tombstones that are left, each with how many changes there are beside it."""
    found = {}
    for name in await store.scan(Query(TOMBSTONE), limit=1000):
        found[name] = len(await store.changes(name, after=0, limit=10_000, max_bytes=1 << 30))
    return found


@asynccontextmanager
async def run(chore: Purger | IdempotencyExpiry) -> AsyncIterator[None]:
    """Let a chore run for the length of the block."""
    task = asyncio.create_task(chore.run())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class Commits:
    """Waits for a commit that removes a record."""

    def __init__(self, store: LevelDBStore) -> None:
        self._removed: dict[str, asyncio.Event] = {}
        store.on_commit(self._note)

    def _note(self, transaction: Transaction) -> None:
        for _, name in transaction.deletes:
            self._removed.setdefault(name, asyncio.Event()).set()

    async def removed(self, name: str) -> None:
        """Return when the record is gone."""
        await self._removed.setdefault(name, asyncio.Event()).wait()


async def test_a_log_goes_and_its_tombstone_last(store: LevelDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A purge removes all of one log, in pieces, then the tombstone; the others stay until their turn."""
    monkeypatch.setattr(housekeeping, "PURGE_CHUNK", 4)
    purger = Purger(store, FakeClock())
    first, second = await leave(store, 1, changes=10), await leave(store, 2, changes=3)
    purger.add(first)
    purger.add(second)
    await purger.purge_next()
    assert await left(store) == {second: 3}
    assert await store.changes(first, after=0, limit=1, max_bytes=1) == []
    await purger.purge_next()
    assert await left(store) == {}


async def test_a_tombstone_without_a_log_goes_too(store: LevelDBStore) -> None:
    """A purge that a crash cut off just before its end is ended."""
    purger = Purger(store, FakeClock())
    purger.add(await leave(store, 1, changes=0))
    await purger.purge_next()
    assert await left(store) == {}


async def test_a_purge_goes_on_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was purged when the process died, the next one finds the tombstones, however many, and ends the work."""
    monkeypatch.setattr(housekeeping, "PURGE_CHUNK", 2)
    store = LevelDBStore.open(tmp_path / "data", owner={})
    for number in range(7):
        await leave(store, number, changes=5)
    for purged in (0, 1, 2):
        assert await store.purge_changes(execution_id(purged), limit=purged + 1)
    await store.close()
    store = LevelDBStore.open(tmp_path / "data", owner={})
    purger = Purger(store, FakeClock())
    await purger.resume()
    for _ in range(7):
        await purger.purge_next()
    assert await left(store) == {}
    await store.close()


async def test_the_loop_purges_what_is_added(store: LevelDBStore, clock: FakeClock) -> None:
    """The loop takes up what was there and what comes, and one name added twice is purged once."""
    commits = Commits(store)
    purger = Purger(store, clock)
    purger.add(await leave(store, 1, changes=3))
    async with run(purger):
        await commits.removed(execution_id(1))
        second = await leave(store, 2, changes=3)
        purger.add(second)
        purger.add(second)
        await commits.removed(second)
    assert await left(store) == {}


class Refusing(Database):
    """LevelDB on a disk that refuses a number of writes."""

    refusals = 0

    def write(self, writes: Iterable[Write]) -> None:
        """Write, or fail."""
        if self.refusals:
            self.refusals -= 1
            raise OSError("no space left on device")
        super().write(writes)


async def test_a_purge_that_fails_rests_and_is_tried_again(tmp_path: Path, clock: FakeClock) -> None:
    """When the disk refuses, the purger waits a few seconds and goes on where it was; nothing is forgotten."""
    database = Refusing(DataFolder.hold(tmp_path / "data", {}))
    store = LevelDBStore(database)
    commits = Commits(store)
    purger = Purger(store, clock)
    purger.add(await leave(store, 1, changes=3))
    database.refusals = 2
    with capture_logs() as logs:
        async with run(purger):
            for _ in range(2):
                await clock.awaited(RETRY_SECONDS)
                clock.advance(RETRY_SECONDS)
            await commits.removed(execution_id(1))
    assert [log["event"] for log in logs] == ["purge_failed"] * 2
    assert all(log["execution_id"].startswith("aex_") for log in logs)
    assert await left(store) == {}
    await store.close()


async def remember(store: LevelDBStore, name: str, hours: float) -> None:
    """Put an idempotency record on the disk that expires some hours after the start."""
    transaction = Transaction()
    expire = to_timestamp(START + timedelta(hours=hours))
    transaction.put(IDEMPOTENCY, name, IdempotencyRecord(resource_id="agt_1", expire_time=expire))
    await store.commit(transaction)


async def remembered(store: LevelDBStore) -> set[str]:
    """The names of the idempotency records that are there."""
    return set(await store.scan(Query(IDEMPOTENCY), limit=10_000))


async def test_expired_keys_go_and_the_others_stay(
    store: LevelDBStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every record whose time is over is removed, however many there are; a repeat removes nothing more."""
    monkeypatch.setattr(housekeeping, "EXPIRE_CHUNK", 3)
    for number in range(10):
        await remember(store, f"old {number}", hours=1)
    await remember(store, "young", hours=3)
    expiry = IdempotencyExpiry(store, clock)
    assert await expiry.remove_expired() == 0
    clock.advance(2 * 3600)
    assert await expiry.remove_expired() == 10
    assert await remembered(store) == {"young"}
    assert await expiry.remove_expired() == 0


async def test_a_key_that_was_used_anew_stays(store: LevelDBStore, clock: FakeClock) -> None:
    """A record that was written again goes by its new time, not by its old one."""
    await remember(store, "key", hours=1)
    await remember(store, "key", hours=5)
    clock.advance(2 * 3600)
    assert await IdempotencyExpiry(store, clock).remove_expired() == 0
    assert await remembered(store) == {"key"}
    clock.advance(4 * 3600)
    assert await IdempotencyExpiry(store, clock).remove_expired() == 1


async def test_the_loop_sweeps_at_the_start_and_every_hour(store: LevelDBStore, clock: FakeClock) -> None:
    """What has expired goes when the server starts, and what expires later within the hour after."""
    commits = Commits(store)
    await remember(store, "old", hours=-1)
    await remember(store, "later", hours=0.5)
    async with run(IdempotencyExpiry(store, clock)):
        await commits.removed("old")
        await clock.awaited(EXPIRE_EVERY_SECONDS)
        assert await remembered(store) == {"later"}
        clock.advance(EXPIRE_EVERY_SECONDS)
        await commits.removed("later")
    assert await remembered(store) == set()


async def test_a_sweep_that_fails_is_made_up_for(tmp_path: Path, clock: FakeClock) -> None:
    """A sweep that the disk refuses ends nothing: the next one an hour later removes what is left."""
    database = Refusing(DataFolder.hold(tmp_path / "data", {}))
    store = LevelDBStore(database)
    commits = Commits(store)
    await remember(store, "old", hours=-1)
    database.refusals = 1
    with capture_logs() as logs:
        async with run(IdempotencyExpiry(store, clock)):
            await clock.awaited(EXPIRE_EVERY_SECONDS)
            assert await remembered(store) == {"old"}
            clock.advance(EXPIRE_EVERY_SECONDS)
            await commits.removed("old")
    assert [log["event"] for log in logs] == ["expiry_failed"]
    await store.close()
