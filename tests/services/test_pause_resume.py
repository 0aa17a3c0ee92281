"""Pause and Resume: at once where nobody is at work, else a request that the runner follows, or that is taken back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from runstream.model.phases import TERMINAL
from runstream.v1.agent_execution_pb2 import (
    CHANGE_AUTHOR_USER,
    CONTROL_CANCEL,
    CONTROL_PAUSE,
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_WAITING_FOR_APPROVAL,
    EXECUTION_WAITING_FOR_INPUT,
    MESSAGE_AI,
    ExecutionPhase,
)
from runstream.v1.agent_execution_service_pb2 import CancelAgentExecutionInput
from tests.asking import abandoned, changes, check_fold, leased, pause, resume
from tests.attached import attached
from tests.making import NOWHERE, a_running_execution, an_execution, an_execution_in, delta, stored
from tests.serving import INVALID, MISSING, PRECONDITION, Client, refusal, serving

if TYPE_CHECKING:
    from pathlib import Path

WAITING = [EXECUTION_WAITING_FOR_APPROVAL, EXECUTION_WAITING_FOR_INPUT]
AT_WORK = [EXECUTION_IN_PROGRESS, *WAITING]


async def test_what_is_queued_is_paused_at_once_and_assigned_to_nobody(client: Client) -> None:
    execution_id = await an_execution(client)
    paused = await client.executions.Pause(pause(execution_id, "not yet"))
    assert paused.status.phase == EXECUTION_PAUSED
    assert paused.metadata.revision == 2
    assert paused.status.audit.status_audit.event == "paused"
    assert not paused.status.HasField("control")
    assert not paused.status.reason
    other = await an_execution(client, agent="other")
    async with attached(client, capacity=1) as runner:
        assert (await runner.assignment()).execution.metadata.id == other
    assert await check_fold(client, execution_id) == paused


async def test_what_never_ran_begins_from_nothing_when_it_is_resumed(client: Client) -> None:
    execution_id = await an_execution(client)
    await client.executions.Pause(pause(execution_id))
    resumed = await client.executions.Resume(resume(execution_id))
    assert (resumed.status.phase, resumed.metadata.revision) == (EXECUTION_PENDING, 3)
    assert resumed.status.audit.status_audit.event == "resumed"
    async with attached(client) as runner:
        assignment = await runner.assignment()
    assert (assignment.attempt, assignment.resume_from) == (1, False)


async def test_a_runner_is_told_to_pause_and_its_work_goes_on_where_it_stood(client: Client) -> None:
    async with leased(client) as held:
        asked = await client.executions.Pause(pause(held.id, "lunch"))
        assert asked.status.phase == EXECUTION_IN_PROGRESS
        assert (asked.status.control.action, asked.status.control.reason) == (CONTROL_PAUSE, "lunch")
        assert (asked.status.control.requested_by.id, asked.status.control.HasField("grace")) == ("anonymous", False)
        command = (await held.runner.command("pause")).pause
        assert (command.execution_id, command.attempt, command.reason) == (held.id, 1, "lunch")
        report = delta(held.id, phase=EXECUTION_PAUSED, attempt=1)
        report.status.messages.add(id="m", type=MESSAGE_AI, content="half of it")
        paused = await client.executions.UpdateStatus(report)
        assert paused.status.phase == EXECUTION_PAUSED
        assert not paused.status.HasField("control")
        late = await refusal(client.executions.UpdateStatus(delta(held.id, attempt=1)))
        assert (late.code, late.reason) == (PRECONDITION, "STALE_ATTEMPT")
        await client.executions.Resume(resume(held.id))
        again = await held.runner.assignment()
    assert (again.execution.metadata.id, again.attempt, again.resume_from) == (held.id, 2, True)
    assert [message.content for message in again.execution.status.messages] == ["half of it"]
    await check_fold(client, held.id)


@pytest.mark.parametrize("phase", AT_WORK)
async def test_whoever_drives_it_from_outside_is_asked(client: Client, phase: ExecutionPhase.ValueType) -> None:
    execution_id = await an_execution_in(client, phase)
    asked = await client.executions.Pause(pause(execution_id))
    assert (asked.status.phase, asked.status.control.action) == (phase, CONTROL_PAUSE)
    paused = await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_PAUSED))
    assert paused.status.phase == EXECUTION_PAUSED
    assert not paused.status.HasField("control")


@pytest.mark.parametrize("phase", WAITING)
async def test_what_waits_for_a_person_without_a_runner_is_paused_at_once(
    client: Client, phase: ExecutionPhase.ValueType
) -> None:
    execution_id = await abandoned(client, phase, "t")
    paused = await client.executions.Pause(pause(execution_id))
    assert paused.status.phase == EXECUTION_PAUSED
    await client.executions.Resume(resume(execution_id))
    async with attached(client, "next") as runner:
        assignment = await runner.assignment()
    assert (assignment.attempt, assignment.resume_from) == (2, True)
    assert [call.id for call in assignment.execution.status.tool_calls] == ["t"]


async def test_a_repeated_pause_changes_nothing(client: Client) -> None:
    execution_id = await a_running_execution(client)
    first = await client.executions.Pause(pause(execution_id, "one"))
    answers = await asyncio.gather(*(client.executions.Pause(pause(execution_id, str(n))) for n in range(20)))
    assert all(answer == first for answer in answers)
    paused = await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_PAUSED))
    assert await client.executions.Pause(pause(execution_id, "two")) == paused


async def test_twenty_pauses_at_once_are_one_revision(client: Client) -> None:
    execution_id = await an_execution(client)
    answers = await asyncio.gather(*(client.executions.Pause(pause(execution_id)) for _ in range(20)))
    assert {answer.metadata.revision for answer in answers} == {2}
    again = await asyncio.gather(*(client.executions.Resume(resume(execution_id)) for _ in range(20)))
    assert {answer.metadata.revision for answer in again} == {3}


@pytest.mark.parametrize("phase", [EXECUTION_PENDING, *AT_WORK])
async def test_a_resume_of_what_is_not_paused_changes_nothing(client: Client, phase: ExecutionPhase.ValueType) -> None:
    execution_id = await an_execution_in(client, phase)
    before = await stored(client, execution_id)
    assert await client.executions.Resume(resume(execution_id)) == before


async def test_a_pause_can_be_taken_back_before_the_runner_complies(client: Client) -> None:
    async with leased(client) as held:
        await client.executions.Pause(pause(held.id))
        taken_back = await client.executions.Resume(resume(held.id, "changed my mind"))
        assert taken_back.status.phase == EXECUTION_IN_PROGRESS
        assert not taken_back.status.HasField("control")
        assert await client.executions.Resume(resume(held.id)) == taken_back
        done = await client.executions.UpdateStatus(delta(held.id, phase=EXECUTION_COMPLETED, attempt=1))
    assert done.status.phase == EXECUTION_COMPLETED
    change = (await changes(client, held.id))[3]
    assert (change.revision, change.author, change.WhichOneof("kind")) == (4, CHANGE_AUTHOR_USER, "control")
    assert (change.control.action, change.control.reason) == (0, "changed my mind")
    assert change.control.requested_by.id == "anonymous"
    await check_fold(client, held.id)


async def test_a_runner_that_complies_with_a_pause_that_was_taken_back_is_followed_by_another(client: Client) -> None:
    async with leased(client) as held:
        await client.executions.Pause(pause(held.id))
        await client.executions.Resume(resume(held.id))
        late = await client.executions.UpdateStatus(delta(held.id, phase=EXECUTION_PAUSED, attempt=1))
        assert late.status.phase == EXECUTION_PENDING
        again = await held.runner.assignment()
        assert (again.attempt, again.resume_from) == (2, True)
        # The pause that was taken back is over: one that is asked for now counts.
        await client.executions.Pause(pause(held.id))
        paused = await client.executions.UpdateStatus(delta(held.id, phase=EXECUTION_PAUSED, attempt=2))
    assert paused.status.phase == EXECUTION_PAUSED


async def test_a_pause_asked_for_anew_counts(client: Client) -> None:
    execution_id = await a_running_execution(client)
    await client.executions.Pause(pause(execution_id))
    await client.executions.Resume(resume(execution_id))
    await client.executions.Pause(pause(execution_id))
    paused = await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_PAUSED))
    assert paused.status.phase == EXECUTION_PAUSED


@pytest.mark.parametrize("phase", sorted(TERMINAL))
async def test_what_has_ended_is_neither_paused_nor_resumed(client: Client, phase: ExecutionPhase.ValueType) -> None:
    execution_id = await an_execution_in(client, phase)
    before = await stored(client, execution_id)
    for call in (client.executions.Pause(pause(execution_id)), client.executions.Resume(resume(execution_id))):
        told = await refusal(call)
        assert (told.code, told.reason) == (PRECONDITION, "EXECUTION_TERMINAL")
        assert told.metadata == {"id": execution_id, "phase": ExecutionPhase.Name(phase)}
    assert await stored(client, execution_id) == before


async def test_what_is_about_to_end_is_not_paused(client: Client) -> None:
    execution_id = await a_running_execution(client)
    asked = await client.executions.Cancel(CancelAgentExecutionInput(id=execution_id))
    told = await refusal(client.executions.Pause(pause(execution_id)))
    assert (told.code, told.reason, told.metadata) == (PRECONDITION, "CANCEL_REQUESTED", {"id": execution_id})
    assert await client.executions.Resume(resume(execution_id)) == asked
    assert await stored(client, execution_id) == asked


async def test_a_cancel_takes_the_place_of_a_pause(client: Client) -> None:
    async with leased(client) as held:
        await client.executions.Pause(pause(held.id))
        asked = await client.executions.Cancel(CancelAgentExecutionInput(id=held.id, reason="enough"))
        assert asked.status.control.action == CONTROL_CANCEL
        assert (await held.runner.command("cancel")).cancel.reason == "enough"
        # It has stopped for the pause, before it heard of the cancel; nobody shall go on.
        late = delta(held.id, phase=EXECUTION_PAUSED, attempt=1)
        late.status.tool_calls.add(id="t", name="look")
        ended = await client.executions.UpdateStatus(late)
    assert (ended.status.phase, ended.status.reason) == (EXECUTION_CANCELLED, "enough")
    assert ended.status.completed_at
    assert not ended.status.HasField("control")
    await check_fold(client, held.id)


async def test_a_paused_execution_is_still_paused_after_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path) as running, leased(running.client) as held:
        await running.client.executions.Pause(pause(held.id))
        paused = await running.client.executions.UpdateStatus(delta(held.id, phase=EXECUTION_PAUSED, attempt=1))
    async with serving(tmp_path) as running:
        assert await stored(running.client, held.id) == paused
        other = await an_execution(running.client, agent="other")
        async with attached(running.client) as runner:
            assert (await runner.assignment()).execution.metadata.id == other
            await running.client.executions.Resume(resume(held.id))
            assignment = await runner.assignment()
    assert (assignment.execution.metadata.id, assignment.resume_from) == (held.id, True)


async def test_of_a_pause_and_an_end_at_once_the_end_stands(client: Client) -> None:
    for number in range(10):
        execution_id = await a_running_execution(client, agent=f"agent {number}")
        asked, ended = await asyncio.gather(
            client.executions.Pause(pause(execution_id)),
            client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED)),
            return_exceptions=True,
        )
        assert not isinstance(ended, BaseException)
        state = await check_fold(client, execution_id)
        assert state == ended
        assert state.metadata.revision == (3 if isinstance(asked, BaseException) else 4)
        assert not state.status.HasField("control")


async def test_an_unknown_execution_or_a_long_reason_is_refused(client: Client) -> None:
    for call in (client.executions.Pause(pause(f"aex_{NOWHERE}")), client.executions.Resume(resume(f"aex_{NOWHERE}"))):
        unknown = await refusal(call)
        assert (unknown.code, unknown.reason) == (MISSING, "AGENT_EXECUTION_NOT_FOUND")
    for call in (
        client.executions.Pause(pause(f"aex_{NOWHERE}", "x" * 1001)),
        client.executions.Resume(resume(f"aex_{NOWHERE}", "x" * 1001)),
    ):
        long = await refusal(call)
        assert (long.code, set(long.fields)) == (INVALID, {"reason"})
