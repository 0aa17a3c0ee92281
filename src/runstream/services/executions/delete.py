"""Delete: the execution goes in one commit; its log follows in the background."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runstream.model.times import to_timestamp
from runstream.services.executions.changes import catch_up
from runstream.services.executions.loading import LOADED, load_record
from runstream.services.executions.parents import stage_deleted_in_parent
from runstream.services.resource_types import EXECUTIONS
from runstream.storage.records import (
    AGENT_EXECUTION,
    EXECUTION_HEAD,
    EXECUTION_SECRETS,
    STATUS_SNAPSHOT,
    TOMBSTONE,
)
from runstream.stored.v1.stored_pb2 import Tombstone
from runstream.v1.agent_execution_pb2 import AgentExecution
from runstream.v1.resource_pb2 import AuditActor

if TYPE_CHECKING:
    from runstream.pipeline.context import RequestContext
    from runstream.storage.folds import Folds
    from runstream.storage.records import RecordKind


class BuildDeletedExecution:
    """Puts together what the answer will show: the execution as it was, whole."""

    def __init__(self, folds: Folds) -> None:
        self._folds = folds

    async def __call__(self, context: RequestContext[Any, AgentExecution]) -> None:
        """Set the state."""
        loaded, status = await catch_up(context, self._folds, context.value(LOADED))
        context.put(LOADED, loaded)
        state = AgentExecution()
        state.CopyFrom(await load_record(context, loaded))
        state.metadata.revision = loaded.head.revision
        state.status.CopyFrom(status)
        context.state = state


class StageDeletedExecution:
    """Stages the removal of everything but the log, and the tombstone that stands for the log until it is gone.

    The parent of one that has not ended learns that it never will.
    """

    async def __call__(self, context: RequestContext[Any, AgentExecution]) -> None:
        """Add the removal to the transaction."""
        loaded, transaction = context.value(LOADED), context.transaction
        transaction.expect(EXECUTION_HEAD, loaded.id, loaded.head.revision)
        gone: tuple[RecordKind[Any], ...] = (
            AGENT_EXECUTION,
            EXECUTION_HEAD,
            EXECUTION_SECRETS,
            STATUS_SNAPSHOT,
        )
        for kind in gone:
            transaction.delete(kind, loaded.id)
        transaction.index(AGENT_EXECUTION, loaded.id, before=EXECUTIONS.terms(context.state))
        transaction.put(
            TOMBSTONE,
            loaded.id,
            Tombstone(
                revision=loaded.head.revision + 1,
                delete_time=to_timestamp(context.now),
                deleted_by=AuditActor(id=context.caller.actor),
                attempt=loaded.status.attempt,
            ),
        )
        await stage_deleted_in_parent(context, loaded)
