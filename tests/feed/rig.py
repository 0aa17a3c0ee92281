"""The feed on a real store, without a server around it: what is committed here is followed here."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from runstream.feed.announcer import Announcer
from runstream.feed.follow import Follower
from runstream.feed.hub import Hub
from runstream.feed.recency import DEFAULT_CAPACITY, Recency
from runstream.model.phases import is_terminal
from runstream.services.resource_types import EXECUTIONS
from runstream.storage.executions import Executions
from runstream.storage.folds import Folds
from runstream.storage.leveldb import LevelDBStore
from runstream.storage.records import AGENT_EXECUTION, EXECUTION_HEAD, TOMBSTONE
from runstream.storage.store import Query, Transaction
from runstream.stored.v1.stored_pb2 import ExecutionHead, Tombstone
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_COMPLETED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PENDING,
    AgentExecution,
    ExecutionChange,
)
from tests.storage.samples import make_id

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    from runstream.feed.follow import Started
    from runstream.v1.resource_pb2 import ResourceView

EVERY_EXECUTION = Query(AGENT_EXECUTION)


async def no_start() -> None:
    """Do nothing when a stream has started."""


class Rig:
    """A store whose commits are announced, a follower of it, and one writer of each execution."""

    def __init__(self, store: LevelDBStore, capacity: int) -> None:
        self.store = store
        self.hub = Hub()
        self.folds = Folds(store, max_bytes=1 << 20)
        self.executions = Executions(store, self.folds)
        self.recency = Recency(capacity)
        self.follower = Follower(store, self.executions, self.hub, self.recency)
        self._heads: dict[str, ExecutionHead] = {}
        store.on_commit(Announcer(self.hub, self.recency, self.folds, self.follower))

    async def changes(
        self, execution_id: str, after: int, *, from_snapshot: bool, started: Started = no_start
    ) -> AsyncGenerator[ExecutionChange, None]:
        """Follow the changes of an execution, decoded."""
        follow = self.follower.changes(execution_id, after, from_snapshot=from_snapshot, started=started)
        async with aclosing(follow) as changes:
            async for change in changes:
                yield ExecutionChange.FromString(change)

    async def states(
        self, execution_id: str, after: int, view: ResourceView.ValueType, started: Started = no_start
    ) -> AsyncGenerator[AgentExecution, None]:
        """Follow the states of an execution, decoded."""
        async with aclosing(self.follower.states(execution_id, after, view, started)) as states:
            async for state in states:
                yield AgentExecution.FromString(state)

    async def create(self, number: int = 1) -> str:
        """Commit a new execution; return its id."""
        execution_id = make_id(number)
        state = AgentExecution()
        state.metadata.id = execution_id
        state.metadata.revision = 1
        state.status.phase = EXECUTION_PENDING
        self._heads[execution_id] = ExecutionHead()
        change = ExecutionChange(execution_id=execution_id, revision=1, created=state)
        transaction = self._next(change)
        transaction.delete(TOMBSTONE, execution_id)  # as an import does
        transaction.put(AGENT_EXECUTION, execution_id, state)
        transaction.index(AGENT_EXECUTION, execution_id, after=EXECUTIONS.terms(state))
        await self.store.commit(transaction)
        return execution_id

    def write(self, execution_id: str, *, end: bool = False) -> Transaction:
        """Stage the next change of an execution, its last one perhaps. Transactions must be committed in order."""
        change = ExecutionChange(execution_id=execution_id, revision=self._heads[execution_id].revision + 1)
        change.status.phase = EXECUTION_COMPLETED if end else EXECUTION_IN_PROGRESS
        change.status.messages.add(id="m", content_append=f"{change.revision} ")
        change.terminal = end
        return self._next(change)

    async def commit(self, execution_id: str, *, end: bool = False) -> int:
        """Commit the next change; return its revision."""
        transaction = self.write(execution_id, end=end)
        await self.store.commit(transaction)
        return transaction.changes[0].revision

    async def relabel(self, execution_id: str, mood: str) -> int:
        """Commit an update of the labels, which rewrites the record; return its revision."""
        record = await self.store.durable.get(AGENT_EXECUTION, execution_id)
        assert record is not None
        record.metadata.labels["mood"] = mood
        record.metadata.revision = self._heads[execution_id].revision + 1
        change = ExecutionChange(execution_id=execution_id, revision=record.metadata.revision, updated=record)
        transaction = self._next(change)
        transaction.put(AGENT_EXECUTION, execution_id, record)
        await self.store.commit(transaction)
        return change.revision

    async def delete(self, execution_id: str) -> None:
        """Commit what a Delete commits; the log stays until `purge`."""
        transaction, revision = Transaction(), self._heads.pop(execution_id).revision
        transaction.delete(EXECUTION_HEAD, execution_id)
        transaction.delete(AGENT_EXECUTION, execution_id)
        transaction.put(TOMBSTONE, execution_id, Tombstone(revision=revision + 1))
        await self.store.commit(transaction)

    async def purge(self, execution_id: str, *, limit: int = 1000) -> None:
        """Remove the beginning of a deleted execution's log."""
        await self.store.purge_changes(execution_id, limit=limit)

    async def log(self, execution_id: str) -> list[ExecutionChange]:
        """Read the whole log."""
        return await self.store.changes(execution_id, after=0, limit=1 << 20, max_bytes=1 << 30)

    def _next(self, change: ExecutionChange) -> Transaction:
        before = self._heads[change.execution_id]
        head = ExecutionHead()
        head.CopyFrom(before)
        head.revision = change.revision
        head.status.phase = change.status.phase or before.status.phase or EXECUTION_PENDING
        head.log_bytes += change.ByteSize()
        self._heads[change.execution_id] = head
        transaction = Transaction()
        transaction.expect(EXECUTION_HEAD, change.execution_id, before.revision or None)
        transaction.append(change)
        transaction.put(EXECUTION_HEAD, change.execution_id, head)
        assert change.terminal == is_terminal(head.status.phase)
        return transaction


@asynccontextmanager
async def rig(folder: Path, capacity: int = DEFAULT_CAPACITY) -> AsyncIterator[Rig]:
    """Have a rig on a data folder for the length of the block."""
    store = LevelDBStore.open(folder, owner={})
    made = Rig(store, capacity)
    try:
        yield made
    finally:
        made.hub.close()
        await made.folds.close()
        await store.close()


def every(_: AgentExecution) -> bool:
    """Take every execution."""
    return True
