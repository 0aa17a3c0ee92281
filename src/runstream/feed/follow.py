"""Following: take the wake, read after the cursor, yield, wait. No buffer stands between the log and a reader.

Every follower has the same loop. The flag is cleared before the read, so a commit that lands after the read puts it up
again. The cursor lives in the loop alone; a reader that comes back with its cursor continues as if it had never gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from runstream.feed.chunks import Chunks
from runstream.feed.hub import ANY_EXECUTION
from runstream.model.errors import NotFound, OutOfRange, not_found
from runstream.model.phases import is_terminal
from runstream.storage.records import TOMBSTONE
from runstream.v1.agent_execution_pb2 import CHANGE_AUTHOR_USER, ExecutionChange, ExecutionDeleted
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC, RESOURCE_VIEW_FULL

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from runstream.feed.hub import Hub, Offer, Wake
    from runstream.feed.recency import Recency
    from runstream.storage.executions import Executions
    from runstream.storage.store import Query, Store
    from runstream.stored.v1.stored_pb2 import ExecutionHead
    from runstream.v1.agent_execution_pb2 import AgentExecution
    from runstream.v1.resource_pb2 import ResourceView

#: Is called once a stream has begun, before it has anything to tell. May return a way to pass on messages without the
#: generator, while that waits.
Started: TypeAlias = "Callable[[], Awaitable[Offer | None]]"

CHUNK_IDS = 500


async def _nothing() -> None:
    """Tell nobody."""


class Follower:
    """Follows executions in a store, woken by a hub."""

    def __init__(self, store: Store, executions: Executions, hub: Hub, recency: Recency) -> None:
        self._store = store
        self._executions = executions
        self._hub = hub
        self._recency = recency
        self._chunks = Chunks(store)

    def forget(self, execution_id: str) -> None:
        """Drop what is remembered of an execution that was deleted."""
        self._chunks.forget(execution_id)
        self._executions.forget(execution_id)

    async def states(
        self, execution_id: str, after: int, view: ResourceView.ValueType, started: Started = _nothing
    ) -> AsyncGenerator[bytes, None]:
        """Yield the state now, unless it is at revision `after`, then newer ones, skipping to the newest.

        Each is an `AgentExecution` in protobuf encoding, made once for all who follow.
        `started` is called once the execution is found. Ends after the terminal state. Raises `NotFound` for an unknown
        execution and, with reason EXECUTION_DELETED, when it is deleted meanwhile; `OutOfRange` when `after` is ahead;
        `Unavailable` when the hub closes.
        """
        with self._hub.listen(execution_id) as wake:
            wake.clear()
            cursor = after
            head, _ = await self._first_head(execution_id, after, started)
            while True:
                if head.revision > cursor:
                    state = await self._executions.encoded_at_head(execution_id, head, view)
                    if state is None:
                        raise _deleted(execution_id)
                    yield state
                    cursor = head.revision
                if is_terminal(head.status.phase):
                    return
                head = await self._next_head(execution_id, cursor, wake)

    async def changes(
        self, execution_id: str, after: int, *, from_snapshot: bool, started: Started = _nothing
    ) -> AsyncGenerator[bytes, None]:
        """Yield every change after revision `after`, exactly once and in order; first the state, if asked for.

        Each is an `ExecutionChange` in protobuf encoding, as it is stored. What `started` returns is offered changes
        that come while this waits; those that it takes are not yielded.
        Ends after the terminal change, and raises as `states` does. A reader that has all changes when the execution
        is deleted gets that as a last change.
        """
        with self._hub.listen(execution_id) as wake:
            wake.clear()
            cursor = after
            head, offer = await self._first_head(execution_id, after, started)
            if from_snapshot and head.revision > cursor:
                yield (await self._snapshot(execution_id, head)).SerializeToString()
                cursor = head.revision
            while True:
                while cursor < head.revision:
                    chunk = await self._chunks.read(execution_id, cursor, head.revision)
                    # The log of a deleted execution goes from its beginning: a gap is a deletion, never a loss.
                    if not chunk or chunk[0][0] != cursor + 1:
                        raise _deleted(execution_id)
                    for revision, change in chunk:
                        yield change
                        cursor = revision
                if is_terminal(head.status.phase):
                    return
                cursor = await wake.wait_in_step(cursor, offer)
                wake.clear()
                next_head = await self._executions.head(execution_id)
                if next_head is None:
                    deletion = await self._deletion(execution_id, cursor)
                    if deletion is not None:
                        yield deletion.SerializeToString()
                    raise _deleted(execution_id)
                head = next_head

    async def heads(
        self,
        query: Query,
        matches: Callable[[AgentExecution], bool],
        started: Started,
    ) -> AsyncGenerator[AgentExecution, None]:
        """Yield the newest state (BASIC) of every matching execution as it changes; never ends by itself.

        `started` is called once changes are being followed. A reader that fell far behind gets all that match
        `query` once more instead of what it missed.
        """
        with self._hub.listen(ANY_EXECUTION) as wake:
            tick = self._recency.tick
            await started()
            while True:
                wake.clear()
                ids, tick = self._recency.since(tick), self._recency.tick
                source = self._scan(query) if ids is None else _each(ids)
                async for execution_id in source:
                    state = await self._executions.get(execution_id, RESOURCE_VIEW_BASIC)
                    if state is not None and matches(state):
                        yield state
                await wake.wait()

    async def _first_head(self, execution_id: str, after: int, started: Started) -> tuple[ExecutionHead, Offer | None]:
        head = await self._executions.head(execution_id)
        if head is None:
            raise not_found("AGENT_EXECUTION", execution_id)
        if after > head.revision:
            raise OutOfRange(
                "REVISION_AHEAD",
                f"after_revision is {after}, but execution {execution_id} is at revision"
                f" {head.revision}. Use at most that; 0 is from the beginning.",
                metadata={"id": execution_id, "revision": str(head.revision)},
            )
        offer = await started()
        # Read again: a state is put together from record and head as they are at one time, which is now.
        head = await self._executions.head(execution_id)
        if head is None:
            raise _deleted(execution_id)
        return head, offer

    async def _next_head(self, execution_id: str, cursor: int, wake: Wake) -> ExecutionHead:
        """Return the head once it has moved past the cursor. The flag was lowered before the head was read last."""
        while True:
            await wake.wait()
            wake.clear()
            head = await self._executions.head(execution_id)
            if head is None:
                raise _deleted(execution_id)
            if head.revision > cursor:
                return head

    async def _snapshot(self, execution_id: str, head: ExecutionHead) -> ExecutionChange:
        state = await self._executions.at_head(execution_id, head, RESOURCE_VIEW_FULL)
        if state is None:
            raise _deleted(execution_id)
        return ExecutionChange(
            execution_id=execution_id,
            revision=head.revision,
            change_time=head.status.audit.status_audit.updated_at,
            attempt=head.status.attempt,
            snapshot=state,
            terminal=is_terminal(head.status.phase),
        )

    async def _deletion(self, execution_id: str, cursor: int) -> ExecutionChange | None:
        tombstone = await self._store.durable.get(TOMBSTONE, execution_id)
        if tombstone is None or tombstone.revision != cursor + 1:
            return None
        return ExecutionChange(
            execution_id=execution_id,
            revision=tombstone.revision,
            change_time=tombstone.delete_time,
            attempt=tombstone.attempt,
            author=CHANGE_AUTHOR_USER,
            deleted=ExecutionDeleted(deleted_by=tombstone.deleted_by),
            terminal=True,
        )

    async def _scan(self, query: Query) -> AsyncGenerator[str, None]:
        after = None
        while ids := await self._store.scan(query, after=after, limit=CHUNK_IDS):
            for execution_id in ids:
                yield execution_id
            after = ids[-1]


async def _each(ids: list[str]) -> AsyncGenerator[str, None]:
    for execution_id in ids:
        yield execution_id


def _deleted(execution_id: str) -> NotFound:
    return NotFound(
        "EXECUTION_DELETED",
        f"Execution {execution_id} was deleted.",
        metadata={"id": execution_id},
    )
