"""The books of approvals: whatever a runner reports, and in whatever order, what was decided stays decided."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from runstream.model.deltas import ENDED_TOOL_CALLS, normalise_delta
from runstream.model.merge import REPLACEABLE_FIELDS, Stamp, merge_status
from runstream.services.executions.approvals import REFUSALS, Decision, decide, find_approval, note_approvals, waiting
from runstream.stored.v1.stored_pb2 import ExecutionHead
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_APPROVE,
    APPROVAL_REJECT,
    APPROVAL_SKIP,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PHASE_UNSPECIFIED,
    EXECUTION_WAITING_FOR_APPROVAL,
    TOOL_CALL_PENDING,
    TOOL_CALL_RUNNING,
    TOOL_CALL_SKIPPED,
    TOOL_CALL_WAITING_APPROVAL,
    AgentExecutionStatus,
    ToolCall,
    ToolCallStatus,
)
from runstream.v1.resource_pb2 import AuditActor

if TYPE_CHECKING:
    from runstream.v1.agent_execution_pb2 import ApprovalAction

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SOMEBODY = AuditActor(id="somebody")
IDS = ("a", "b", "c")


class Books:
    """A head and a status, changed as the commands change them, without a store."""

    def __init__(self) -> None:
        self.head = ExecutionHead()
        self.head.status.phase = EXECUTION_IN_PROGRESS
        self.status = AgentExecutionStatus(phase=EXECUTION_IN_PROGRESS)
        self.revision = 0

    def report(self, delta: AgentExecutionStatus, *, replaced: bool = False) -> None:
        """Take a runner's delta."""
        clean = normalise_delta(delta, lambda prefix: f"{prefix}_new")
        note_approvals(self.head, clean, NOW, replaced=replaced)
        self._merge(clean, ["tool_calls"] if replaced else [])

    def decide(self, call_id: str, action: ApprovalAction.ValueType) -> bool:
        """Take a decision, if the call waits for one; tell whether it did."""
        known = find_approval(self.head, call_id)
        if known is None or known.approval.action:
            return False
        delta = AgentExecutionStatus()
        decide(known, Decision(action, SOMEBODY, NOW), delta)
        self._merge(delta, [])
        return True

    def call(self, call_id: str) -> ToolCall | None:
        """Return a tool call of the status."""
        return next((call for call in self.status.tool_calls if call.id == call_id), None)

    def _merge(self, delta: AgentExecutionStatus, replace: list[str]) -> None:
        assert set(replace) <= REPLACEABLE_FIELDS
        self.revision += 1
        merge_status(self.status, delta, Stamp(self.revision, 1, "now"), replace)
        self.head.status.phase = self.status.phase


_CALLS: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    id=st.sampled_from(IDS),
    status=st.sampled_from(ToolCallStatus.values()),
    approval=st.sampled_from([None, 0, APPROVAL_APPROVE, APPROVAL_REJECT]),
)
_REPORTS = st.tuples(
    st.just("report"),
    st.lists(_CALLS, max_size=4),
    st.sampled_from([EXECUTION_PHASE_UNSPECIFIED, EXECUTION_IN_PROGRESS, EXECUTION_WAITING_FOR_APPROVAL]),
    st.booleans(),
)
_DECISIONS = st.tuples(
    st.just("decide"), st.sampled_from(IDS), st.sampled_from([APPROVAL_APPROVE, APPROVAL_SKIP, APPROVAL_REJECT])
)


def _delta(calls: list[dict[str, Any]], phase: int) -> AgentExecutionStatus:
    delta = AgentExecutionStatus(phase=phase)  # type: ignore[arg-type]  # one of the enum's
    for each in calls:
        call = delta.tool_calls.add(id=each["id"], status=each["status"])
        if each["approval"] is not None:
            call.approval.default_action = each["approval"]
            call.approval.action = APPROVAL_APPROVE  # a runner that decides by itself is not heard
    return delta


@given(st.lists(st.one_of(_REPORTS, _DECISIONS), max_size=25))
def test_a_decision_stands_until_the_runner_has_reported_how_the_call_ended(steps: list[Any]) -> None:
    """No report undoes a decision, makes a refused call run, or decides by itself, in whatever order they come."""
    books, stands = Books(), dict[str, int]()
    for step in steps:
        if step[0] == "decide":
            if books.decide(step[1], step[2]):
                stands[step[1]] = step[2]
        else:
            _, calls, phase, replaced = step
            books.report(_delta(calls, phase), replaced=replaced)
            for call_id in list(stands):
                statuses = [each["status"] for each in calls if each["id"] == call_id]
                if ENDED_TOOL_CALLS.intersection(statuses) or (replaced and not statuses):
                    del stands[call_id]
        for call_id, action in stands.items():
            call = books.call(call_id)
            assert call is not None
            assert call.approval.action == action
            assert call.status != TOOL_CALL_WAITING_APPROVAL
            assert action not in REFUSALS or call.status == TOOL_CALL_SKIPPED
            known = find_approval(books.head, call_id)
            assert known is not None
            assert known.approval.action == action


@given(st.lists(st.one_of(_REPORTS, _DECISIONS), max_size=25))
def test_what_waits_in_the_state_waits_in_the_books_and_the_other_way_round(steps: list[Any]) -> None:
    """Whoever sees a call wait can decide about it; the phase waits for no decision that nobody can make."""
    books = Books()
    for step in steps:
        if step[0] == "decide":
            books.decide(step[1], step[2])
        else:
            books.report(_delta(step[1], step[2]), replaced=step[3])
        seen = {call.id for call in books.status.tool_calls if call.status == TOOL_CALL_WAITING_APPROVAL}
        assert seen == {known.tool_call_id for known in waiting(books.head)}
        ids = [known.tool_call_id for known in books.head.approvals]
        assert len(ids) == len(set(ids))


def test_a_refused_call_that_the_runner_ran_nevertheless_is_shown_as_refused() -> None:
    """An end that a runner reports of a refused call leaves it SKIPPED."""
    books = Books()
    books.report(_delta([{"id": "a", "status": TOOL_CALL_WAITING_APPROVAL, "approval": None}], 0))
    assert books.decide("a", APPROVAL_SKIP)
    books.report(_delta([{"id": "a", "status": TOOL_CALL_RUNNING, "approval": None}], 0))
    for ended in sorted(ENDED_TOOL_CALLS):
        books.report(_delta([{"id": "a", "status": ended, "approval": None}], 0))
        call = books.call("a")
        assert call is not None
        if find_approval(books.head, "a") is None:
            assert (call.status, call.approval.action) == (TOOL_CALL_SKIPPED, APPROVAL_SKIP)
            break


def test_a_call_that_is_announced_again_goes_on_waiting() -> None:
    """An attempt that goes on announces what it will ask; a decision that comes before it does is taken."""
    books = Books()
    books.report(AgentExecutionStatus(tool_calls=[ToolCall(id="a", status=TOOL_CALL_WAITING_APPROVAL)]))
    for replaced in (False, True):
        books.report(AgentExecutionStatus(tool_calls=[ToolCall(id="a", status=TOOL_CALL_PENDING)]), replaced=replaced)
        call = books.call("a")
        assert call is not None
        assert call.status == TOOL_CALL_WAITING_APPROVAL
    assert books.decide("a", APPROVAL_REJECT)
    books.report(AgentExecutionStatus(tool_calls=[ToolCall(id="a", status=TOOL_CALL_WAITING_APPROVAL)]))
    assert waiting(books.head) == []


def test_one_delta_may_name_a_call_twice() -> None:
    """A call that asks and ends in one delta does not wait; one that ends and asks does."""
    books = Books()
    asks = {"id": "a", "status": TOOL_CALL_WAITING_APPROVAL, "approval": None}
    ends = {"id": "a", "status": TOOL_CALL_SKIPPED, "approval": None}
    books.report(_delta([asks, ends], EXECUTION_IN_PROGRESS))
    assert not books.head.approvals
    books.report(_delta([ends, asks], EXECUTION_WAITING_FOR_APPROVAL))
    assert [known.tool_call_id for known in waiting(books.head)] == ["a"]
    assert books.status.phase == EXECUTION_WAITING_FOR_APPROVAL
