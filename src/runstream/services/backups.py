"""Backups: everything that the store keeps, given out slice by slice while all else goes on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from runstream.model.errors import Aborted, FailedPrecondition, PermissionDenied, ResourceExhausted, Unavailable
from runstream.model.times import to_timestamp
from runstream.storage.store import Copyable
from runstream.v1.backup_pb2 import BackupChunk, BackupTotals

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from runstream.model.clock import Clock
    from runstream.model.errors import RunstreamError
    from runstream.storage.store import Copy, Store
    from runstream.v1.backup_pb2 import BackupRequest

_LOG = structlog.get_logger(__name__)

_CHUNK_BYTES: Final = 1 << 20
#: A client that takes less than so many bytes in so many seconds loses its backup: the database cannot keep the state
#: for ever. A line of half a megabit per second is fast enough.
STALL_SECONDS: Final = 60.0
STALL_BYTES: Final = 4 << 20


class BackupService:
    """Serves backups, one at a time."""

    def __init__(self, store: Store, clock: Clock, *, allowed: bool) -> None:
        """Take whether there may be any at all."""
        self._store = store
        self._clock = clock
        self._allowed = allowed
        self._running: _Backup | None = None
        self._draining = False

    async def backup(
        self, request: BackupRequest, started: Callable[[], Awaitable[None]]
    ) -> AsyncGenerator[BackupChunk, None]:
        """Yield all entries of what is on disk now, then the totals; end early when it cannot go on."""
        backup = self._running = _Backup(self._admit())
        watch = asyncio.create_task(self._watch(backup), name="BackupWatch")
        try:
            copy = await backup.begin(self._clock)
            await started()
            async for chunk in backup.chunks(copy, request.chunk_bytes or _CHUNK_BYTES):
                yield chunk
        finally:
            watch.cancel()
            self._end(backup, _gone())

    def drain(self) -> None:
        """End the backup that runs, and begin none any more."""
        self._draining = True
        if self._running is not None:
            self._end(self._running, _shutting_down())

    def _admit(self) -> Copyable:
        """Return what is to be copied, if there may be a backup now."""
        if not self._allowed:
            raise PermissionDenied("BACKUPS_OFF", "This server gives no backups: it was started with backups off.")
        if self._draining:
            raise _shutting_down()
        if not isinstance(self._store, Copyable):
            raise FailedPrecondition(
                "BACKUPS_UNSUPPORTED", "Back up this server's database with the tools of the database itself."
            )
        if self._running is not None:
            raise ResourceExhausted("BACKUP_RUNNING", "Another backup is running, and there is one at a time.")
        return self._store

    async def _watch(self, backup: _Backup) -> None:
        """End a backup that stands still or crawls. Its client need not even read that: the place is free at once."""
        while await self._goes_on(backup):
            pass
        self._end(backup, _stalled())

    async def _goes_on(self, backup: _Backup) -> bool:
        """Return True as soon as the client has taken what it must, False when its time for that is over."""
        due, enough = self._clock.monotonic() + STALL_SECONDS, backup.taken + STALL_BYTES
        while backup.taken < enough:
            left = due - self._clock.monotonic()
            if left <= 0:
                return False
            backup.moved.clear()
            await self._clock.wait(backup.moved, left)
        return True

    def _end(self, backup: _Backup, error: RunstreamError) -> None:
        backup.end(error)
        if self._running is backup:
            self._running = None


class _Backup:
    """One backup under way."""

    def __init__(self, source: Copyable) -> None:
        self._source = source
        self._copy: Copy | None = None
        self._totals = BackupTotals()
        self._ended: RunstreamError | None = None
        #: How many bytes of entries its client has taken.
        self.taken = 0
        #: Set whenever it has taken some.
        self.moved = asyncio.Event()

    async def begin(self, clock: Clock) -> Copy:
        """Take hold of what is on disk now, until the end."""
        copy = self._copy = await self._source.copy()
        self._totals.format = copy.format
        self._totals.create_time.CopyFrom(to_timestamp(clock.now()))
        _LOG.info("backup_began")
        return copy

    async def chunks(self, copy: Copy, chunk_bytes: int) -> AsyncGenerator[BackupChunk, None]:
        """Yield the entries, then the totals. Raises what it was ended with."""
        while found := await self._next_slice(copy, chunk_bytes):
            keys, values = zip(*found, strict=True)
            self._totals.entries += len(keys)
            self._totals.bytes += sum(map(len, keys)) + sum(map(len, values))
            yield BackupChunk(keys=keys, values=values)
            self.taken = self._totals.bytes
            self.moved.set()
        copy.release()  # the last chunk may be slow to go, and needs nothing any more
        _LOG.info("backup_read", entries=self._totals.entries, bytes=self._totals.bytes)
        yield BackupChunk(totals=self._totals)

    def end(self, error: RunstreamError) -> None:
        """Let go of everything now; whoever still reads gets `error`. A repeat does nothing."""
        if self._ended is None:
            self._ended = error
        if self._copy is not None:
            self._copy.release()

    async def _next_slice(self, copy: Copy, max_bytes: int) -> list[tuple[bytes, bytes]]:
        self._check()
        found = await copy.next_slice(max_bytes)
        self._check()
        return found

    def _check(self) -> None:
        if self._ended is not None:
            raise self._ended


def _gone() -> Unavailable:
    return Unavailable("BACKUP_CUT_OFF", "The backup has ended.")


def _shutting_down() -> Unavailable:
    return Unavailable("SHUTTING_DOWN", "The server is shutting down. Begin the backup again when it is back.")


def _stalled() -> Aborted:
    told = f"Less than {STALL_BYTES >> 20} MiB of the backup were taken in {STALL_SECONDS:g} s. Begin it again."
    return Aborted("BACKUP_STALLED", told)
