"""Cancel and Terminate: the two ways to end what somebody else works on, and the grace period of the first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from runstream.dispatch.deadlines import Deadlines
from runstream.model.phases import is_terminal
from runstream.model.times import to_duration, to_seconds
from runstream.services.executions.control import new_control, stage_control
from runstream.services.executions.loading import LOADED, AnswerExecution, answer_unchanged
from runstream.services.executions.staging import author_of
from runstream.services.resource_types import CANCEL_TERM
from runstream.storage.records import AGENT_EXECUTION, EXECUTION_HEAD
from runstream.storage.store import Query
from runstream.v1.agent_execution_pb2 import (
    CHANGE_AUTHOR_SYSTEM,
    CONTROL_CANCEL,
    EXECUTION_CANCELLED,
    EXECUTION_FAILED,
    EXECUTION_PAUSED,
    EXECUTION_TERMINATED,
    AgentExecutionStatus,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from runstream.model.clock import Clock
    from runstream.pipeline.context import RequestContext
    from runstream.services.executions.changes import StatusChange
    from runstream.storage.store import Store, Transaction
    from runstream.stored.v1.stored_pb2 import ExecutionHead
    from runstream.v1.agent_execution_pb2 import AgentExecution, ExecutionControl

DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
_SCAN_CHUNK = 1_000


class AnswerIfCancelling:
    """Answers when whoever is at work has been asked to end already, by a person or by the deadline."""

    def __init__(self, answer: AnswerExecution) -> None:
        self._answer = answer

    async def __call__(self, context: RequestContext[Any, Any]) -> AgentExecution | None:
        """Look at the control."""
        loaded = context.value(LOADED)
        if loaded.status.control.action != CONTROL_CANCEL or not loaded.at_work:
            return None
        return await answer_unchanged(context, self._answer)


class StageCancel:
    """Ends an execution that nobody works on; else records that it shall end, in place of a pause."""

    def __init__(self, status_change: StatusChange, grace: float) -> None:
        self._status_change = status_change
        self._grace = to_duration(grace)

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Add the end or the request to the transaction."""
        loaded, reason = context.value(LOADED), context.request.reason
        if loaded.at_work:
            control = new_control(context, CONTROL_CANCEL, reason)
            control.grace.CopyFrom(self._grace)
            stage_control(context, loaded, control)
            return
        delta = AgentExecutionStatus(phase=EXECUTION_CANCELLED, reason=reason)
        await self._status_change.stage(context, loaded, delta, author=author_of(context.caller), event="cancelled")


class StageTermination:
    """Ends the execution at once."""

    def __init__(self, status_change: StatusChange) -> None:
        self._status_change = status_change

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Add the end to the transaction."""
        delta = AgentExecutionStatus(phase=EXECUTION_TERMINATED, reason=context.request.reason)
        await self._status_change.stage(
            context, context.value(LOADED), delta, author=author_of(context.caller), event="terminated"
        )


class AnswerIfNothingAsked:
    """Answers when there is no cancel to enforce any more."""

    def __init__(self, answer: AnswerExecution) -> None:
        self._answer = answer

    async def __call__(self, context: RequestContext[Any, Any]) -> AgentExecution | None:
        """Look at phase and control."""
        loaded = context.value(LOADED)
        asked = loaded.status.control.action == CONTROL_CANCEL
        if asked and not is_terminal(loaded.phase):
            return None
        return await answer_unchanged(context, self._answer)


class StageForcedCancel:
    """Ends an execution whose runner did not comply in time.

    CANCELLED, reason CANCEL_UNACKNOWLEDGED; when the deadline has asked, FAILED, reason DEADLINE_EXCEEDED.
    """

    def __init__(self, status_change: StatusChange) -> None:
        self._status_change = status_change

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Add the end to the transaction."""
        loaded = context.value(LOADED)
        delta = _forced_end(loaded.status.control)
        event = "deadline_exceeded" if delta.phase == EXECUTION_FAILED else "cancelled"
        await self._status_change.stage(context, loaded, delta, author=CHANGE_AUTHOR_SYSTEM, event=event)


class CancelGrace:
    """Keeps the deadlines of cancels in step with the store."""

    def __init__(self, store: Store, clock: Clock, due: Callable[[str], Awaitable[None]]) -> None:
        """Take the store, the clock, and what is called with the id of an execution whose grace period is over."""
        self._store = store
        self._deadlines = Deadlines(clock, due)
        self._waiting: set[str] = set()

    async def run(self) -> None:
        """Let time pass; until cancelled."""
        await self._deadlines.run()

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
            self._deadlines.add(execution_id, to_seconds(control.grace))

    def _end(self, execution_id: str) -> None:
        self._waiting.discard(execution_id)
        self._deadlines.remove(execution_id)


def end_instead_of_halt(head: ExecutionHead, delta: AgentExecutionStatus) -> None:
    """Make the end that was asked for out of a halt that a runner reports, or out of an end of another name.

    A runner that halts while it has been asked to end works no more, and nobody else shall. One that ends at its
    deadline has FAILED, even if it calls that CANCELLED.
    """
    if delta.phase not in (EXECUTION_PAUSED, EXECUTION_CANCELLED):
        return
    control = head.status.control
    if control.action != CONTROL_CANCEL:
        return
    delta.phase = EXECUTION_CANCELLED
    if control.deadline_exceeded:
        delta.phase, delta.reason = EXECUTION_FAILED, DEADLINE_EXCEEDED
        delta.error = delta.error or "The runner ended the work when the deadline had passed."


def _forced_end(control: ExecutionControl) -> AgentExecutionStatus:
    seconds = f"{to_seconds(control.grace):g} s"
    if control.deadline_exceeded:
        return AgentExecutionStatus(
            phase=EXECUTION_FAILED,
            reason=DEADLINE_EXCEEDED,
            error=f"The deadline passed, and the runner did not end the work within another {seconds}.",
        )
    asked = f" It was asked to because: {control.reason}" if control.reason else ""
    return AgentExecutionStatus(
        phase=EXECUTION_CANCELLED,
        reason="CANCEL_UNACKNOWLEDGED",
        error=f"The runner did not end the work within {seconds} of the cancel.{asked}",
    )
