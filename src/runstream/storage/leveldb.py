"""The store on one machine: LevelDB in a data folder."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar

import plyvel

from runstream.storage import keys, walks
from runstream.storage.copies import LevelDBCopy
from runstream.storage.database import Database, unavailable
from runstream.storage.decision import decide
from runstream.storage.folder import DataFolder, FolderUnusable
from runstream.storage.overlay import Overlay
from runstream.storage.recent import LogEnds, RecentRecords
from runstream.storage.records import AGENT_EXECUTION, EXECUTION_HEAD
from runstream.storage.store import Conflict, Range, Transaction
from runstream.storage.writer import Accepted, Writer
from runstream.v1.agent_execution_pb2 import ExecutionChange

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    from google.protobuf.message import Message

    from runstream.storage.overlay import Write
    from runstream.storage.records import AnyKind, M, RecordKind
    from runstream.storage.store import CommitListener, Query, Reader, Term, Unique
    from runstream.storage.write_counts import WriteCounts

T = TypeVar("T")

#: Stands for what is not remembered, where None is a record that is not there.
_NOT_HERE: Final = object()

_log = logging.getLogger(__name__)

#: Kinds of which one answer is put together. A batch is on disk before the event loop hears of it: if meanwhile one of
#: the two came from memory and the other one from the disk, the answer would mix two revisions.
_READ_TOGETHER: Final = frozenset({AGENT_EXECUTION, EXECUTION_HEAD})


class LevelDBStore:
    """A `Store` in a data folder on this machine's disk; made by `LevelDBStore.open`.

    Everything here runs on the event loop but the writer's thread and long walks. `commit` decides,
    lays the writes over the database for those who decide next, and hands them to the writer
    without a break in between: so the order of decisions is the order of writes, and every decision
    has seen all before it.
    """

    def __init__(self, database: Database) -> None:
        """Take the open database of a held folder, both of which it closes."""
        self._folder = database.folder
        self._database = database
        database.on_recovered = self._recovered
        self._writer = Writer(database.write, self._written)
        self._overlay = Overlay()
        self._recent = RecentRecords()
        self._log_ends = LogEnds()
        self._accepted: dict[int, Accepted] = {}
        self._numbers = 0
        self._epoch = 0
        self._closing: asyncio.Task[None] | None = None
        self._listeners: list[CommitListener] = []
        #: Those of them that are told of transactions that are in place, too.
        self._told_of_all: list[CommitListener] = []
        self._in_doubt: list[Accepted] = []
        self._durable = _LevelDBReader(self, database.peek, self._durable_record)
        self._pending = _LevelDBReader(self, self.value, self.record)

    @classmethod
    def open(cls, path: Path, *, owner: Mapping[str, str]) -> LevelDBStore:
        """Open the data folder at `path`, making it if need be.

        Called on the event loop, which it blocks.

        `owner` says who we are, as in ``{"address": "127.0.0.1:8080", "since":
        "2026-01-01T00:00:00Z"}``, for whoever finds the folder taken; the process id is added.
        Raises a `DataFolderError`.
        """
        folder = DataFolder.hold(path, owner)
        try:
            return cls(Database(folder))
        except plyvel.Error as error:
            folder.release()
            msg = f"The database in {path} cannot be opened: {error}."
            raise FolderUnusable(msg) from error
        except BaseException:
            folder.release()
            raise

    def announce(self, owner: Mapping[str, str]) -> None:
        """Say anew who holds the folder, as when the address is known at last.

        Blocks for two syncs.
        """
        self._folder.announce(owner)

    @property
    def durable(self) -> Reader:
        """The reader that sees what is on disk."""
        return self._durable

    @property
    def pending(self) -> Reader:
        """The reader that sees also what is on its way to disk."""
        return self._pending

    @property
    def epoch(self) -> int:
        """How often accepted transactions were lost to a failed write; see `Transaction.epoch`."""
        return self._epoch

    @property
    def keys_in_flight(self) -> int:
        """How many keys are on their way to disk."""
        return len(self._overlay)

    @property
    def write_counts(self) -> WriteCounts:
        """What was written, and what could not be."""
        return self._writer.counts

    @property
    def stored_bytes(self) -> int:
        """About how many bytes the database takes on disk, without what is in its log."""
        return self._database.stored_bytes

    @property
    def snapshots_kept(self) -> int:
        """How many copies are under way and keep LevelDB from dropping what they can see."""
        return self._database.snapshots_kept

    async def commit(self, transaction: Transaction) -> None:
        """Store everything in `transaction` or nothing; see `Store.commit`.

        It is carried out even when the caller is cancelled while waiting. An empty transaction
        waits until everything accepted before is on disk.
        """
        if self._closing is not None or not self._database.sound:
            await self._ready()
        if transaction.epoch not in (None, self._epoch):
            raise Conflict("a failed write has undone what this was decided on")
        for kind, term in transaction.unused:
            if self._is_used(kind, term):
                raise Conflict(f"a {kind.name} is indexed under {term.index} {term.value!r}")
        await self._accept(transaction, *decide(self, transaction))

    def on_commit(self, listener: CommitListener, *, in_place: bool = True) -> None:
        """Have `listener` called with every transaction once it is on disk.

        See `Store.on_commit`.
        """
        self._listeners.append(listener)
        if in_place:
            self._told_of_all.append(listener)

    async def scan(self, query: Query, *, after: str | None = None, limit: int) -> list[str]:
        """Return up to `limit` ids that match, newest first, beginning behind the id `after`.

        Durable.
        """
        groups: list[list[bytes]] = [
            [keys.entries(query.kind, term) for term in dict.fromkeys(group)] for group in dict.fromkeys(query.all_of)
        ] or [[keys.records(query.kind)]]
        lower, upper = keys.id_bounds(query.kind, query.range)
        if after is not None:
            upper = min(upper, keys.encode_id(after))
        found = await self._walk(lambda db: walks.ids(db, groups, (lower, upper), limit))
        return [keys.decode_id(tail) for tail in found]

    async def scan_oldest(
        self, kind: RecordKind[M], term: Term, *, after: str | None = None, before_ms: int, limit: int
    ) -> list[str]:
        """Return ids under a term, oldest first; see `Store.scan_oldest`. Durable."""
        prefix = keys.entries(kind, term)
        lower, upper = keys.id_bounds(kind, Range(stop=before_ms))
        start = lower if after is None else keys.encode_id(after) + b"\x00"
        found = await self._walk(lambda db: walks.span(db, prefix + start, prefix + upper, limit))
        return [keys.decode_id(key[len(prefix) :]) for key in found]

    async def count(self, kind: RecordKind[M], term: Term, *, limit: int) -> int:
        """Return how many records are indexed under `term`, counting no further than `limit`.

        Pending.
        """
        prefix = keys.entries(kind, term)
        # The overlay is read when the snapshot is taken, without a break in between: together they
        # are one state.
        return await self._walk(lambda db: walks.count(db, prefix, limit, self._overlay.entries(prefix)))

    async def changes(self, execution_id: str, *, after: int, limit: int, max_bytes: int) -> list[ExecutionChange]:
        """Return changes after revision `after`, oldest first; see `Store.changes`. Durable."""
        found = await self.encoded_changes(execution_id, after=after, limit=limit, max_bytes=max_bytes)
        return [ExecutionChange.FromString(value) for _, value in found]

    async def encoded_changes(
        self, execution_id: str, *, after: int, limit: int, max_bytes: int
    ) -> list[tuple[int, bytes]]:
        """Return what `changes` returns, as it is stored; see `Store.encoded_changes`. Durable."""
        start, stop = keys.change(execution_id, after + 1), keys.changes_end(execution_id)
        found = await self._walk(lambda db: walks.values(db, start, stop, limit, max_bytes))
        return [(keys.change_revision(key), value) for key, value in found]

    async def expired(self, before_ms: int, *, limit: int) -> list[str]:
        """Return ids of idempotency records that expire before a time, soonest first. Durable."""
        stop = keys.expiry(before_ms, "")
        found = await self._walk(lambda db: walks.span(db, keys.EXPIRY, stop, limit))
        return [keys.expiry_id(key) for key in found]

    async def purge_changes(self, execution_id: str, *, limit: int) -> bool:
        """Remove up to `limit` changes of a deleted execution, oldest first.

        Tell whether any are left. Durable.
        """
        start, stop = keys.changes(execution_id), keys.changes_end(execution_id)
        found = await self._walk(lambda db: walks.span(db, start, stop, limit))
        self._log_ends.forget(execution_id)
        await self._ready()
        # Changes accepted before are on disk when this returns, so a look at the disk afterwards
        # misses none.
        await self._accept(Transaction(), [(key, None) for key in found], [])
        return bool(await self._walk(lambda db: walks.span(db, start, stop, 1)))

    async def copy(self) -> LevelDBCopy:
        """Begin a copy of everything that is on disk now; see `Copyable`."""
        self._check_open()
        return LevelDBCopy(self._database, await self._database.keep())

    async def close(self) -> None:
        """Write what is accepted, wait for running reads, cut off copies, release the data folder.

        A repeat does nothing.
        """
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._writer.stop()
        await self._database.close()
        self._folder.release()

    def _check_open(self) -> None:
        if self._closing is not None:
            raise unavailable("The store is closed")

    async def _ready(self) -> None:
        self._check_open()
        await self._database.ready()
        self._check_open()

    def _accept(self, transaction: Transaction, writes: list[Write], record_bytes: list[int]) -> asyncio.Future[None]:
        """Lay writes over the database and send them to the writer.

        The future tells when they are on disk.

        A caller that is cancelled cancels the future, not the transaction.
        """
        done = asyncio.get_running_loop().create_future()
        if not writes and not self._accepted:
            done.set_result(None)
            return done
        standing = self._standing(transaction)
        self._numbers += 1
        size = 0
        for key, value in writes:
            size += len(key) + (0 if value is None else len(value))
        accepted = Accepted(self._numbers, transaction, writes, record_bytes, size, done)
        self._accepted[accepted.number] = accepted
        self._overlay.add(accepted.number, writes)
        self._overlay.add_records(accepted.number, transaction, standing)
        self._log_ends.note(transaction)
        self._writer.send(accepted)
        return done

    def _standing(self, transaction: Transaction) -> dict[tuple[AnyKind, str], Message | None]:
        """Look up what readers of the disk are shown in place of records that may be there, and were not reported."""
        # What a transaction creates was just looked for, as its head, without which there is no record either.
        return {
            key: None if (EXECUTION_HEAD, key[1], None) in transaction.expectations else self._durable_record(*key)
            for key in (*transaction.puts, *transaction.deletes)
            if key[0] in _READ_TOGETHER and self._overlay.record(key) is None
        }

    def _written(self, batch: list[Accepted], error: Exception | None) -> None:
        """Hear from the writer what became of a batch."""
        if error is not None:
            self._fail(batch, error)
            return
        for accepted in batch:
            del self._accepted[accepted.number]
            self._overlay.settle(accepted.number, accepted.writes)
            self._overlay.settle_records(accepted.number, accepted.transaction)
            for key in accepted.transaction.deletes:
                self._recent.drop(key)
            for (key, message), size in zip(accepted.transaction.puts.items(), accepted.record_bytes, strict=True):
                self._recent.put(key, message, size)
        # Those who wait go on only after this turn of the loop, but before the readers that are woken in it.
        for accepted in batch:
            if not accepted.done.done():
                accepted.done.set_result(None)
        for accepted in batch:
            self._tell(accepted.transaction)

    def _tell(self, transaction: Transaction) -> None:
        for listener in self._told_of_all if transaction.in_place else self._listeners:
            try:
                listener(transaction)
            except Exception:  # noqa: BLE001  # one listener's error is not the others' nor the commit's
                _log.exception("a listener to commits failed")

    def _fail(self, batch: list[Accepted], error: Exception) -> None:
        """Give up the failed batch and all that was decided upon it; begin a new epoch.

        See `Writer`.
        """
        _log.error("a write to the data folder failed: %s", error)
        self._database.distrust()
        self._epoch += 1
        self._overlay.clear()
        self._log_ends.clear()
        self._in_doubt = batch
        failed, self._accepted = self._accepted, {}
        for accepted in failed.values():
            if not accepted.done.done():
                accepted.done.set_exception(unavailable("It could not be written", error))

    def _recovered(self) -> None:
        """Look whether the failed batch has come back, as the log may have held it whole.

        See `Database`.

        A batch is there whole or not at all. Those who waited for it were told that it may not be
        there; those who follow what is on disk are told that it is. Told without need, they read
        again and find nothing new.
        """
        self._writer.counts.recoveries += 1
        batch, self._in_doubt = self._in_doubt, []
        self._recent.clear()
        left = {key: value for accepted in batch for key, value in accepted.writes}
        if all(self._database.peek(key) == value for key, value in left.items()):
            for accepted in batch:
                self._tell(accepted.transaction)

    def _is_used(self, kind: RecordKind[M], term: Term) -> bool:
        """Look for an entry, without a break: what is decided on it is accepted in the same turn of the loop."""
        prefix = keys.entries(kind, term)
        pending = self._overlay.entries(prefix)
        return self._database.walk_now(lambda db: walks.count(db, prefix, 1, pending)) > 0

    def value(self, key: bytes) -> bytes | None:
        """Return the pending value of a key; for decisions, right after the database was found ready."""
        return self._overlay[key] if key in self._overlay else self._database.peek(key)

    def record(self, kind: RecordKind[M], record_id: str) -> M | None:
        """Return a pending record, shared; as `value`."""
        held = self._overlay.record((kind, record_id))
        if held is None:
            return self._durable_record(kind, record_id)
        record: M | None = held[1]  # type: ignore[assignment]  # what is kept under a kind is of that kind
        return record

    @property
    def readable_now(self) -> bool:
        """Whether point reads need not wait."""
        return self._closing is None and self._database.readable_now

    async def readable(self) -> None:
        """Return when point reads may begin. Raises `Unavailable`."""
        self._check_open()
        await self._database.readable()

    def log_end(self, execution_id: str) -> int | None:
        """Return the newest pending revision of a log that was lately written to; as `value`."""
        return self._log_ends.get(execution_id)

    def _durable_record(self, kind: RecordKind[M], record_id: str) -> M | None:
        key = (kind, record_id)
        known: Any = self._overlay.standing.get(key, _NOT_HERE)
        if known is _NOT_HERE:
            known = self._recent.get(key)
            if known is None:
                return self._read(kind, record_id)
        found: M | None = known
        return found

    def _read(self, kind: RecordKind[M], record_id: str) -> M | None:
        """Read a record from the disk, and keep it."""
        value = self._database.peek(keys.record(kind, record_id))
        if value is None:
            return None
        message = kind.message.FromString(value)
        self._recent.put((kind, record_id), message, len(value))
        return message

    async def _walk(self, make: Callable[[Any], Generator[None, None, T]]) -> T:
        self._check_open()
        return await self._database.walk(make)


class _LevelDBReader:
    """Point reads at one level of certainty."""

    def __init__(
        self,
        store: LevelDBStore,
        value: Callable[[bytes], bytes | None],
        record: Callable[[RecordKind[Any], str], Any],
    ) -> None:
        self._store = store
        self._value = value
        self._record = record

    async def shared(self, kind: RecordKind[M], record_id: str) -> M | None:
        """Return the record, not to be changed, or None."""
        if not self._store.readable_now:
            await self._store.readable()
        found: M | None = self._record(kind, record_id)
        return found

    async def get(self, kind: RecordKind[M], record_id: str) -> M | None:
        """Return the record, or None."""
        found = await self.shared(kind, record_id)
        if found is None:
            return None
        copy = kind.message()
        copy.CopyFrom(found)
        return copy

    async def holder(self, unique: Unique) -> str | None:
        """Return the id of the record that holds a name, or None when it is free."""
        if not self._store.readable_now:
            await self._store.readable()
        value = self._value(keys.name(unique))
        return None if value is None else keys.decode_id(value)

    async def change(self, execution_id: str, revision: int) -> ExecutionChange | None:
        """Return one change of an execution's log, or None."""
        if not self._store.readable_now:
            await self._store.readable()
        value = self._value(keys.change(execution_id, revision))
        return None if value is None else ExecutionChange.FromString(value)
