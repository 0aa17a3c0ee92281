"""Changes: what every command that touches an execution stages. One change, one head, the index entries that differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runstream.model.merge import Stamp, fold, merge_status, settle
from runstream.model.phases import is_terminal
from runstream.model.times import to_rfc3339, to_timestamp
from runstream.model.views import LIST_FIELDS, basic_status
from runstream.pipeline.steps import audit_update
from runstream.services.executions.loading import Loaded
from runstream.services.resource_types import status_terms
from runstream.storage.records import AGENT_EXECUTION, EXECUTION_HEAD, EXECUTION_SECRETS
from runstream.storage.store import Conflict
from runstream.stored.v1.stored_pb2 import ExecutionHead
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_CANCELLED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_TERMINATED,
    AgentExecution,
    AgentExecutionStatus,
    ExecutionChange,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runstream.pipeline.context import RequestContext
    from runstream.storage.folds import Folds
    from runstream.v1.agent_execution_pb2 import ChangeAuthor

#: The reason of an end for which nobody gave one.
DEFAULT_REASONS = {
    EXECUTION_FAILED: "AGENT_FAILED",
    EXECUTION_CANCELLED: "CANCELLED",
    EXECUTION_TERMINATED: "TERMINATED",
}


def new_change(context: RequestContext[Any, Any], loaded: Loaded, author: ChangeAuthor.ValueType) -> ExecutionChange:
    """Begin the next change of an execution; the caller sets what it did."""
    return ExecutionChange(
        execution_id=loaded.id,
        revision=loaded.head.revision + 1,
        change_time=to_timestamp(context.now),
        attempt=loaded.head.status.attempt,
        author=author,
    )


def next_head(loaded: Loaded) -> ExecutionHead:
    """Begin the head after the next change; the caller merges what the change did into its status."""
    head = ExecutionHead()
    head.CopyFrom(loaded.head)
    head.revision += 1
    return head


def stage_change(
    context: RequestContext[Any, Any], loaded: Loaded, change: ExecutionChange, head: ExecutionHead
) -> None:
    """Stage a change and the head after it, expecting that nobody commits to the execution meanwhile."""
    head.log_bytes += change.ByteSize()
    transaction = context.transaction
    transaction.expect(EXECUTION_HEAD, loaded.id, loaded.head.revision)
    transaction.append(change)
    transaction.put(EXECUTION_HEAD, loaded.id, head)
    transaction.index(
        AGENT_EXECUTION,
        loaded.id,
        before=status_terms(loaded.head.status),
        after=status_terms(head.status),
    )
    if change.terminal:
        transaction.delete(EXECUTION_SECRETS, loaded.id)


class StatusChange:
    """Stages status deltas: fills in what the server says, settles what is open at an end, moves the head."""

    def __init__(self, folds: Folds) -> None:
        self._folds = folds

    async def stage(  # noqa: PLR0913  # each is a part of the one change
        self,
        context: RequestContext[Any, Any],
        loaded: Loaded,
        delta: AgentExecutionStatus,
        *,
        author: ChangeAuthor.ValueType,
        replace: Iterable[str] = (),
        sequence: int = 0,
        event: str = "status_updated",
    ) -> None:
        """Stage `delta`, which becomes the store's. The transition must have been checked, the ids given."""
        terminal = is_terminal(delta.phase)
        replaced = sorted(set(replace))
        status: AgentExecutionStatus | None = None
        if terminal and (loaded.head.may_have_open_items or _reports_items(delta)):
            loaded, status = await catch_up(context, self._folds, loaded, sequence)
        _fill_output_fields(context, loaded, delta, kept_reason="" if "reason" in replaced else loaded.reason)
        audit_update(delta.audit.status_audit, context, event)
        if status is not None:
            merge_status(status, delta, _stamp(context, loaded), replaced)
            # Entries of the same id later in a delta merge into the earlier ones, so appending is enough.
            delta.MergeFrom(settle(status, delta.completed_at))
        change = new_change(context, loaded, author)
        change.status.CopyFrom(delta)
        change.replace_mask.extend(replaced)
        change.terminal = terminal
        head = next_head(loaded)
        head.last_sequence = max(head.last_sequence, sequence)
        head.may_have_open_items = head.may_have_open_items or _reports_items(delta)
        merge_status(
            head.status,
            basic_status(delta),
            _stamp(context, loaded),
            [name for name in replaced if name not in LIST_FIELDS],
        )
        stage_change(context, loaded, change, head)


async def catch_up(
    context: RequestContext[Any, Any], folds: Folds, loaded: Loaded, sequence: int = 0
) -> tuple[Loaded, AgentExecutionStatus]:
    """Fold an execution for a command that needs the whole of it; return it as it then is.

    The fold of a long log takes turns with others, who may commit meanwhile. To begin the command anew for that would
    never end against a busy writer; so what was committed is folded on top, without a break. Raises `Conflict` when
    it changed what the earlier steps have checked.
    """
    status = await folds.status(loaded.id, loaded.head.revision, pending=True)
    head = await context.store.pending.get(EXECUTION_HEAD, loaded.id)
    record = await context.store.pending.get(AGENT_EXECUTION, loaded.id)
    if status is None or head is None or record is None:
        raise Conflict(f"execution {loaded.id} is being deleted")
    if head.status.phase != loaded.head.status.phase or 0 < sequence <= head.last_sequence:
        raise Conflict(f"execution {loaded.id} has moved on")
    execution = AgentExecution(status=status)
    execution.metadata.revision = loaded.head.revision
    while execution.metadata.revision < head.revision:
        change = await context.store.pending.change(loaded.id, execution.metadata.revision + 1)
        if change is None:
            raise Conflict(f"execution {loaded.id} is being deleted")
        fold(execution, change)
    return Loaded(record, head), execution.status


def _stamp(context: RequestContext[Any, Any], loaded: Loaded) -> Stamp:
    return Stamp(
        revision=loaded.head.revision + 1,
        attempt=loaded.head.status.attempt,
        time=to_rfc3339(context.now),
    )


def _reports_items(delta: AgentExecutionStatus) -> bool:
    return bool(delta.tool_calls or delta.sub_agent_executions or any(message.tool_calls for message in delta.messages))


def _fill_output_fields(
    context: RequestContext[Any, Any], loaded: Loaded, delta: AgentExecutionStatus, *, kept_reason: str
) -> None:
    """Set the times, the reason, and the end of a control request."""
    before = loaded.head.status
    if delta.phase == EXECUTION_IN_PROGRESS and not before.started_at:
        delta.started_at = to_rfc3339(context.now)
    if is_terminal(delta.phase):
        delta.completed_at = to_rfc3339(context.now)
        if before.HasField("control"):
            delta.control.SetInParent()
        if not delta.reason:
            asked = before.control.reason if delta.phase == EXECUTION_CANCELLED else ""
            delta.reason = asked or kept_reason or DEFAULT_REASONS.get(delta.phase, "")
