"""Folds: the whole status of an execution at one revision, from a snapshot and what follows it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from runstream.model.merge import EntryIndex, fold_all
from runstream.storage.records import STATUS_SNAPSHOT
from runstream.storage.snapshots import Snapshots
from runstream.v1.agent_execution_pb2 import AgentExecution, AgentExecutionStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from runstream.storage.store import Store
    from runstream.stored.v1.stored_pb2 import ExecutionHead
    from runstream.v1.agent_execution_pb2 import ExecutionChange

#: How much of a log is folded before others get their turn on the event loop: a few milliseconds.
_CHUNK_CHANGES: Final = 64
_CHUNK_BYTES: Final = 256 << 10
#: How much a fold may hold for nothing before it is worth a copy.
_MIN_STALE_BYTES: Final = 64 << 10


@dataclass(slots=True)
class _Folded:
    """A fold under way: an execution, of which only the status and the revision are kept."""

    execution: AgentExecution = field(default_factory=AgentExecution)
    #: About how many bytes the status is; what was replaced since it was loaded still counts.
    size: int = 0
    #: Finds the entries of the lists by id, so that a step costs what its delta costs.
    index: EntryIndex = field(default_factory=EntryIndex)

    @property
    def revision(self) -> int:
        """The revision of the newest change in it; 0 before the first."""
        return self.execution.metadata.revision

    @property
    def memory(self) -> int:
        """About how many bytes it holds, counted as serialized."""
        return self.size + self.index.stale_bytes

    def apply(self, changes: Sequence[ExecutionChange]) -> None:
        """Fold changes, each the one after the other."""
        fold_all(self.execution, changes, self.index)
        self.size += sum(change.ByteSize() for change in changes)
        # Metadata and spec are not what is asked for here, and may be large.
        self.index.stale_bytes += self.execution.spec.ByteSize()
        revision = self.revision
        self.execution.ClearField("spec")
        self.execution.metadata.Clear()
        self.execution.metadata.revision = revision
        if self.index.stale_bytes > max(self.size, _MIN_STALE_BYTES):
            self._renew()

    def _renew(self) -> None:
        """Give back what replaced fields still hold: a message frees nothing before it goes whole."""
        execution = AgentExecution()
        execution.CopyFrom(self.execution)
        self.execution = execution
        self.size = execution.ByteSize()
        self.index.stale_bytes = 0


class _Cache:
    """Folds by execution; the least recently used leave when all together pass `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._folds: OrderedDict[str, tuple[_Folded, int]] = OrderedDict()

    def get(self, execution_id: str) -> _Folded | None:
        held = self._folds.get(execution_id)
        return None if held is None else held[0]

    def put(self, execution_id: str, folded: _Folded) -> None:
        self.drop(execution_id)
        self._folds[execution_id] = folded, folded.memory
        self._bytes += folded.memory
        while self._bytes > self._max_bytes:
            _, (_, size) = self._folds.popitem(last=False)
            self._bytes -= size

    def drop(self, execution_id: str) -> None:
        _, size = self._folds.pop(execution_id, (None, 0))
        self._bytes -= size

    @property
    def size(self) -> int:
        return self._bytes

    def __len__(self) -> int:
        return len(self._folds)


class Folds:
    """Folds statuses when they are asked for, keeps the recent ones, and has snapshots stored.

    Only durable changes go into the cache: a pending one may yet be undone, and another take its
    revision. At most one fold is under way per execution, so that each step is applied once and in
    order. A fold is interrupted between changes only, never within one, so a cancelled caller
    leaves a sound fold behind.
    """

    def __init__(self, store: Store, *, max_bytes: int) -> None:
        """Take the store and about how many bytes of statuses to keep, counted as serialized.

        In memory they are several times that.
        """
        self._store = store
        self._cache = _Cache(max_bytes)
        # A lock lives as long as somebody holds it or waits for it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._snapshots = Snapshots(store, self.status)
        #: How often a fold went on from one that was kept, and how often it began with what is on disk.
        self.hits = 0
        self.misses = 0

    @property
    def cached_bytes(self) -> int:
        """About how many bytes of statuses are kept."""
        return self._cache.size

    @property
    def cached(self) -> int:
        """Of how many executions the status is kept."""
        return len(self._cache)

    @property
    def snapshots_under_way(self) -> int:
        """Of how many executions a snapshot is being made."""
        return self._snapshots.under_way

    async def status(
        self,
        execution_id: str,
        revision: int,
        *,
        pending: bool = False,
        into: AgentExecutionStatus | None = None,
    ) -> AgentExecutionStatus | None:
        """Return the whole status after the change at `revision`; None if the log does not reach it.

        The log does not reach a revision when the execution does not exist, was deleted since, or
        has not come so far: on disk, or with `pending` on its way there. The answer belongs to the
        caller; it is written over `into` where that is given, which saves a copy.
        """
        async with self._turn(execution_id) as lock:
            folded = await self._reach(execution_id, revision, lock)
            if folded.revision < revision and pending:
                folded = await self._go_on_pending(execution_id, folded, revision)
            if folded.revision != revision or revision == 0:
                return None
            answer = AgentExecutionStatus() if into is None else into
            answer.CopyFrom(folded.execution.status)
            return answer

    def forget(self, execution_id: str) -> None:
        """Drop what is kept of an execution, as when it is deleted."""
        self._cache.drop(execution_id)
        self._locks.pop(execution_id, None)
        self._snapshots.forget(execution_id)

    def note_commit(self, execution_id: str, head: ExecutionHead) -> None:
        """Hear that `head` is on disk; see `Snapshots.note_commit`.

        Costs the same however long the execution is.
        """
        self._snapshots.note_commit(execution_id, head)

    async def settle(self) -> None:
        """Wait until no snapshot is under way."""
        await self._snapshots.settle()

    async def close(self) -> None:
        """Wait for the snapshots under way; begin no more. A repeat does nothing."""
        await self._snapshots.close()

    @asynccontextmanager
    async def _turn(self, execution_id: str) -> AsyncIterator[asyncio.Lock]:
        """Have the lock of an execution: a new one when it was forgotten, also while this waited."""
        while True:
            lock = self._locks.setdefault(execution_id, asyncio.Lock())
            async with lock:
                if self._locks.get(execution_id) is lock:
                    yield lock
                    return

    async def _reach(self, execution_id: str, revision: int, lock: asyncio.Lock) -> _Folded:
        """Fold what is on disk up to `revision`, or as far as it goes."""
        cached = self._cache.get(execution_id)
        usable = cached is not None and cached.revision <= revision
        if cached is not None and usable:
            folded = cached
            self.hits += 1
        else:
            self.misses += 1
            folded = await self._load(execution_id, revision)
        try:
            await self._advance(execution_id, folded, revision)
        except Exception:
            self._cache.drop(execution_id)
            raise
        # A fold of an earlier state than the cached one is for its caller alone, and so is one that was begun before
        # the execution was forgotten: another one of its id may be there.
        if folded.revision and (cached is None or usable) and self._locks.get(execution_id) is lock:
            self._cache.put(execution_id, folded)
        return folded

    async def _load(self, execution_id: str, revision: int) -> _Folded:
        """Begin with the newest snapshot, or with nothing when there is none or it is too new."""
        snapshot = await self._store.durable.get(STATUS_SNAPSHOT, execution_id)
        folded = _Folded()
        if snapshot is not None and snapshot.revision <= revision:
            folded.execution.status.CopyFrom(snapshot.status)
            folded.execution.metadata.revision = snapshot.revision
            folded.size = snapshot.ByteSize()
        return folded

    async def _advance(self, execution_id: str, folded: _Folded, revision: int) -> None:
        while folded.revision < revision:
            changes = await self._store.changes(
                execution_id,
                after=folded.revision,
                limit=min(_CHUNK_CHANGES, revision - folded.revision),
                max_bytes=_CHUNK_BYTES,
            )
            # A gap in front is the log of a deleted execution, already purged from its beginning.
            if not changes or changes[0].revision != folded.revision + 1:
                return
            folded.apply(changes)
            if folded.revision < revision:
                await asyncio.sleep(0)

    async def _go_on_pending(self, execution_id: str, durable: _Folded, revision: int) -> _Folded:
        """Fold the changes on their way to disk onto a copy."""
        # Nothing here gives others a turn: all changes are read from one pending state.
        changes: list[ExecutionChange] = []
        for wanted in range(durable.revision + 1, revision + 1):
            change = await self._store.pending.change(execution_id, wanted)
            if change is None:
                return durable
            changes.append(change)
        folded = _Folded(size=durable.size)
        folded.execution.CopyFrom(durable.execution)
        folded.apply(changes)
        return folded
