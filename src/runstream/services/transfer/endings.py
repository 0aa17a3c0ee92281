"""Endings: the change with which an import ends, or queues again, what had not ended where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runstream.model.errors import FailedPrecondition
from runstream.model.merge import Stamp, merge_status, settle
from runstream.model.phases import WAITING, is_terminal, phase_name
from runstream.model.times import to_rfc3339, to_timestamp
from runstream.pipeline.steps import audit_update
from runstream.services.executions.cancel import DEADLINE_EXCEEDED
from runstream.services.executions.leasing import DEFAULT_MAX_ATTEMPTS
from runstream.services.transfer.pieces import IMPORTED_EVENT
from runstream.v1.agent_execution_pb2 import (
    CHANGE_AUTHOR_SYSTEM,
    CONTROL_CANCEL,
    CONTROL_PAUSE,
    EXECUTION_CANCELLED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_TERMINATED,
    AgentExecutionStatus,
    ExecutionChange,
)
from runstream.v1.transfer_pb2 import LIVE_IMPORT_QUEUE, LIVE_IMPORT_TERMINATE

if TYPE_CHECKING:
    from runstream.pipeline.context import RequestContext
    from runstream.services.transfer.whole_log import WholeLog
    from runstream.v1.agent_pb2 import Agent
    from runstream.v1.transfer_pb2 import LiveImport


def last_change(
    context: RequestContext[Any, Any], log: WholeLog, live: LiveImport.ValueType, agent: Agent
) -> ExecutionChange:
    """Make the change that an execution which has not ended gets by its import.

    FAILED_PRECONDITION, reason EXECUTION_NOT_ENDED, when nobody said what becomes of it.
    """
    if live == LIVE_IMPORT_TERMINATE:
        delta = AgentExecutionStatus(phase=EXECUTION_TERMINATED, reason="IMPORTED")
    elif live == LIVE_IMPORT_QUEUE:
        delta = _queued(log, agent)
    else:
        raise _not_ended(log)
    return _completed(context, log, delta)


def note_queued(log: WholeLog, before: int, agent: Agent) -> None:
    """Count what was at work as a lost attempt, as a runner does that goes."""
    log.lost_attempts += before == EXECUTION_IN_PROGRESS
    at_work = before == EXECUTION_IN_PROGRESS
    continues = agent.spec.resume_attempts and (at_work or log.released)
    log.resume = log.resume or continues or before in WAITING


def _queued(log: WholeLog, agent: Agent) -> AgentExecutionStatus:
    """Say what becomes of an execution without its runner; the order is that of a lease that is lost."""
    control = log.state.status.control
    if control.action == CONTROL_CANCEL and control.deadline_exceeded:
        error = "The execution was imported when its deadline had passed."
        return AgentExecutionStatus(phase=EXECUTION_FAILED, reason=DEADLINE_EXCEEDED, error=error)
    if control.action == CONTROL_CANCEL:
        return AgentExecutionStatus(phase=EXECUTION_CANCELLED, reason=control.reason or "CANCELLED")
    if control.action == CONTROL_PAUSE or log.phase == EXECUTION_PAUSED:
        return AgentExecutionStatus(phase=EXECUTION_PAUSED)
    most = agent.spec.max_attempts or DEFAULT_MAX_ATTEMPTS
    if log.phase == EXECUTION_IN_PROGRESS and log.lost_attempts + 1 >= most:
        return AgentExecutionStatus(
            phase=EXECUTION_FAILED,
            reason="RUNNER_LOST",
            error=f"It was imported while it was at work, and its agent allows {most} attempt(s).",
        )
    return AgentExecutionStatus(phase=EXECUTION_PENDING)


def _completed(context: RequestContext[Any, Any], log: WholeLog, delta: AgentExecutionStatus) -> ExecutionChange:
    """Make the change of a delta: with what the server says, and what is open settled at an end."""
    if log.state.status.HasField("control"):
        delta.control.SetInParent()
    audit_update(delta.audit.status_audit, context, IMPORTED_EVENT)
    now = to_rfc3339(context.now)
    if is_terminal(delta.phase):
        delta.completed_at = now
        ended = AgentExecutionStatus()
        ended.CopyFrom(log.state.status)
        merge_status(ended, delta, Stamp(log.revision + 1, log.attempt, now))
        delta.MergeFrom(settle(ended, now))
    return ExecutionChange(
        execution_id=log.id,
        revision=log.revision + 1,
        change_time=to_timestamp(context.now),
        attempt=log.attempt,
        author=CHANGE_AUTHOR_SYSTEM,
        status=delta,
        terminal=is_terminal(delta.phase),
    )


def _not_ended(log: WholeLog) -> FailedPrecondition:
    name = phase_name(log.phase)
    return FailedPrecondition(
        "EXECUTION_NOT_ENDED",
        f"Execution {log.id} is {name} where it comes from. Export it when it has ended, or say with `live` whether it"
        " is terminated here or queued again.",
        metadata={"id": log.id, "phase": name},
    )
