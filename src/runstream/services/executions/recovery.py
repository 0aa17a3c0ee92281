"""Recovery: Recover, the one way out of an end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runstream.model.phases import check_recovery, is_terminal
from runstream.pipeline.steps import audit_update
from runstream.services.executions.control import new_control
from runstream.services.executions.loading import (
    LOADED,
    AnswerExecution,
    answer_unchanged,
    load,
    load_record,
)
from runstream.services.executions.parents import load_parent
from runstream.services.executions.staging import new_change, next_head, stage_change
from runstream.services.executions.time_limit import new_deadline
from runstream.storage.records import AGENT_EXECUTION
from runstream.v1.agent_execution_pb2 import (
    CHANGE_AUTHOR_USER,
    EXECUTION_PENDING,
    AgentExecutionStatus,
)

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from runstream.pipeline.context import RequestContext
    from runstream.services.executions.changes import StatusChange
    from runstream.services.executions.loading import Loaded
    from runstream.stored.v1.stored_pb2 import ExecutionHead
    from runstream.v1.agent_execution_pb2 import AgentExecution

#: What an execution that is recovered takes back of its end.
_TAKEN_BACK: Final = ("completed_at", "error", "reason")
_EVENT: Final = "recovered"


class AnswerIfLive:
    """Answers when the execution has not ended, as one that was recovered already."""

    def __init__(self, answer: AnswerExecution) -> None:
        self._answer = answer

    async def __call__(self, context: RequestContext[Any, Any]) -> AgentExecution | None:
        """Look at the phase."""
        if is_terminal(context.value(LOADED).phase):
            return None
        return await answer_unchanged(context, self._answer)


class CheckRecovery:
    """Refuses to recover what ended otherwise than FAILED, or what is a part of something that has ended.

    FAILED_PRECONDITION, reasons EXECUTION_TERMINAL, PARENT_ENDING; NOT_FOUND, reason PARENT_NOT_FOUND.
    """

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Look at the phase, and at the parent: without it, the execution would be ended again at once."""
        loaded = context.value(LOADED)
        check_recovery(loaded.phase)
        if loaded.head.parent_id:
            await load_parent(context, loaded.head.parent_id)


class StageRecovery:
    """Queues the execution again, with all its work and as much time as it had at first."""

    def __init__(self, status_change: StatusChange) -> None:
        self._status_change = status_change

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Add the recovery to the transaction, and the new deadline if there was one."""
        loaded = context.value(LOADED)
        deadline = await new_deadline(context, loaded)
        await self._status_change.stage(
            context,
            loaded,
            AgentExecutionStatus(phase=EXECUTION_PENDING, control=new_control(context, reason=context.request.reason)),
            author=CHANGE_AUTHOR_USER,
            replace=_TAKEN_BACK,
            revise=_begin_anew,
            event=_EVENT,
        )
        if deadline is not None:
            await _stage_deadline(context, await load(context, loaded.id), deadline)


def _begin_anew(head: ExecutionHead, _delta: AgentExecutionStatus) -> None:
    head.resume, head.lost_attempts = True, 0


async def _stage_deadline(context: RequestContext[Any, Any], loaded: Loaded, deadline: Timestamp) -> None:
    """Write a new deadline into head and spec, as a change of its own: who folds changes must learn of it."""
    record, head = await load_record(context, loaded), next_head(loaded)
    head.deadline.CopyFrom(deadline)
    audit_update(head.status.audit.spec_audit, context, _EVENT)
    record.spec.context.deadline.CopyFrom(deadline)
    record.metadata.revision = head.revision
    change = new_change(context, loaded, CHANGE_AUTHOR_USER)
    change.updated.CopyFrom(record)
    change.updated.status.audit.spec_audit.CopyFrom(head.status.audit.spec_audit)
    context.transaction.put(AGENT_EXECUTION, loaded.id, record)
    stage_change(context, loaded, change, head)
