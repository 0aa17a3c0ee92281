"""Backups over the wire: whole or known not to be, one at a time, and nothing left of one that has ended."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from grpc import aio

from runstream.services.backups import STALL_BYTES, STALL_SECONDS
from runstream.storage.leveldb import LevelDBStore
from runstream.v1.backup_pb2 import BackupChunk, BackupRequest
from tests.care.folders import pairs_of
from tests.clock import START, FakeClock
from tests.making import a_running_execution, an_agent, delta
from tests.serving import ABORTED, DENIED, EXHAUSTED, UNAVAILABLE, Client, Refusal, refusal, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.serving import Serving

KIB = 1 << 10
MIB = 1 << 20
#: A client that does not read takes little in advance.
NARROW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 * KIB), ("grpc.use_local_subchannel_pool", 1))
BOUND_SECONDS = 60


async def all_chunks(client: Client, chunk_bytes: int = 0) -> list[BackupChunk]:
    """Take a backup to its end."""
    return [chunk async for chunk in client.backups.Backup(BackupRequest(chunk_bytes=chunk_bytes))]


def pairs_in(chunks: list[BackupChunk]) -> list[tuple[bytes, bytes]]:
    """The keys and values of chunks."""
    return [pair for chunk in chunks for pair in zip(chunk.keys, chunk.values, strict=True)]


async def fill(client: Client, count: int = 40) -> None:
    """Have more stored than a connection takes in advance: 10 MiB."""
    execution_id = await a_running_execution(client)
    for number in range(count):
        request = delta(execution_id)
        request.status.tool_calls.add(id=str(number % 3), result="." * (256 * KIB))
        await client.executions.UpdateStatus(request)


@asynccontextmanager
async def begun(running: Serving) -> AsyncIterator[Any]:
    """A backup of which one chunk was taken, and no more is unless it is asked for."""
    other = Client("", aio.insecure_channel(running.server.address, options=list(NARROW)))
    try:
        call: Any = other.backups.Backup(BackupRequest(chunk_bytes=64 * KIB))
        assert (await call.read()).keys
        yield call
    finally:
        await other.channel.close()


async def broken(call: Any) -> Refusal:  # noqa: ANN401  # a call of aio
    """Read on until the server ends it with an error."""

    async def read_on() -> None:
        while await call.read() is not aio.EOF:
            pass

    return await refusal(read_on())


def kept(running: Serving) -> int:
    """How many snapshots the store keeps for copies."""
    store = running.store
    assert isinstance(store, LevelDBStore)
    return store.snapshots_kept


async def none_is_kept(running: Serving) -> None:
    """Return when no snapshot is kept any more."""
    while kept(running):  # noqa: ASYNC110  # the store tells nobody
        await asyncio.sleep(0)


async def test_a_backup_is_everything_and_says_how_much_that_is(tmp_path: Path) -> None:
    """Chunks of about the size that was asked for, in the order of the keys, and the totals alone at the end."""
    async with serving(tmp_path / "data") as running:
        await fill(running.client, 6)
    stored = pairs_of(tmp_path / "data")
    async with serving(tmp_path / "data", FakeClock()) as running:
        *chunks, last = await all_chunks(running.client, 100 * KIB)
        whole = await all_chunks(running.client)
        assert kept(running) == 0
    pairs = pairs_in(chunks)
    assert pairs == list(stored.items())
    assert pairs == pairs_in(whole)
    assert not any(chunk.HasField("totals") for chunk in chunks)
    assert (last.totals.entries, list(last.keys)) == (len(pairs), [])
    assert last.totals.bytes == sum(len(key) + len(value) for key, value in pairs)
    assert (last.totals.format, last.totals.create_time.ToDatetime(START.tzinfo)) == (1, START)
    assert len(whole) < len(chunks) <= 8


async def test_an_empty_server_can_be_backed_up(tmp_path: Path) -> None:
    """Nothing is something to come back to, too."""
    async with serving(tmp_path / "data") as running:
        (only,) = await all_chunks(running.client)
    assert (only.totals.entries, only.totals.bytes) == (0, 0)


async def test_there_is_one_at_a_time(tmp_path: Path) -> None:
    """A second is refused while one runs, disturbs it in nothing, and may begin when it has ended."""
    async with asyncio.timeout(BOUND_SECONDS), serving(tmp_path / "data") as running:
        await fill(running.client)
        async with begun(running) as first:
            told = await refusal(all_chunks(running.client))
            assert (told.code, told.reason) == (EXHAUSTED, "BACKUP_RUNNING")
            chunk = await first.read()
            while not chunk.HasField("totals"):
                chunk = await first.read()
            assert await first.read() is aio.EOF
        assert (await all_chunks(running.client))[-1].totals.entries


async def test_commands_go_on_beside_a_backup_that_stands_still(tmp_path: Path) -> None:
    """What they do meanwhile is not in it."""
    async with asyncio.timeout(BOUND_SECONDS), serving(tmp_path / "data") as running:
        await fill(running.client)
        entries = (await all_chunks(running.client))[-1].totals.entries
        async with begun(running) as backup:
            for number in range(20):
                await an_agent(running.client, f"agent {number}")
            chunk = await backup.read()
            while not chunk.HasField("totals"):
                chunk = await backup.read()
            assert chunk.totals.entries == entries
        assert (await all_chunks(running.client))[-1].totals.entries > entries


async def test_a_server_that_gives_no_backups_says_so(tmp_path: Path) -> None:
    """With backups off nobody gets one."""
    async with serving(tmp_path / "data", backups=False) as running:
        told = await refusal(all_chunks(running.client))
        assert (told.code, told.reason) == (DENIED, "BACKUPS_OFF")


async def test_nothing_is_kept_for_a_client_that_has_gone(tmp_path: Path) -> None:
    """Whether it says so or its connection breaks: the snapshot goes, and the next backup may begin."""
    async with asyncio.timeout(BOUND_SECONDS), serving(tmp_path / "data") as running:
        await fill(running.client)
        async with begun(running) as backup:
            assert kept(running) == 1
            backup.cancel()
            await none_is_kept(running)
        async with begun(running):
            assert kept(running) == 1
        await none_is_kept(running)
        assert (await all_chunks(running.client))[-1].totals.entries


async def test_a_client_that_takes_nothing_loses_its_backup(tmp_path: Path) -> None:
    """After a minute the snapshot goes and another may begin; when the client reads on it is told."""
    clock = FakeClock()
    async with asyncio.timeout(BOUND_SECONDS), serving(tmp_path / "data", clock) as running:
        await fill(running.client)
        async with begun(running) as backup:
            while kept(running):  # what the connection takes in advance still goes out
                clock.advance(STALL_SECONDS)
                await asyncio.sleep(0)
            assert (await all_chunks(running.client))[-1].totals.entries
            told = await broken(backup)
            assert (told.code, told.reason) == (ABORTED, "BACKUP_STALLED")


async def test_a_client_that_takes_little_loses_its_backup(tmp_path: Path) -> None:
    """A chunk now and then does not keep the state: what was taken in the last minute counts."""
    clock = FakeClock()
    async with asyncio.timeout(BOUND_SECONDS), serving(tmp_path / "data", clock) as running:
        await fill(running.client)
        async with begun(running) as backup:

            async def drip() -> None:
                while await backup.read() is not aio.EOF:
                    clock.advance(STALL_SECONDS / 2)

            told = await refusal(drip())
            assert (told.code, told.reason) == (ABORTED, "BACKUP_STALLED")
            assert kept(running) == 0


async def test_a_client_on_a_slow_line_gets_its_backup(tmp_path: Path) -> None:
    """However long it takes in all, when enough comes through in each minute."""
    clock = FakeClock()
    async with asyncio.timeout(BOUND_SECONDS), serving(tmp_path / "data", clock) as running:
        await fill(running.client)
        async with begun(running) as backup:
            taken = 0
            while not (chunk := await backup.read()).HasField("totals"):
                taken += chunk.ByteSize()
                if taken > STALL_BYTES + MIB:
                    clock.advance(STALL_SECONDS - 1)
                    taken = 0
            assert await backup.read() is aio.EOF
            assert chunk.totals.bytes > 2 * STALL_BYTES


async def test_a_server_that_stops_ends_a_backup(tmp_path: Path) -> None:
    """One that is read on is told; one that stands still does not keep the server."""
    for reads_on in (True, False):
        async with asyncio.timeout(BOUND_SECONDS), serving(tmp_path / str(reads_on)) as running:
            await fill(running.client)
            async with begun(running) as backup:
                stopping = asyncio.create_task(running.server.stop())
                await none_is_kept(running)
                if reads_on:
                    told = await broken(backup)
                    assert (told.code, told.reason) == (UNAVAILABLE, "SHUTTING_DOWN")
                await stopping


async def test_a_database_that_is_opened_anew_ends_a_backup(tmp_path: Path) -> None:
    """After a failed write the next command does not wait for the backup; it is told, and the next one is whole."""
    async with asyncio.timeout(BOUND_SECONDS), serving(tmp_path / "data") as running:
        await fill(running.client)
        async with begun(running) as backup:
            assert isinstance(running.store, LevelDBStore)
            running.store._database.distrust()  # noqa: SLF001  # as a failed write does
            await an_agent(running.client, "next")
            assert kept(running) == 0
            told = await broken(backup)
            assert (told.code, told.reason) == (UNAVAILABLE, "BACKUP_CUT_OFF")
        assert (await all_chunks(running.client))[-1].totals.entries
