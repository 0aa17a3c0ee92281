"""The LevelDB handle: who reads it when, how it is written, how it outlives a failed write."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import plyvel

from runstream.model.errors import Unavailable
from runstream.storage.compaction import open_with_nice_compaction
from runstream.storage.copies import KeptSnapshot
from runstream.storage.log_end import open_leveldb

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from runstream.storage.folder import DataFolder
    from runstream.storage.overlay import Write

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: How many steps of a walk are taken on the event loop, about a third of a millisecond, before a
#: thread goes on.
_INLINE_STEPS: Final = 128
#: How many steps a thread takes before it looks whether anybody still waits.
_THREAD_STEPS: Final = 2048
_READ_THREADS: Final = 4
#: How much is gathered before it becomes a table; it is in memory up to twice, and read again after a crash.
_WRITE_BUFFER: Final = 16 << 20
#: Every key begins with a letter.
_BEYOND_ALL_KEYS: Final = b"\xff"
#: What there must be room for when the database is opened anew, beside the logs that are then written as tables.
_ROOM_BYTES: Final = 4 << 20


class Database:
    """The one LevelDB of a data folder.

    LevelDB must not be closed under a reader, and its handle cannot be used after a failed write
    (see `_recover`). All readers start on the event loop, which makes the rule simple: a point read
    runs there without a break; a walk is counted from its start to its end, wherever it runs; and
    the handle changes only while the count is zero and nobody new is let in.

    A copy is read in walks, and may stand still between them for as long as whoever takes it pleases. So nobody waits
    for a copy: when the handle changes, those under way lose their snapshots, and their next walk says so.
    """

    def __init__(self, folder: DataFolder) -> None:
        """Open the database of a held folder; blocks. An error of LevelDB is passed on."""
        self.folder = folder
        self._db: Any = open_with_nice_compaction(
            lambda: _open(folder)
        )  # None: neither the old handle nor a new one is left
        self._threads = ThreadPoolExecutor(_READ_THREADS, thread_name_prefix="runstream-read")
        #: Called on the event loop when the handle was replaced, before anything is read from or
        #: written to the new one.
        self.on_recovered: Callable[[], None] = lambda: None
        #: Whether the handle may be written to: no write has failed that was not made good.
        self.sound = True
        self._recovery: asyncio.Task[None] | None = None
        self._open_to_readers = asyncio.Event()
        self._open_to_readers.set()
        self._closed = False
        self._walks = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._kept: set[KeptSnapshot] = set()

    @property
    def snapshots_kept(self) -> int:
        """How many snapshots are kept for copies."""
        return len(self._kept)

    def peek(self, key: bytes) -> bytes | None:
        """Read a key now, without a break; only right after `readable` or `ready`. Durable."""
        try:
            value: bytes | None = self._db.get(key, verify_checksums=True)
        except plyvel.IOError as error:
            raise unavailable("The data folder cannot be read", error) from error
        return value

    async def walk(self, make: Callable[[Any], Generator[None, None, T]], kept: KeptSnapshot | None = None) -> T:
        """Drive the walk that `make` makes of a LevelDB snapshot, in a thread if it is long.

        The snapshot is that of now, or the one that is `kept`; what walks over that is long.
        """
        await self.readable()
        run = _Run(self._db.snapshot() if kept is None else kept.borrow(), make)
        self._walks += 1
        self._idle.clear()
        job: asyncio.Future[bool] | None = None
        try:
            done = kept is None and run.advance(_INLINE_STEPS)
            while not done:
                loop = asyncio.get_running_loop()
                job = loop.run_in_executor(self._threads, run.advance, _THREAD_STEPS)
                done = await asyncio.shield(job)
            return run.answer
        finally:
            self._leave(run, job)

    def walk_now(self, make: Callable[[Any], Generator[None, None, T]]) -> T:
        """Drive a short walk to its end without a break; only right after `readable` or `ready`."""
        run = _Run(self._db.snapshot(), make)
        try:
            while not run.advance(_INLINE_STEPS):
                pass
            return run.answer
        finally:
            run.close()

    async def keep(self) -> KeptSnapshot:
        """Take a snapshot that lasts until `let_go`, or until the handle is closed or replaced."""
        await self.readable()
        kept = KeptSnapshot(self._db.snapshot())
        self._kept.add(kept)
        return kept

    def let_go(self, kept: KeptSnapshot) -> None:
        """Release a snapshot that is kept; a repeat does nothing."""
        self._kept.discard(kept)
        kept.release()

    def write(self, writes: Iterable[Write]) -> None:
        """Put a batch on disk, whole or not at all; blocks until it is synced.

        Called in the writer's thread.
        """
        # Without `transaction`, plyvel writes the half that is gathered when an exception comes in
        # between.
        with self._db.write_batch(transaction=True, sync=True) as batch:
            for key, value in writes:
                if value is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)

    @property
    def stored_bytes(self) -> int:
        """About how many bytes its tables take on disk; 0 while it is being opened anew."""
        if self._db is None or self._closed:
            return 0
        size: int = self._db.approximate_size(b"", _BEYOND_ALL_KEYS)
        return size

    def distrust(self) -> None:
        """Note that a write has failed: nothing may be written until `ready` has seen to it."""
        self.sound = False

    async def ready(self) -> None:
        """Return when the handle may be written to.

        After a failed write, try to bring it back first.

        Raises `Unavailable` when that fails; the next call tries again.
        """
        # In a loop: between the end of the recovery and this task's turn, another write may have
        # failed.
        while not self.sound:
            if self._recovery is None:
                self._recovery = asyncio.get_running_loop().create_task(self._recover())
            await asyncio.shield(self._recovery)

    async def close(self) -> None:
        """Wait for what runs, then close; nothing may be written any more, and no read begins."""
        self._closed = True
        if self._recovery is not None:
            await asyncio.wait([self._recovery])
        await self._idle.wait()
        self._let_all_go()
        if self._db is not None:
            await asyncio.to_thread(self._db.close)
            self._db = None
        self._threads.shutdown()

    @property
    def readable_now(self) -> bool:
        """Whether keys may be read without waiting."""
        return not self._closed and self._db is not None and self._open_to_readers.is_set()

    async def readable(self) -> None:
        """Return when keys may be read.

        Raises `Unavailable` when the database is gone and cannot be brought back.
        """
        while not self.readable_now:
            await self._open_to_readers.wait()
            if self._closed:
                raise unavailable("The store is closed")
            if self._db is None:
                await self.ready()

    def _let_all_go(self) -> None:
        """Take the snapshots away from the copies under way; no walk may run."""
        for kept in list(self._kept):
            self.let_go(kept)

    def _leave(self, run: _Run[Any], job: asyncio.Future[bool] | None) -> None:
        """End a walk.

        If its caller was cancelled, not before the thread has taken its hands off it.
        """
        if job is not None and not job.done():
            job.add_done_callback(lambda _: self._leave(run, None))
            return
        if job is not None and not job.cancelled():
            job.exception()  # looked at, in case the caller no longer could
        run.close()
        self._walks -= 1
        if self._walks == 0:
            self._idle.set()

    async def _recover(self) -> None:
        """Make the database writable again after a failed write.

        The rule: after a failed write this handle is never written to again. A failed append may
        have left half a record at the end of the log, behind which whatever is appended is lost to
        the next start; and after a failed sync LevelDB itself refuses all writes, because the log
        may hold the batch or not. Opening anew reads the log up to the torn record, writes what it
        holds into a table, syncs that, and begins a new log.

        - First the disk is asked with a probe file, so that a full disk costs no reader its
          database: until the probe is taken, the old handle is not touched and serves all reads.
        - Then running walks are waited for and new readers held back, copies lose their snapshots, and the handle is
          replaced.
        - The log may hold the failed batch whole: then it comes back here, and is durable. So the
          callers of a failed batch know only that it may not be there; and whoever waited for this
          decides anew, on what is there now.
        """
        try:
            await asyncio.to_thread(_probe, self.folder)
            self._open_to_readers.clear()
            try:
                await self._idle.wait()
                self._let_all_go()
                await asyncio.to_thread(self._reopen)
            finally:
                # Those who wait get their turn only after this task has come to its end.
                self._open_to_readers.set()
            self.sound = True
            self.on_recovered()
            _log.warning("the data folder takes writes again")
        except (OSError, plyvel.Error) as error:
            raise unavailable("The data folder does not take writes", error) from error
        finally:
            self._recovery = None

    def _reopen(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()
        self._db = _open(self.folder)


class _Run(Generic[T]):
    """A walk under way, with the LevelDB snapshot it reads, which it closes."""

    answer: T

    def __init__(
        self,
        snapshot: Any,  # noqa: ANN401  # plyvel has no types
        make: Callable[[Any], Generator[None, None, T]],
    ) -> None:
        self._snapshot = snapshot
        self._walk = make(snapshot)

    def advance(self, steps: int) -> bool:
        """Take up to `steps` steps; tell whether the answer is there."""
        try:
            for _ in range(steps):
                next(self._walk)
        except StopIteration as end:
            self.answer = end.value
            return True
        except plyvel.IOError as error:
            raise unavailable("The data folder cannot be read", error) from error
        return False

    def close(self) -> None:
        """Give the iterators back, then the snapshot."""
        self._walk.close()
        self._snapshot.close()


def unavailable(what: str, error: Exception | None = None) -> Unavailable:
    """Make the error for a store that cannot do it now."""
    cause = "" if error is None else f" ({error})"
    return Unavailable("STORE_UNAVAILABLE", f"{what}{cause}; the same call may succeed later.")


def _probe(folder: DataFolder) -> None:
    """Find out whether the disk takes what opening writes, and some commits after it; an `OSError` if not. Blocks."""
    logs = sum(log.stat().st_size for log in folder.database.glob("*.log"))
    folder.probe(logs + _ROOM_BYTES)


def _open(folder: DataFolder) -> Any:  # noqa: ANN401  # plyvel has no types
    return open_leveldb(
        folder.database,
        create_if_missing=True,
        write_buffer_size=_WRITE_BUFFER,
        lru_cache_size=64 << 20,
        bloom_filter_bits=10,
        max_open_files=512,
    )
