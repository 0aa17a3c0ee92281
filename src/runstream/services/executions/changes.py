"""Changes to statuses: a delta, completed by what the server says, merged into the head, told to the parent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from runstream.model.merge import Stamp, fold, merge_basic, merge_status, settle
from runstream.model.phases import is_terminal
from runstream.model.times import to_rfc3339
from runstream.pipeline.steps import audit_update
from runstream.services.executions.loading import Loaded
from runstream.services.executions.parents import stage_in_parent
from runstream.services.executions.staging import new_change, next_head, stage_change
from runstream.storage.records import EXECUTION_HEAD
from runstream.storage.store import Conflict
from runstream.v1.agent_execution_pb2 import (
    CONTROL_PAUSE,
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_TERMINATED,
    AgentExecution,
    AgentExecutionStatus,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from runstream.pipeline.context import RequestContext
    from runstream.storage.folds import Folds
    from runstream.stored.v1.stored_pb2 import ExecutionHead
    from runstream.v1.agent_execution_pb2 import ChangeAuthor

#: The reason of an end for which nobody gave one.
DEFAULT_REASONS = {
    EXECUTION_FAILED: "AGENT_FAILED",
    EXECUTION_CANCELLED: "CANCELLED",
    EXECUTION_TERMINATED: "TERMINATED",
}


class Revision(Protocol):
    """What a command does to the delta and to the books in the head, just before the delta is merged."""

    def __call__(self, head: ExecutionHead, delta: AgentExecutionStatus, /) -> None:
        """Change either. The head's status is still the one before the delta."""
        ...


def _nothing_more(_head: ExecutionHead, _delta: AgentExecutionStatus) -> None:
    """Leave both as they are."""


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
        supersedes: int = 0,
        revise: Revision = _nothing_more,
        event: str = "status_updated",
    ) -> ExecutionHead:
        """Stage `delta`, which becomes the store's; return the head after it.

        The transition must have been checked, the ids given.
        """
        status: AgentExecutionStatus | None = None
        if self._needs_fold(loaded, delta):
            loaded, status = await catch_up(context, self._folds, loaded, sequence)
        head = next_head(loaded)
        revise(head, delta)
        replaced = sorted(set(replace)) if replace else []
        _fill_output_fields(context, loaded, delta, replaced)
        after = head.status
        merge_basic(after, delta, replaced)
        _stamp_audit(after, delta, context, event)
        change = new_change(context, loaded, author)
        if delta.attempt:
            change.attempt = delta.attempt
        if status is not None:
            stamp = Stamp(change.revision, change.attempt, to_rfc3339(context.now), supersedes)
            merge_status(status, delta, stamp, replaced)
            # Entries of the same id later in a delta merge into the earlier ones, so appending is enough.
            delta.MergeFrom(settle(status, delta.completed_at))
        change.status.CopyFrom(delta)
        if replaced:
            change.replace_mask.extend(replaced)
        if supersedes:
            change.supersedes = supersedes
        if is_terminal(delta.phase):
            change.terminal = True
        if not head.may_have_open_items and reports_items(delta):
            head.may_have_open_items = True
        _keep_books(loaded.head, head)
        stage_change(context, loaded, change, head)
        if head.parent_id:
            await stage_in_parent(context, loaded, head, status)
        return head

    @staticmethod
    def _needs_fold(loaded: Loaded, delta: AgentExecutionStatus) -> bool:
        """Tell whether the delta ends what the state holds open, or has to tell a parent what came out."""
        phase = delta.phase
        if phase == EXECUTION_COMPLETED and loaded.head.parent_id:
            return True
        return is_terminal(phase) and (loaded.head.may_have_open_items or reports_items(delta))


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
    if status is None or head is None:
        raise Conflict(f"execution {loaded.id} is being deleted")
    # What stood there before is of somebody else's counting, or the number would have been answered as a repeat.
    taken_meanwhile = loaded.head.last_sequence < head.last_sequence and 0 < sequence <= head.last_sequence
    if _has_moved_on(loaded.head, head) or taken_meanwhile:
        raise Conflict(f"execution {loaded.id} has moved on")
    execution = AgentExecution(status=status)
    execution.metadata.revision = loaded.head.revision
    while execution.metadata.revision < head.revision:
        change = await context.store.pending.change(loaded.id, execution.metadata.revision + 1)
        if change is None:
            raise Conflict(f"execution {loaded.id} is being deleted")
        fold(execution, change)
    return Loaded(loaded.id, head), execution.status


def reports_items(delta: AgentExecutionStatus) -> bool:
    """Tell whether a delta holds tool calls or sub-agents, which may be open."""
    if delta.tool_calls or delta.sub_agent_executions:
        return True
    messages = delta.messages
    return bool(messages) and any(message.tool_calls for message in messages)


def _has_moved_on(before: ExecutionHead, after: ExecutionHead) -> bool:
    """Tell whether what the steps of commands check is no longer what it was."""
    same_phase = before.status.phase == after.status.phase
    same_lease = before.runner_id == after.runner_id and before.status.attempt == after.status.attempt
    return not (same_phase and same_lease and before.sequence_attempt == after.sequence_attempt)


def _keep_books(before: ExecutionHead, head: ExecutionHead) -> None:
    """Keep the head's books in step with the phase that its status now has: a lease is for work alone."""
    phase = head.status.phase
    if phase == EXECUTION_IN_PROGRESS:
        if not head.runner_id:
            head.driven_outside = True
        return
    if is_terminal(phase) or phase in (EXECUTION_PAUSED, EXECUTION_PENDING):
        head.ClearField("runner_id")
        head.ClearField("driven_outside")
        head.ClearField("pause_withdrawn")
    if is_terminal(phase):
        head.ClearField("approvals")
        head.ClearField("approved_all_by")
    elif phase == EXECUTION_PAUSED and before.status.phase != EXECUTION_PENDING:
        head.resume = True


def _fill_output_fields(
    context: RequestContext[Any, Any], loaded: Loaded, delta: AgentExecutionStatus, replaced: Collection[str]
) -> None:
    """Set the times, the reason, and the end of a control request."""
    before, phase = loaded.status, delta.phase
    if phase == EXECUTION_IN_PROGRESS and not before.started_at:
        delta.started_at = to_rfc3339(context.now)
    if phase == EXECUTION_PAUSED and before.control.action == CONTROL_PAUSE:
        delta.control.SetInParent()
    if is_terminal(phase):
        delta.completed_at = to_rfc3339(context.now)
        if before.HasField("control"):
            delta.control.SetInParent()
        if not delta.reason:
            asked = before.control.reason if phase == EXECUTION_CANCELLED else ""
            kept = "" if "reason" in replaced else loaded.reason
            delta.reason = asked or kept or DEFAULT_REASONS.get(phase, "")


def _stamp_audit(
    status: AgentExecutionStatus, delta: AgentExecutionStatus, context: RequestContext[Any, Any], event: str
) -> None:
    """Write into the delta, and into the status that it has been merged into, who changes it, when, and how."""
    told, kept = delta.audit.status_audit, status.audit.status_audit
    audit_update(told, context, event)
    for name in ("updated_by", "updated_at"):  # these are replaced whole, never merged
        kept.ClearField(name)
    kept.MergeFrom(told)
