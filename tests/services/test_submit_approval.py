"""SubmitApproval: a person decides whether a tool call runs, once, whoever is quicker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from runstream.model.phases import TERMINAL
from runstream.services.executions.approvals import MOST_APPROVALS
from runstream.storage.records import EXECUTION_HEAD
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_ACTION_UNSPECIFIED,
    APPROVAL_APPROVE,
    APPROVAL_APPROVE_ALL,
    APPROVAL_REJECT,
    APPROVAL_SKIP,
    CHANGE_AUTHOR_USER,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_WAITING_FOR_APPROVAL,
    EXECUTION_WAITING_FOR_INPUT,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_FAILED,
    TOOL_CALL_PENDING,
    TOOL_CALL_RUNNING,
    TOOL_CALL_SKIPPED,
    TOOL_CALL_WAITING_APPROVAL,
    AgentExecution,
    ApprovalAction,
    ExecutionPhase,
    ToolCall,
)
from tests.asking import abandoned, changes, check_fold, decision, leased, pause, question, recover, resume
from tests.attached import attached, held
from tests.making import NOWHERE, a_running_execution, delta, stored
from tests.serving import EXHAUSTED, INVALID, MISSING, PRECONDITION, Client, Refusal, refusal, serving

if TYPE_CHECKING:
    from pathlib import Path

    from runstream.stored.v1.stored_pb2 import ExecutionHead
    from tests.serving import Serving


async def asking(client: Client, *call_ids: str) -> str:
    """Create an execution driven from outside that waits for approval of tool calls; return its id."""
    execution_id = await a_running_execution(client)
    await client.executions.UpdateStatus(question(execution_id, *(call_ids or ("t",))))
    return execution_id


def call_of(execution: AgentExecution, call_id: str = "t") -> ToolCall:
    """Return a tool call of an execution."""
    return next(call for call in execution.status.tool_calls if call.id == call_id)


async def head_of(running: Serving, execution_id: str) -> ExecutionHead:
    """Return the head as it is on disk."""
    head = await running.store.durable.get(EXECUTION_HEAD, execution_id)
    assert head is not None
    return head


async def decided(client: Client, execution_id: str, action: ApprovalAction.ValueType) -> Refusal:
    """Decide otherwise; return how that is refused."""
    told = await refusal(client.executions.SubmitApproval(decision(execution_id, "t", action)))
    assert (told.code, told.reason) == (PRECONDITION, "APPROVAL_DECIDED")
    return told


async def test_an_approved_call_may_run_and_the_work_goes_on(client: Client) -> None:
    async with leased(client) as lease:
        asked = await client.executions.UpdateStatus(question(lease.id, "t", attempt=1, sequence=1))
        assert asked.status.phase == EXECUTION_WAITING_FOR_APPROVAL
        answer = await client.executions.SubmitApproval(decision(lease.id, "t", APPROVAL_APPROVE, "go ahead"))
        assert answer.metadata.revision == asked.metadata.revision + 1
        assert answer.status.phase == EXECUTION_IN_PROGRESS
        assert answer.status.audit.status_audit.event == "approval_decided"
        call = call_of(answer)
        assert (call.status, call.completed_at, call.error) == (TOOL_CALL_PENDING, "", "")
        assert (call.approval.action, call.approval.comment) == (APPROVAL_APPROVE, "go ahead")
        assert call.approval.decided_by.id == "anonymous"
        assert call.approval.HasField("decide_time")
        told = (await lease.runner.command("approval")).approval
        assert (told.execution_id, told.attempt, told.tool_call_id) == (lease.id, 1, "t")
        assert (told.action, told.comment, told.decided_by.id) == (APPROVAL_APPROVE, "go ahead", "anonymous")
        assert told.decide_time == call.approval.decide_time
        # It is told again until it has reported how the call ended.
        assert [each.WhichOneof("command") for each in await lease.runner.heartbeat(held(lease.assignment))] == [
            "approval"
        ]
        done = delta(lease.id, attempt=1, sequence=2)
        done.status.tool_calls.add(id="t", status=TOOL_CALL_COMPLETED)
        await client.executions.UpdateStatus(done)
        assert await lease.runner.heartbeat(held(lease.assignment)) == []
    change = (await changes(client, lease.id, after=asked.metadata.revision))[0]
    assert (change.author, change.attempt, len(change.status.tool_calls)) == (CHANGE_AUTHOR_USER, 1, 1)
    await check_fold(client, lease.id)


@pytest.mark.parametrize(
    ("action", "comment", "error"),
    [
        (APPROVAL_SKIP, "", ""),
        (APPROVAL_SKIP, "not needed", ""),
        (APPROVAL_REJECT, "", "Rejected by anonymous."),
        (APPROVAL_REJECT, "too dangerous", "Rejected by anonymous: too dangerous"),
    ],
)
async def test_a_refused_call_is_over(
    client: Client, action: ApprovalAction.ValueType, comment: str, error: str
) -> None:
    execution_id = await asking(client)
    answer = await client.executions.SubmitApproval(decision(execution_id, "t", action, comment))
    call = call_of(answer)
    assert answer.status.phase == EXECUTION_IN_PROGRESS
    assert (call.status, call.error, call.approval.comment) == (TOOL_CALL_SKIPPED, error, comment)
    assert call.approval.action == action
    assert call.completed_at
    await check_fold(client, execution_id)


async def test_the_work_goes_on_when_the_last_call_is_decided(client: Client) -> None:
    execution_id = await asking(client, "a", "b", "c")
    one = await client.executions.SubmitApproval(decision(execution_id, "b", APPROVAL_SKIP))
    two = await client.executions.SubmitApproval(decision(execution_id, "a", APPROVAL_APPROVE))
    three = await client.executions.SubmitApproval(decision(execution_id, "c", APPROVAL_REJECT))
    phases = [answer.status.phase for answer in (one, two, three)]
    assert phases == [EXECUTION_WAITING_FOR_APPROVAL, EXECUTION_WAITING_FOR_APPROVAL, EXECUTION_IN_PROGRESS]
    assert [call.status for call in three.status.tool_calls] == [
        TOOL_CALL_PENDING,
        TOOL_CALL_SKIPPED,
        TOOL_CALL_SKIPPED,
    ]


async def test_without_its_runner_it_is_queued_and_the_next_one_learns_what_was_decided(client: Client) -> None:
    execution_id = await abandoned(client, EXECUTION_WAITING_FOR_APPROVAL, "a", "b")
    waits = await client.executions.SubmitApproval(decision(execution_id, "a", APPROVAL_REJECT, "no"))
    assert waits.status.phase == EXECUTION_WAITING_FOR_APPROVAL
    queued = await client.executions.SubmitApproval(decision(execution_id, "b", APPROVAL_APPROVE))
    assert queued.status.phase == EXECUTION_PENDING
    async with attached(client, "next") as runner:
        assignment = await runner.assignment()
        told = [(await runner.command("approval")).approval for _ in range(2)]
    assert (assignment.attempt, assignment.resume_from) == (2, True)
    calls = {call.id: call for call in assignment.execution.status.tool_calls}
    assert (calls["a"].status, calls["b"].status) == (TOOL_CALL_SKIPPED, TOOL_CALL_PENDING)
    assert {(each.tool_call_id, each.attempt, each.action) for each in told} == {
        ("a", 2, APPROVAL_REJECT),
        ("b", 2, APPROVAL_APPROVE),
    }


@pytest.mark.parametrize("phase", [EXECUTION_IN_PROGRESS, EXECUTION_WAITING_FOR_INPUT, EXECUTION_PAUSED])
async def test_in_another_phase_a_decision_leaves_the_phase(client: Client, phase: ExecutionPhase.ValueType) -> None:
    execution_id = await a_running_execution(client)
    request = question(execution_id, "t")
    request.status.phase = phase
    await client.executions.UpdateStatus(request)
    answer = await client.executions.SubmitApproval(decision(execution_id, "t", APPROVAL_APPROVE))
    assert answer.status.phase == phase
    assert call_of(answer).approval.action == APPROVAL_APPROVE


async def test_a_decision_about_a_paused_execution_reaches_the_attempt_after_it(client: Client) -> None:
    execution_id = await abandoned(client, EXECUTION_WAITING_FOR_APPROVAL, "t")
    await client.executions.Pause(pause(execution_id))
    await client.executions.Resume(resume(execution_id))
    queued = await client.executions.SubmitApproval(decision(execution_id, "t", APPROVAL_APPROVE))
    assert queued.status.phase == EXECUTION_PENDING
    async with attached(client, "next") as runner:
        assert (await runner.assignment()).resume_from
        assert (await runner.command("approval")).approval.tool_call_id == "t"


async def test_the_same_decision_again_changes_nothing_whoever_asks_and_when(client: Client) -> None:
    execution_id = await asking(client)
    first = await client.executions.SubmitApproval(decision(execution_id, "t", APPROVAL_SKIP, "one"))
    assert await client.executions.SubmitApproval(decision(execution_id, "t", APPROVAL_SKIP, "two")) == first
    done = delta(execution_id)
    done.status.tool_calls.add(id="t", status=TOOL_CALL_SKIPPED)
    reported = await client.executions.UpdateStatus(done)  # no longer in the books
    assert await client.executions.SubmitApproval(decision(execution_id, "t", APPROVAL_SKIP)) == reported
    ended = await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED))
    assert await client.executions.SubmitApproval(decision(execution_id, "t", APPROVAL_SKIP)) == ended


async def test_another_decision_is_refused_and_told_what_stands(client: Client) -> None:
    execution_id = await asking(client)
    await client.executions.SubmitApproval(decision(execution_id, "t", APPROVAL_REJECT))
    told = await decided(client, execution_id, APPROVAL_APPROVE)
    assert told.metadata == {
        "id": execution_id,
        "tool_call_id": "t",
        "action": "APPROVAL_REJECT",
        "decided_by": "anonymous",
    }
    assert "anonymous has decided APPROVAL_REJECT" in told.message
    done = delta(execution_id)
    done.status.tool_calls.add(id="t", status=TOOL_CALL_SKIPPED)
    await client.executions.UpdateStatus(done)
    for action in (APPROVAL_APPROVE, APPROVAL_SKIP, APPROVAL_APPROVE_ALL):
        assert (await decided(client, execution_id, action)).metadata == told.metadata
    ended = await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_FAILED))
    assert (await decided(client, execution_id, APPROVAL_APPROVE)).metadata == told.metadata
    assert await stored(client, execution_id) == ended


async def test_a_call_that_does_not_wait_or_is_not_there_is_refused(client: Client) -> None:
    execution_id = await asking(client)
    request = delta(execution_id)
    request.status.tool_calls.add(id="free", status=TOOL_CALL_RUNNING)
    request.status.messages.add(id="m").tool_calls.add(id="nested", status=TOOL_CALL_WAITING_APPROVAL)
    before = await client.executions.UpdateStatus(request)
    free = await refusal(client.executions.SubmitApproval(decision(execution_id, "free", APPROVAL_APPROVE)))
    assert (free.code, free.reason) == (PRECONDITION, "NOT_WAITING_FOR_APPROVAL")
    assert free.metadata == {"id": execution_id, "tool_call_id": "free"}
    for call_id in ("nested", "nowhere"):
        told = await refusal(client.executions.SubmitApproval(decision(execution_id, call_id, APPROVAL_APPROVE)))
        assert (told.code, told.reason) == (MISSING, "TOOL_CALL_NOT_FOUND")
        assert told.metadata == {"id": execution_id, "tool_call_id": call_id}
    assert await stored(client, execution_id) == before


async def test_a_call_that_the_runner_no_longer_asks_about_does_not_wait(client: Client) -> None:
    execution_id = await asking(client)
    request = delta(execution_id, phase=EXECUTION_IN_PROGRESS)
    request.status.tool_calls.add(id="t", status=TOOL_CALL_FAILED)
    before = await client.executions.UpdateStatus(request)
    told = await refusal(client.executions.SubmitApproval(decision(execution_id, "t", APPROVAL_APPROVE)))
    assert (told.code, told.reason) == (PRECONDITION, "NOT_WAITING_FOR_APPROVAL")
    assert await stored(client, execution_id) == before


@pytest.mark.parametrize("phase", sorted(TERMINAL))
async def test_what_has_ended_takes_no_decision(client: Client, phase: ExecutionPhase.ValueType) -> None:
    execution_id = await asking(client)
    before = await client.executions.UpdateStatus(delta(execution_id, phase=phase))
    for call_id in ("t", "nowhere"):
        told = await refusal(client.executions.SubmitApproval(decision(execution_id, call_id, APPROVAL_APPROVE)))
        assert (told.code, told.reason) == (PRECONDITION, "EXECUTION_TERMINAL")
        assert told.metadata == {"id": execution_id, "phase": ExecutionPhase.Name(phase)}
    assert await stored(client, execution_id) == before


async def test_a_wrong_request_is_refused(client: Client) -> None:
    unknown = await refusal(client.executions.SubmitApproval(decision(f"aex_{NOWHERE}", "t", APPROVAL_SKIP)))
    assert (unknown.code, unknown.reason) == (MISSING, "AGENT_EXECUTION_NOT_FOUND")
    empty = await refusal(client.executions.SubmitApproval(decision("", "", APPROVAL_ACTION_UNSPECIFIED, "x" * 10_001)))
    assert (empty.code, set(empty.fields)) == (INVALID, {"agent_execution_id", "tool_call_id", "action", "comment"})


async def test_approve_all_approves_what_waits_and_what_asks_later(client: Client) -> None:
    async with leased(client) as lease:
        await client.executions.UpdateStatus(question(lease.id, "a", "b", attempt=1))
        answer = await client.executions.SubmitApproval(decision(lease.id, "a", APPROVAL_APPROVE_ALL, "all good"))
        assert answer.status.phase == EXECUTION_IN_PROGRESS
        assert [call.status for call in answer.status.tool_calls] == [TOOL_CALL_PENDING] * 2
        assert [call.approval.action for call in answer.status.tool_calls] == [APPROVAL_APPROVE] * 2
        # What is said is said about the call that was named.
        assert [call.approval.comment for call in answer.status.tool_calls] == ["all good", ""]
        later = await client.executions.UpdateStatus(question(lease.id, "c", attempt=1))
        assert later.status.phase == EXECUTION_IN_PROGRESS
        call = call_of(later, "c")
        assert (call.status, call.approval.action) == (TOOL_CALL_PENDING, APPROVAL_APPROVE)
        assert call.approval.decided_by.id == "anonymous"
        told = [(await lease.runner.command("approval")).approval.tool_call_id for _ in range(3)]
        assert told == ["a", "b", "c"]
    await check_fold(client, lease.id)


async def test_approve_all_can_follow_an_approval_of_the_same_call(running: Serving, client: Client) -> None:
    execution_id = await asking(client, "t", "u")
    await client.executions.SubmitApproval(decision(execution_id, "t", APPROVAL_APPROVE))
    answer = await client.executions.SubmitApproval(decision(execution_id, "t", APPROVAL_APPROVE_ALL))
    assert call_of(answer, "u").approval.action == APPROVAL_APPROVE
    assert answer.status.phase == EXECUTION_IN_PROGRESS
    assert (await head_of(running, execution_id)).HasField("approved_all_by")
    for action in (APPROVAL_APPROVE_ALL, APPROVAL_APPROVE):
        assert await client.executions.SubmitApproval(decision(execution_id, "t", action)) == answer


async def test_approve_all_can_follow_an_approval_of_a_call_that_has_run(client: Client) -> None:
    execution_id = await asking(client)
    await client.executions.SubmitApproval(decision(execution_id, "t", APPROVAL_APPROVE))
    done = delta(execution_id)
    done.status.tool_calls.add(id="t", status=TOOL_CALL_COMPLETED)
    await client.executions.UpdateStatus(done)
    await client.executions.SubmitApproval(decision(execution_id, "t", APPROVAL_APPROVE_ALL))
    later = await client.executions.UpdateStatus(question(execution_id, "u"))
    assert later.status.phase == EXECUTION_IN_PROGRESS
    assert call_of(later, "u").approval.action == APPROVAL_APPROVE
    ended = await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED))
    assert await client.executions.SubmitApproval(decision(execution_id, "t", APPROVAL_APPROVE_ALL)) == ended


async def test_twenty_decisions_at_once_are_one(client: Client) -> None:
    execution_id = await asking(client)
    actions = [APPROVAL_APPROVE, APPROVAL_SKIP, APPROVAL_REJECT, APPROVAL_APPROVE_ALL] * 5
    outcomes = await asyncio.gather(
        *(client.executions.SubmitApproval(decision(execution_id, "t", action)) for action in actions),
        return_exceptions=True,
    )
    state = await check_fold(client, execution_id)
    stands = call_of(state).approval.action
    for action, outcome in zip(actions, outcomes, strict=True):
        taken = (APPROVAL_APPROVE if action == APPROVAL_APPROVE_ALL else action) == stands
        assert taken != isinstance(outcome, BaseException)
    # One for the decision; one more when somebody then approves all.
    assert state.metadata.revision in (4, 5)


@pytest.mark.parametrize("late", [TOOL_CALL_WAITING_APPROVAL, TOOL_CALL_RUNNING, TOOL_CALL_PENDING])
@pytest.mark.parametrize("action", [APPROVAL_SKIP, APPROVAL_REJECT])
async def test_what_a_runner_reports_before_it_knows_does_not_undo_a_refusal(
    client: Client, action: ApprovalAction.ValueType, late: int
) -> None:
    execution_id = await asking(client)
    await client.executions.SubmitApproval(decision(execution_id, "t", action))
    request = question(execution_id, "t", seconds=5, default=APPROVAL_APPROVE)
    request.status.tool_calls[0].status = late  # type: ignore[assignment]  # one of the enum's
    request.status.tool_calls[0].name = "renamed"
    state = await client.executions.UpdateStatus(request)
    call = call_of(state)
    assert (call.status, call.approval.action, call.name) == (TOOL_CALL_SKIPPED, action, "renamed")
    assert not call.approval.HasField("timeout")
    assert state.status.phase == EXECUTION_IN_PROGRESS
    await check_fold(client, execution_id)


async def test_a_runner_that_asks_again_before_it_knows_has_its_answer(client: Client) -> None:
    async with leased(client) as lease:
        await client.executions.UpdateStatus(question(lease.id, "t", attempt=1, sequence=1))
        await client.executions.SubmitApproval(decision(lease.id, "t", APPROVAL_APPROVE))
        state = await client.executions.UpdateStatus(question(lease.id, "t", attempt=1, sequence=2))
        assert state.status.phase == EXECUTION_IN_PROGRESS
        assert call_of(state).status == TOOL_CALL_PENDING
        # One decided, one still to be: then it waits.
        state = await client.executions.UpdateStatus(question(lease.id, "t", "u", attempt=1, sequence=3))
        assert state.status.phase == EXECUTION_WAITING_FOR_APPROVAL
        assert [call.status for call in state.status.tool_calls] == [TOOL_CALL_PENDING, TOOL_CALL_WAITING_APPROVAL]
    await check_fold(client, lease.id)


async def test_a_runner_that_replaces_its_calls_neither_loses_a_decision_nor_keeps_a_question(client: Client) -> None:
    execution_id = await asking(client, "t", "u", "v")
    await client.executions.SubmitApproval(decision(execution_id, "t", APPROVAL_REJECT, "no"))
    request = question(execution_id, "t", "u")
    request.replace_mask.paths.append("tool_calls")
    state = await client.executions.UpdateStatus(request)
    assert [call.id for call in state.status.tool_calls] == ["t", "u"]
    call = call_of(state)
    assert (call.status, call.approval.action, call.approval.comment) == (TOOL_CALL_SKIPPED, APPROVAL_REJECT, "no")
    assert state.status.phase == EXECUTION_WAITING_FOR_APPROVAL
    answer = await client.executions.SubmitApproval(decision(execution_id, "u", APPROVAL_APPROVE))
    assert answer.status.phase == EXECUTION_IN_PROGRESS
    gone = await refusal(client.executions.SubmitApproval(decision(execution_id, "v", APPROVAL_APPROVE)))
    assert (gone.code, gone.reason) == (MISSING, "TOOL_CALL_NOT_FOUND")
    await check_fold(client, execution_id)


async def test_a_decision_and_the_end_at_once_leave_one_truth(client: Client) -> None:
    for number in range(10):
        execution_id = await a_running_execution(client, agent=f"agent {number}")
        await client.executions.UpdateStatus(question(execution_id, "t"))
        made, ended = await asyncio.gather(
            client.executions.SubmitApproval(decision(execution_id, "t", APPROVAL_APPROVE)),
            client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_FAILED)),
            return_exceptions=True,
        )
        state = await check_fold(client, execution_id)
        assert state == ended
        assert bool(call_of(state).approval.action) == (not isinstance(made, BaseException))


async def test_decisions_outlive_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        execution_id = await asking(running.client, "t", "u")
        before = await running.client.executions.SubmitApproval(decision(execution_id, "t", APPROVAL_REJECT))
    async with serving(tmp_path) as running:
        client = running.client
        assert await client.executions.SubmitApproval(decision(execution_id, "t", APPROVAL_REJECT)) == before
        await decided(client, execution_id, APPROVAL_APPROVE)
        answer = await client.executions.SubmitApproval(decision(execution_id, "u", APPROVAL_APPROVE))
    assert answer.status.phase == EXECUTION_IN_PROGRESS


async def test_a_recovered_execution_asks_anew(client: Client) -> None:
    execution_id = await asking(client)
    await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_FAILED))
    await client.executions.Recover(recover(execution_id))
    told = await refusal(client.executions.SubmitApproval(decision(execution_id, "t", APPROVAL_APPROVE)))
    assert told.reason == "NOT_WAITING_FOR_APPROVAL"
    await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_IN_PROGRESS))
    await client.executions.UpdateStatus(question(execution_id, "t"))
    answer = await client.executions.SubmitApproval(decision(execution_id, "t", APPROVAL_APPROVE))
    assert answer.status.phase == EXECUTION_IN_PROGRESS


async def test_only_so_many_calls_wait_at_a_time(client: Client) -> None:
    execution_id = await a_running_execution(client)
    ids = [f"t{number}" for number in range(MOST_APPROVALS)]
    before = await client.executions.UpdateStatus(question(execution_id, *ids))
    told = await refusal(client.executions.UpdateStatus(question(execution_id, "one more")))
    assert (told.code, told.reason) == (EXHAUSTED, "TOO_MANY_APPROVALS")
    assert await stored(client, execution_id) == before
    answer = await client.executions.SubmitApproval(decision(execution_id, "t7", APPROVAL_APPROVE_ALL))
    assert all(call.approval.action == APPROVAL_APPROVE for call in answer.status.tool_calls)
    assert answer.status.phase == EXECUTION_IN_PROGRESS
