"""Approval timers: the time that people have to decide about a tool call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.dispatch.deadlines import Deadlines
from runstream.model.times import to_datetime, to_seconds
from runstream.services.executions.approvals import waiting
from runstream.services.executions.live import live_executions
from runstream.storage.records import EXECUTION_HEAD
from runstream.v1.agent_execution_service_pb2 import AgentExecutionUpdateStatusInput

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from runstream.model.clock import Clock
    from runstream.storage.store import Store, Transaction
    from runstream.stored.v1.stored_pb2 import ExecutionHead, PendingApproval
    from runstream.v1.agent_execution_pb2 import ToolCallApproval


class ApprovalTimers:
    """Keeps the deadlines of open questions in step with the store.

    A question has a name, of its execution, its call and its time: one that is asked anew is another one.
    """

    def __init__(self, store: Store, clock: Clock, due: Callable[[str], Awaitable[None]]) -> None:
        """Take the store, the clock, and what is called with the name of a question whose time is over."""
        self._store = store
        self._clock = clock
        self._deadlines = Deadlines(clock, due)
        self._open: dict[str, set[str]] = {}

    async def run(self) -> None:
        """Let time pass; until cancelled."""
        await self._deadlines.run()

    async def resume(self) -> None:
        """Go on with the time of every question that an earlier process left open.

        Nothing but the wall clock has gone on meanwhile; however that may jump, nobody waits longer than at first.
        """
        now = self._clock.now()
        async for execution_id, head in live_executions(self._store):
            for name, approval in _questions(execution_id, head).items():
                left = (to_datetime(approval.expire_time) - now).total_seconds()
                self._begin(execution_id, name, min(max(left, 0.0), _timeout(approval)))

    def on_commit(self, transaction: Transaction) -> None:
        """Begin the time of a question that was asked, end that of one that was answered or is no more."""
        for (kind, execution_id), message in transaction.puts.items():
            if kind is EXECUTION_HEAD:
                self._note(execution_id, message)
        for kind, execution_id in transaction.deletes:
            if kind is EXECUTION_HEAD:
                self._end(execution_id, self._open.get(execution_id, set()))

    def _note(self, execution_id: str, head: ExecutionHead) -> None:
        known = self._open.get(execution_id)
        if known is None and not head.approvals:
            return
        known = known or set()
        questions = _questions(execution_id, head)
        self._end(execution_id, known - questions.keys())
        for name in questions.keys() - known:
            self._begin(execution_id, name, _timeout(questions[name]))

    def _begin(self, execution_id: str, name: str, seconds: float) -> None:
        self._open.setdefault(execution_id, set()).add(name)
        self._deadlines.add(name, seconds)

    def _end(self, execution_id: str, names: set[str]) -> None:
        for name in names:
            self._deadlines.remove(name)
        left = self._open.get(execution_id, set()) - names
        if left:
            self._open[execution_id] = left
        else:
            self._open.pop(execution_id, None)


def overdue_question(name: str) -> AgentExecutionUpdateStatusInput:
    """Make the request for a name that fell due: the execution, the call, and the time of the question."""
    execution_id, nanoseconds, call_id = name.split(" ", 2)
    request = AgentExecutionUpdateStatusInput(execution_id=execution_id)
    call = request.status.tool_calls.add(id=call_id)
    call.approval.expire_time.FromNanoseconds(int(nanoseconds))
    return request


def _questions(execution_id: str, head: ExecutionHead) -> dict[str, ToolCallApproval]:
    """Return the open questions that have a time, by name."""
    return {
        _name(execution_id, known): known.approval for known in waiting(head) if known.approval.HasField("expire_time")
    }


def _name(execution_id: str, known: PendingApproval) -> str:
    return f"{execution_id} {known.approval.expire_time.ToNanoseconds()} {known.tool_call_id}"


def _timeout(approval: ToolCallApproval) -> float:
    return to_seconds(approval.timeout)
