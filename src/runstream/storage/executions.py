"""Executions, put together from what the store keeps apart: record, head and fold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.storage.records import AGENT_EXECUTION, EXECUTION_HEAD
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC

if TYPE_CHECKING:
    from runstream.storage.folds import Folds
    from runstream.storage.store import Store
    from runstream.stored.v1.stored_pb2 import ExecutionHead
    from runstream.v1.agent_execution_pb2 import AgentExecution
    from runstream.v1.resource_pb2 import ResourceView


class Executions:
    """Reads whole executions at one revision.

    Everything it returns is durable and belongs to the caller.
    """

    def __init__(self, store: Store, folds: Folds) -> None:
        self._store = store
        self._folds = folds

    async def head(self, execution_id: str) -> ExecutionHead | None:
        """Return the durable head of an execution, or None."""
        return await self._store.durable.get(EXECUTION_HEAD, execution_id)

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
        record = await self._store.durable.get(AGENT_EXECUTION, execution_id)
        if record is None:
            return None
        record.metadata.revision = head.revision
        if view == RESOURCE_VIEW_BASIC:
            record.status.CopyFrom(head.status)
            return record
        status = await self._folds.status(execution_id, head.revision, into=record.status)
        return None if status is None else record
