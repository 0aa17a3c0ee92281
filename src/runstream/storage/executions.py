"""Executions, put together from what the store keeps apart: record, head and fold."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeAlias
from weakref import WeakValueDictionary

from runstream.storage.records import AGENT_EXECUTION, EXECUTION_HEAD
from runstream.v1.agent_execution_pb2 import AgentExecution
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC, ResourceView

if TYPE_CHECKING:
    from runstream.storage.folds import Folds
    from runstream.storage.store import Store
    from runstream.stored.v1.stored_pb2 import ExecutionHead


#: An execution at a revision, in a view.
_State: TypeAlias = "tuple[str, int, ResourceView.ValueType]"

_KEPT_BYTES: Final = 8 << 20
#: The revision of an execution that was created and then given to a runner.
_FIRST_ASSIGNED: Final = 2


class Executions:
    """Reads whole executions at one revision.

    Everything it returns is durable; whole executions belong to the caller.
    """

    def __init__(self, store: Store, folds: Folds) -> None:
        self._store = store
        self._folds = folds
        #: The newest that was asked for of each execution and view: its revision and its encoding.
        self._encoded: OrderedDict[tuple[str, ResourceView.ValueType], tuple[int, bytes]] = OrderedDict()
        self._encoded_bytes = 0
        # A lock lives as long as somebody holds it or waits for it.
        self._encoding: WeakValueDictionary[_State, asyncio.Lock] = WeakValueDictionary()

    async def head(self, execution_id: str) -> ExecutionHead | None:
        """Return the durable head of an execution, not to be changed, or None."""
        return await self._store.durable.shared(EXECUTION_HEAD, execution_id)

    async def get(self, execution_id: str, view: ResourceView.ValueType) -> AgentExecution | None:
        """Return an execution as it is on disk, or None.

        BASIC costs the same however long it has grown.
        """
        head = await self.head(execution_id)
        if head is None:
            return None
        return await self.at_head(execution_id, head, view)

    async def at_head(
        self, execution_id: str, head: ExecutionHead, view: ResourceView.ValueType
    ) -> AgentExecution | None:
        """Return an execution at the revision of `head`, which must be durable.

        None when it was deleted since.
        """
        record = await self._store.durable.shared(AGENT_EXECUTION, execution_id)
        if record is None:
            return None
        execution = AgentExecution()
        execution.CopyFrom(record)
        return await self._complete(execution, execution_id, head, view)

    async def encoded_at_head(
        self, execution_id: str, head: ExecutionHead, view: ResourceView.ValueType
    ) -> bytes | None:
        """Return what `at_head` returns in protobuf encoding, made once for all who ask while it is remembered."""
        state: _State = (execution_id, head.revision, view)
        kept = self._kept(state)
        if kept is not None:
            return kept
        # Read before anything is waited for: record and head are of one time.
        record = await self._store.durable.get(AGENT_EXECUTION, execution_id)
        if record is None:
            return None
        lock = self._encoding.setdefault(state, asyncio.Lock())
        async with lock:
            kept = self._kept(state)
            if kept is not None:
                return kept
            execution = await self._complete(record, execution_id, head, view)
            if execution is None:
                return None
            encoded = execution.SerializeToString()
            # What was begun before the execution was forgotten is for its caller alone.
            return self._keep(state, encoded) if self._encoding.get(state) is lock else encoded

    def forget(self, execution_id: str) -> None:
        """Drop what is remembered of an execution, as when it is deleted."""
        # Nothing here looks at what is remembered of others: many may be deleted one after the other.
        for view in ResourceView.values():
            self._drop(execution_id, view)
        for state in [state for state in self._encoding if state[0] == execution_id]:
            del self._encoding[state]

    async def _complete(
        self, record: AgentExecution, execution_id: str, head: ExecutionHead, view: ResourceView.ValueType
    ) -> AgentExecution | None:
        """Give a record the revision and the status that it has at `head`."""
        record.metadata.revision = head.revision
        if view == RESOURCE_VIEW_BASIC or _nothing_reported(head):
            record.status.CopyFrom(head.status)
            return record
        status = await self._folds.status(execution_id, head.revision, into=record.status)
        return None if status is None else record

    def _kept(self, state: _State) -> bytes | None:
        execution_id, revision, view = state
        kept = self._encoded.get((execution_id, view))
        return kept[1] if kept is not None and kept[0] == revision else None

    def _keep(self, state: _State, encoded: bytes) -> bytes:
        """Remember a state in place of an earlier one."""
        execution_id, revision, view = state
        kept = self._encoded.get((execution_id, view))
        if len(encoded) > _KEPT_BYTES // 2 or (kept is not None and kept[0] > revision):
            return encoded
        self._drop(execution_id, view)
        self._encoded[execution_id, view] = revision, encoded
        self._encoded_bytes += len(encoded)
        while self._encoded_bytes > _KEPT_BYTES:
            _, (_, gone) = self._encoded.popitem(last=False)
            self._encoded_bytes -= len(gone)
        return encoded

    def _drop(self, execution_id: str, view: ResourceView.ValueType) -> None:
        _, gone = self._encoded.pop((execution_id, view), (0, b""))
        self._encoded_bytes -= len(gone)


def _nothing_reported(head: ExecutionHead) -> bool:
    """Tell whether the head's status is the whole of it: it was created and given to its first runner, no more.

    Each of those two is a change, and neither has entries. So what a runner is given first costs no look at the log.
    """
    return head.revision == _FIRST_ASSIGNED and head.status.attempt == 1 and bool(head.runner_id)
