"""Parents: how a sub-execution joins the tree of the one that asked for it, and the entry it has in that one.

The entry is kept up to date in the same commits as the sub-execution itself, as changes of the parent's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runstream.model.errors import FailedPrecondition, FieldViolation, NotFound, invalid_field
from runstream.model.phases import is_terminal, phase_name
from runstream.model.times import to_rfc3339
from runstream.pipeline.context import ContextKey
from runstream.pipeline.steps import audit_update
from runstream.services.executions.inheritance import check_shared, context_below
from runstream.services.executions.loading import Loaded, load_record
from runstream.services.executions.staging import new_change, next_head, stage_change
from runstream.storage.records import EXECUTION_HEAD
from runstream.v1.agent_execution_pb2 import (
    CHANGE_AUTHOR_SYSTEM,
    CONTROL_CANCEL,
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_PENDING,
    EXECUTION_TERMINATED,
    MESSAGE_AI,
    SUB_AGENT_CANCELLED,
    SUB_AGENT_COMPLETED,
    SUB_AGENT_FAILED,
    SUB_AGENT_IN_PROGRESS,
    SUB_AGENT_PENDING,
    SubAgentExecution,
)

if TYPE_CHECKING:
    from runstream.pipeline.context import RequestContext
    from runstream.stored.v1.stored_pb2 import ExecutionHead
    from runstream.v1.agent_execution_pb2 import (
        AgentExecution,
        AgentExecutionStatus,
        ExecutionContext,
        SubAgentStatus,
    )
    from runstream.v1.agent_pb2 import Agent

    CreateContext = RequestContext[AgentExecution, AgentExecution]

#: How much of a text goes into the entry; the rest is in the execution itself.
LONGEST_TEXT: Final = 64 << 10

_STATUSES: Final[dict[int, SubAgentStatus.ValueType]] = {
    EXECUTION_PENDING: SUB_AGENT_PENDING,
    EXECUTION_COMPLETED: SUB_AGENT_COMPLETED,
    EXECUTION_FAILED: SUB_AGENT_FAILED,
    EXECUTION_CANCELLED: SUB_AGENT_CANCELLED,
    EXECUTION_TERMINATED: SUB_AGENT_CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Parent:
    """The execution that asks for a new one: its head and its record, not to be changed."""

    loaded: Loaded
    record: AgentExecution

    @property
    def context(self) -> ExecutionContext:
        """The bounds it has itself."""
        return self.record.spec.context


#: The agent of a new execution.
AGENT: ContextKey[Agent] = ContextKey("agent")
#: The parent of a new execution; None when it has none.
PARENT: ContextKey[Parent | None] = ContextKey("parent")


class CheckParentAndCall:
    """Demands a parent and its tool call, or neither. INVALID_ARGUMENT, reason PARENT_AND_CALL."""

    async def __call__(self, context: CreateContext) -> None:
        """Check the request."""
        asked = context.request.spec.context
        if bool(asked.parent_execution_id) != bool(asked.parent_call_id):
            given, missing = "parent_execution_id", "parent_call_id"
            if asked.parent_call_id:
                given, missing = missing, given
            told = f"must be given with spec.context.{given}"
            raise invalid_field(f"spec.context.{missing}", "PARENT_AND_CALL", told)


class JoinTree:
    """Gives a new execution its place in a tree: root, depth, organization, and in nothing more than its parent has.

    It stands before whatever is made for the execution, as its session: that is of the same organization.

    NOT_FOUND, reason PARENT_NOT_FOUND. FAILED_PRECONDITION, reasons PARENT_ENDING, STALE_ATTEMPT, DEPTH_EXCEEDED.
    INVALID_ARGUMENT, reason DIFFERS_FROM_PARENT.
    """

    def __init__(self, max_depth: int) -> None:
        self._max_depth = max_depth

    async def __call__(self, context: CreateContext) -> None:
        """Complete the state's organization and execution context, and leave the parent for later steps."""
        state, own = context.state, context.state.spec.context
        own.root_execution_id = state.metadata.id
        parent = await load_parent(context, own.parent_execution_id) if own.parent_execution_id else None
        if parent is not None:
            _check_attempt(parent.loaded, own.parent_attempt)
        context.put(PARENT, parent)
        if parent is None:
            return
        own.root_execution_id = parent.context.root_execution_id or parent.loaded.id
        own.depth = self._depth_below(parent)
        check_shared(state, parent.record)
        state.metadata.org = parent.record.metadata.org
        own.CopyFrom(context_below(own, parent.context))

    def _depth_below(self, parent: Parent) -> int:
        depth, budget = parent.context.depth + 1, parent.context.budget
        if depth > self._max_depth:
            raise _too_deep(parent, f"at depth {parent.context.depth}, and this server allows {self._max_depth} levels")
        if budget.HasField("depth") and budget.depth <= 0:
            raise _too_deep(parent, "allowed no sub-executions by its budget.depth of 0")
        return depth


class StageInParent:
    """Stages the entry of a new execution in its parent, which must be as it was when it was loaded."""

    async def __call__(self, context: CreateContext) -> None:
        """Add the parent's change to the transaction."""
        parent, state = context.value(PARENT), context.state
        if parent is None:
            return
        entry = SubAgentExecution(
            id=state.metadata.id,
            execution_id=state.metadata.id,
            name=context.value(AGENT).metadata.name,
            input=cut(state.spec.message),
            status=SUB_AGENT_PENDING,
            call_id=state.spec.context.parent_call_id,
        )
        _stage_entry(context, parent.loaded, entry)


async def load_parent(context: RequestContext[Any, Any], parent_id: str) -> Parent:
    """Load an execution that can have sub-executions now.

    NOT_FOUND, reason PARENT_NOT_FOUND. FAILED_PRECONDITION, reason PARENT_ENDING, when it has ended or shall end.
    """
    head = await context.get(EXECUTION_HEAD, parent_id)
    if head is None:
        raise _no_parent(parent_id)
    ended = is_terminal(head.status.phase)
    if ended or head.status.control.action == CONTROL_CANCEL:
        told = f"has ended as {phase_name(head.status.phase)}" if ended else "is being cancelled"
        raise FailedPrecondition(
            "PARENT_ENDING",
            f"The parent {parent_id} {told}; it can have no more sub-executions.",
            metadata={"id": parent_id, "phase": phase_name(head.status.phase)},
        )
    loaded = Loaded(parent_id, head)
    return Parent(loaded, await load_record(context, loaded))


def _check_attempt(parent: Loaded, attempt: int) -> None:
    """Let an attempt of the parent begin something only while it is the current one."""
    head = parent.head
    if attempt and (attempt != head.status.attempt or not head.runner_id):
        raise FailedPrecondition(
            "STALE_ATTEMPT",
            f"spec.context.parent_attempt is {attempt}, but execution {parent.id} is not at that attempt any more."
            " Stop working on it.",
            metadata={"id": parent.id, "attempt": str(head.status.attempt)},
        )


def sub_agent_status(phase: int) -> SubAgentStatus.ValueType:
    """Return the status of the entry of an execution in a phase."""
    return _STATUSES.get(phase, SUB_AGENT_IN_PROGRESS)


async def stage_in_parent(
    context: RequestContext[Any, Any], child: Loaded, head: ExecutionHead, status: AgentExecutionStatus | None
) -> None:
    """Stage what becomes of a child's entry when its head becomes `head`; `status` is the whole of it at its end."""
    if sub_agent_status(child.head.status.phase) == sub_agent_status(head.status.phase):
        return
    after = head.status
    entry = SubAgentExecution(
        id=child.id,
        execution_id=child.id,
        status=sub_agent_status(after.phase),
        started_at=after.started_at,
        completed_at=after.completed_at,
        error=cut(after.error),
        output=cut(_answer(status)) if status is not None and after.phase == EXECUTION_COMPLETED else "",
    )
    await _stage_unless_ended(context, head.parent_id, entry)


async def stage_deleted_in_parent(context: RequestContext[Any, Any], child: Loaded) -> None:
    """Stage in the parent that a child which has not ended never will: its entry is CANCELLED."""
    if not child.head.parent_id or is_terminal(child.phase):
        return
    entry = SubAgentExecution(
        id=child.id,
        execution_id=child.id,
        status=SUB_AGENT_CANCELLED,
        completed_at=to_rfc3339(context.now),
        error="The execution was deleted.",
    )
    await _stage_unless_ended(context, child.head.parent_id, entry)


async def _stage_unless_ended(context: RequestContext[Any, Any], parent_id: str, entry: SubAgentExecution) -> None:
    """Stage an entry of a parent; one that has ended or was deleted takes nothing any more."""
    head = await context.get(EXECUTION_HEAD, parent_id)
    if head is not None and not is_terminal(head.status.phase):
        _stage_entry(context, Loaded(parent_id, head), entry)


def _stage_entry(context: RequestContext[Any, Any], parent: Loaded, entry: SubAgentExecution) -> None:
    change = new_change(context, parent, CHANGE_AUTHOR_SYSTEM)
    change.status.sub_agent_executions.append(entry)
    head = next_head(parent)
    head.may_have_open_items = True
    audit_update(head.status.audit.status_audit, context, "sub_agent_updated")
    change.status.audit.status_audit.CopyFrom(head.status.audit.status_audit)
    stage_change(context, parent, change, head)


def cut(text: str) -> str:
    """Cut a text to what an entry holds."""
    data = text.encode()
    return text if len(data) <= LONGEST_TEXT else data[:LONGEST_TEXT].decode(errors="ignore")


def _answer(status: AgentExecutionStatus) -> str:
    """Return the last thing the agent itself said."""
    said = (message for message in reversed(status.messages) if message.type == MESSAGE_AI and not message.owner_id)
    return next((message.content for message in said if message.content), "")


def _no_parent(parent_id: str) -> NotFound:
    told = f"There is no agent execution {parent_id!r} to be the parent."
    field = FieldViolation("spec.context.parent_execution_id", told, "PARENT_NOT_FOUND")
    return NotFound("PARENT_NOT_FOUND", told, fields=[field], metadata={"id": parent_id})


def _too_deep(parent: Parent, told: str) -> FailedPrecondition:
    return FailedPrecondition(
        "DEPTH_EXCEEDED",
        f"The parent {parent.loaded.id} is {told}; it can have no sub-executions.",
        metadata={"id": parent.loaded.id, "depth": str(parent.context.depth)},
    )
