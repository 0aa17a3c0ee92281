"""Control: Cancel, Terminate, and the end of a cancel's grace period."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from google.protobuf.duration_pb2 import Duration

from runstream.model.errors import FailedPrecondition
from runstream.model.phases import is_terminal, phase_name
from runstream.model.times import to_timestamp
from runstream.services.executions.changes import new_change, next_head, stage_change
from runstream.services.executions.loading import LOADED, AnswerExecution, answer_unchanged
from runstream.services.resource_types import CANCEL_TERM
from runstream.storage.records import AGENT_EXECUTION, EXECUTION_HEAD
from runstream.storage.store import Query
from runstream.v1.agent_execution_pb2 import (
    CHANGE_AUTHOR_SYSTEM,
    CHANGE_AUTHOR_USER,
    CONTROL_CANCEL,
    EXECUTION_CANCELLED,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_TERMINATED,
    AgentExecution,
    AgentExecutionStatus,
    ExecutionControl,
)
from runstream.v1.resource_pb2 import AuditActor

if TYPE_CHECKING:
    from runstream.dispatch.deadlines import Deadlines
    from runstream.pipeline.context import RequestContext
    from runstream.services.executions.changes import StatusChange
    from runstream.services.executions.loading import Loaded
    from runstream.storage.store import Store, Transaction
    from runstream.stored.v1.stored_pb2 import ExecutionHead
    from runstream.v1.agent_execution_pb2 import ExecutionPhase

#: No runner is at work in these, so a cancel is done at once.
_IDLE = frozenset({EXECUTION_PENDING, EXECUTION_PAUSED})
_SCAN_CHUNK = 1_000


class AnswerIfEnded:
    """Answers when the execution ended this way already. One that ended otherwise is FAILED_PRECONDITION."""

    def __init__(self, phase: ExecutionPhase.ValueType, answer: AnswerExecution) -> None:
        self._phase = phase
        self._answer = answer

    async def __call__(self, context: RequestContext[Any, Any]) -> AgentExecution | None:
        """Compare the phase."""
        loaded = context.value(LOADED)
        if not is_terminal(loaded.phase):
            return None
        if loaded.phase != self._phase:
            raise _ended_otherwise(loaded, self._phase)
        return await answer_unchanged(context, self._answer)


class AnswerIfCancelling:
    """Answers when the same has been asked already."""

    def __init__(self, answer: AnswerExecution) -> None:
        self._answer = answer

    async def __call__(self, context: RequestContext[Any, Any]) -> AgentExecution | None:
        """Look at the control."""
        loaded = context.value(LOADED)
        if loaded.head.status.control.action != CONTROL_CANCEL or loaded.phase in _IDLE:
            return None
        return await answer_unchanged(context, self._answer)


class StageCancel:
    """Ends an execution that nobody works on; else records that it shall end."""

    def __init__(self, status_change: StatusChange, grace: float) -> None:
        self._status_change = status_change
        self._grace = grace

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Add the end or the request to the transaction."""
        loaded, reason = context.value(LOADED), context.request.reason
        if loaded.phase in _IDLE:
            delta = AgentExecutionStatus(phase=EXECUTION_CANCELLED, reason=reason)
            await self._status_change.stage(context, loaded, delta, author=CHANGE_AUTHOR_USER, event="cancelled")
            return
        change = new_change(context, loaded, CHANGE_AUTHOR_USER)
        change.control.CopyFrom(self._control(context, reason))
        head = next_head(loaded)
        head.status.control.CopyFrom(change.control)
        stage_change(context, loaded, change, head)

    def _control(self, context: RequestContext[Any, Any], reason: str) -> ExecutionControl:
        grace = Duration()
        grace.FromNanoseconds(round(self._grace * 1e9))
        return ExecutionControl(
            action=CONTROL_CANCEL,
            reason=reason,
            requested_by=AuditActor(id=context.caller.actor),
            request_time=to_timestamp(context.now),
            grace=grace,
        )


class StageTermination:
    """Ends the execution at once."""

    def __init__(self, status_change: StatusChange) -> None:
        self._status_change = status_change

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Add the end to the transaction."""
        delta = AgentExecutionStatus(phase=EXECUTION_TERMINATED, reason=context.request.reason)
        await self._status_change.stage(
            context, context.value(LOADED), delta, author=CHANGE_AUTHOR_USER, event="terminated"
        )


class AnswerIfNothingAsked:
    """Answers when there is no cancel to enforce any more."""

    def __init__(self, answer: AnswerExecution) -> None:
        self._answer = answer

    async def __call__(self, context: RequestContext[Any, Any]) -> AgentExecution | None:
        """Look at phase and control."""
        loaded = context.value(LOADED)
        asked = loaded.head.status.control.action == CONTROL_CANCEL
        if asked and not is_terminal(loaded.phase):
            return None
        return await answer_unchanged(context, self._answer)


class StageForcedCancel:
    """Ends an execution whose runner did not comply in time: CANCELLED, reason CANCEL_UNACKNOWLEDGED."""

    def __init__(self, status_change: StatusChange) -> None:
        self._status_change = status_change

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Add the end to the transaction."""
        loaded = context.value(LOADED)
        control = loaded.head.status.control
        seconds = control.grace.ToNanoseconds() / 1e9
        asked = f" It was asked to because: {control.reason}" if control.reason else ""
        delta = AgentExecutionStatus(
            phase=EXECUTION_CANCELLED,
            reason="CANCEL_UNACKNOWLEDGED",
            error=f"The runner did not end the work within {seconds:g} s of the cancel.{asked}",
        )
        await self._status_change.stage(context, loaded, delta, author=CHANGE_AUTHOR_SYSTEM, event="cancelled")


class CancelGrace:
    """Keeps the deadlines of cancels in step with the store."""

    def __init__(self, store: Store, deadlines: Deadlines) -> None:
        self._store = store
        self._deadlines = deadlines
        self._waiting: set[str] = set()

    async def resume(self) -> None:
        """Begin the grace period of every cancel that an earlier process left anew, as long as it was promised."""
        query, after = Query(AGENT_EXECUTION, ((CANCEL_TERM,),)), None
        while ids := await self._store.scan(query, after=after, limit=_SCAN_CHUNK):
            for execution_id in ids:
                head = await self._store.durable.get(EXECUTION_HEAD, execution_id)
                if head is not None:
                    self._begin(execution_id, head.status.control)
            after = ids[-1]

    def on_commit(self, transaction: Transaction) -> None:
        """Begin the grace period of a cancel that was recorded, end that of an execution that ended."""
        for (kind, execution_id), message in transaction.puts.items():
            if kind is not EXECUTION_HEAD:
                continue
            status = cast("ExecutionHead", message).status
            if status.control.action == CONTROL_CANCEL:
                self._begin(execution_id, status.control)
            elif execution_id in self._waiting:
                self._end(execution_id)
        for kind, execution_id in transaction.deletes:
            if kind is EXECUTION_HEAD and execution_id in self._waiting:
                self._end(execution_id)

    def _begin(self, execution_id: str, control: ExecutionControl) -> None:
        if execution_id not in self._waiting:
            self._waiting.add(execution_id)
            self._deadlines.add(execution_id, control.grace.ToNanoseconds() / 1e9)

    def _end(self, execution_id: str) -> None:
        self._waiting.discard(execution_id)
        self._deadlines.remove(execution_id)


def _ended_otherwise(loaded: Loaded, wanted: ExecutionPhase.ValueType) -> FailedPrecondition:
    ended, meant = phase_name(loaded.phase), phase_name(wanted)
    return FailedPrecondition(
        "EXECUTION_TERMINAL",
        f"Execution {loaded.id} has ended as {ended}, which never changes; it cannot become {meant}.",
        metadata={"id": loaded.id, "phase": ended},
    )
