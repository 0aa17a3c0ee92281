"""Time limits: the deadline that an execution gets at its creation, the keeper of all deadlines, and what happens then.

A deadline is written as a wall time, and kept as monotonic seconds from the moment it is first seen: a wall clock that
jumps moves nothing, until a restart has nothing else to go by.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from runstream.dispatch.deadlines import Deadlines
from runstream.model.errors import NotFound
from runstream.model.phases import is_terminal
from runstream.model.times import to_datetime, to_duration, to_rfc3339, to_timestamp
from runstream.pipeline.context import SYSTEM
from runstream.pipeline.steps import Persist
from runstream.services.executions.cancel import DEADLINE_EXCEEDED
from runstream.services.executions.changes import StatusChange
from runstream.services.executions.control import new_control, stage_control
from runstream.services.executions.live import live_executions
from runstream.services.executions.loading import (
    LOADED,
    AnswerExecution,
    LoadExecution,
    answer_unchanged,
)
from runstream.services.executions.parents import AGENT, PARENT
from runstream.storage.records import EXECUTION_HEAD
from runstream.storage.store import Conflict
from runstream.v1.agent_execution_pb2 import (
    CHANGE_AUTHOR_SYSTEM,
    CONTROL_CANCEL,
    EXECUTION_FAILED,
    AgentExecution,
    AgentExecutionStatus,
)
from runstream.v1.resource_pb2 import ResourceId

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from google.protobuf.timestamp_pb2 import Timestamp

    from runstream.model.clock import Clock
    from runstream.pipeline.context import RequestContext
    from runstream.pipeline.engine import Pipeline
    from runstream.services.executions.loading import Loaded
    from runstream.services.wiring import Wiring
    from runstream.storage.store import Store, Transaction
    from runstream.stored.v1.stored_pb2 import ExecutionHead

_NO_TIME = timedelta()


class SetDeadline:
    """Gives a new execution its deadline: by the shorter of its own limit and its agent's, not after its parent's."""

    async def __call__(self, context: RequestContext[AgentExecution, AgentExecution]) -> None:
        """Complete the state; without any limit there is no deadline."""
        spec, agent = context.state.spec, context.value(AGENT)
        limits = [limited.max_duration for limited in (spec.context, agent.spec) if limited.HasField("max_duration")]
        parent = context.value(PARENT)
        deadlines = []
        if limits:
            created = to_datetime(context.state.status.audit.spec_audit.created_at)
            deadlines = [created + timedelta(microseconds=limit.ToMicroseconds()) for limit in limits]
        if parent is not None and parent.loaded.head.HasField("deadline"):
            deadlines.append(to_datetime(parent.loaded.head.deadline))
        if deadlines:
            spec.context.deadline.CopyFrom(to_timestamp(min(deadlines)))


async def new_deadline(context: RequestContext[Any, Any], loaded: Loaded) -> Timestamp | None:
    """Return the deadline of an execution that begins anew now: with as much time as it had at first.

    None for one without a deadline. Like every deadline, it is not after the parent's.
    """
    if not loaded.head.HasField("deadline"):
        return None
    first = await context.store.pending.change(loaded.id, 1)
    if first is None:
        raise Conflict(f"execution {loaded.id} is being deleted")
    created = first.created
    began = to_datetime(created.status.audit.spec_audit.created_at)
    # The wall clock may have been set back to before its creation, from which on deadlines count.
    deadline = max(context.now, began) + max(_NO_TIME, to_datetime(created.spec.context.deadline) - began)
    parent = await context.get(EXECUTION_HEAD, loaded.head.parent_id) if loaded.head.parent_id else None
    if parent is not None and parent.HasField("deadline"):
        deadline = min(deadline, to_datetime(parent.deadline))
    return to_timestamp(deadline)


class TimeLimits:
    """Keeps the timers of all deadlines in step with the store."""

    def __init__(self, store: Store, clock: Clock, due: Callable[[str], Awaitable[None]]) -> None:
        """Take the store, the clock, and what is called with the id of an execution whose time is over."""
        self._store = store
        self._clock = clock
        self._deadlines = Deadlines(clock, due)
        self._known: dict[str, datetime] = {}

    def remaining(self, execution_id: str) -> float | None:
        """Return how many seconds a live execution has left, 0 when they are over; None without a deadline."""
        left = self._deadlines.remaining(execution_id)
        return 0.0 if left is None and execution_id in self._known else left

    async def run(self) -> None:
        """Let time pass; until cancelled."""
        await self._deadlines.run()

    async def resume(self) -> None:
        """Take up the deadline of every execution that an earlier process left unfinished."""
        async for execution_id, head in live_executions(self._store):
            self._note(execution_id, head)

    def on_commit(self, transaction: Transaction) -> None:
        """Begin the time of a deadline that is new, end that of an execution that ended or is gone."""
        for (kind, execution_id), message in transaction.puts.items():
            if kind is EXECUTION_HEAD:
                self._note(execution_id, cast("ExecutionHead", message))
        for kind, execution_id in transaction.deletes:
            if kind is EXECUTION_HEAD:
                self._forget(execution_id)

    def _note(self, execution_id: str, head: ExecutionHead) -> None:
        if not head.HasField("deadline"):
            return
        if is_terminal(head.status.phase):
            self._forget(execution_id)
        elif self._known.get(execution_id) != (deadline := to_datetime(head.deadline)):
            self._deadlines.add(execution_id, self._seconds(head, deadline))
            self._known[execution_id] = deadline

    def _forget(self, execution_id: str) -> None:
        if self._known.pop(execution_id, None) is not None:
            self._deadlines.remove(execution_id)

    def _seconds(self, head: ExecutionHead, deadline: datetime) -> float:
        """Return how long a deadline that is seen for the first time is away, whatever the wall clock has done.

        No longer than there was between it and the creation: the clock may have been set back meanwhile. No longer
        than the parent has left, and just as long when the deadline is the parent's: the parent's time began earlier.
        """
        created = to_datetime(head.status.audit.spec_audit.created_at)
        seconds = (deadline - max(created, self._clock.now())).total_seconds()
        parents = self.remaining(head.parent_id) if head.parent_id else None
        if parents is None:
            return seconds
        return parents if self._known.get(head.parent_id) == deadline else min(seconds, parents)


class DeadlineCommands:
    """What happens to an execution whose time is over."""

    def __init__(self, wiring: Wiring) -> None:
        self._enforce_deadline = self._pipeline(wiring)

    async def enforce_deadline(self, execution_id: str) -> None:
        """End an execution that nobody works on, have its runner end any other; what has ended or is gone is left."""
        try:
            await self._enforce_deadline.run(ResourceId(value=execution_id), SYSTEM)
        except NotFound:
            return

    def _pipeline(self, wiring: Wiring) -> Pipeline[ResourceId, AgentExecution, AgentExecution]:
        answer = AnswerExecution(wiring.executions)
        return wiring.pipeline(
            "AgentExecution.EnforceDeadline",
            [
                LoadExecution(lambda request: request.value),
                AnswerIfEnding(answer),
                StageDeadline(StatusChange(wiring.folds), wiring.cancel_grace),
                Persist(),
                answer,
            ],
            AgentExecution,
        )


class AnswerIfEnding:
    """Answers when the execution has ended, or its runner is asked to end it already."""

    def __init__(self, answer: AnswerExecution) -> None:
        self._answer = answer

    async def __call__(self, context: RequestContext[Any, Any]) -> AgentExecution | None:
        """Look at phase and control."""
        loaded = context.value(LOADED)
        asked = loaded.status.control.action == CONTROL_CANCEL
        if is_terminal(loaded.phase) or (asked and loaded.at_work):
            return await answer_unchanged(context, self._answer)
        return None


class StageDeadline:
    """Asks whoever is at work for an end, in place of any pause; else the execution has FAILED."""

    def __init__(self, status_change: StatusChange, grace: float) -> None:
        self._status_change = status_change
        self._grace = grace

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Add the request or the end to the transaction."""
        loaded = context.value(LOADED)
        if not loaded.at_work:
            await self._fail(context, loaded)
            return
        control = new_control(context, CONTROL_CANCEL, DEADLINE_EXCEEDED)
        control.grace.CopyFrom(to_duration(self._grace))
        control.deadline_exceeded = True
        stage_control(context, loaded, control)

    async def _fail(self, context: RequestContext[Any, Any], loaded: Loaded) -> None:
        limit = to_rfc3339(to_datetime(loaded.head.deadline))
        delta = AgentExecutionStatus(
            phase=EXECUTION_FAILED,
            reason=DEADLINE_EXCEEDED,
            error=f"The execution did not end by its deadline, {limit}.",
        )
        await self._status_change.stage(context, loaded, delta, author=CHANGE_AUTHOR_SYSTEM, event="deadline_exceeded")
