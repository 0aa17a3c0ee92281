"""SubmitInput: a person answers what waits for it, once, and the work goes on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from runstream.model.phases import TERMINAL
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_APPROVE,
    CHANGE_AUTHOR_USER,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_WAITING_FOR_APPROVAL,
    EXECUTION_WAITING_FOR_INPUT,
    MESSAGE_HUMAN,
    ExecutionPhase,
)
from tests.asking import abandoned, answer, changes, check_fold, decision, leased
from tests.attached import attached, held
from tests.making import NOWHERE, an_execution_in, delta, stored
from tests.serving import INVALID, MISSING, PRECONDITION, Client, refusal, serving

if TYPE_CHECKING:
    from pathlib import Path

KEY = (("idempotency-key", "one"),)


async def waiting(client: Client, agent: str = "survey") -> str:
    """Create an execution driven from outside that waits for input; return its id."""
    return await an_execution_in(client, EXECUTION_WAITING_FOR_INPUT, agent=agent)


async def test_the_runner_goes_on_with_what_the_person_says(client: Client) -> None:
    async with leased(client) as lease:
        asked = await client.executions.UpdateStatus(delta(lease.id, phase=EXECUTION_WAITING_FOR_INPUT, attempt=1))
        said = await client.executions.SubmitInput(answer(lease.id, "the left one"))
        assert said.status.phase == EXECUTION_IN_PROGRESS
        assert said.metadata.revision == asked.metadata.revision + 1
        assert said.status.audit.status_audit.event == "input_submitted"
        (message,) = said.status.messages
        assert (message.type, message.content, message.attempt) == (MESSAGE_HUMAN, "the left one", 1)
        assert message.id.startswith("msg_")
        assert message.timestamp
        told = (await lease.runner.command("input")).input
        assert (told.execution_id, told.attempt, told.revision) == (lease.id, 1, said.metadata.revision)
        assert told.revision > asked.metadata.revision
        assert (told.message.id, told.message.content) == (message.id, "the left one")
        # It is told again until it says that it has got it.
        again = await lease.runner.heartbeat(held(lease.assignment))
        assert [each.input.revision for each in again] == [told.revision]
        assert await lease.runner.heartbeat(held(lease.assignment, told.revision)) == []
    (change,) = await changes(client, lease.id, after=asked.metadata.revision)
    assert change.author == CHANGE_AUTHOR_USER
    await check_fold(client, lease.id)


async def test_without_its_runner_it_is_queued_and_the_next_one_finds_the_message(client: Client) -> None:
    execution_id = await abandoned(client, EXECUTION_WAITING_FOR_INPUT)
    queued = await client.executions.SubmitInput(answer(execution_id))
    assert queued.status.phase == EXECUTION_PENDING
    async with attached(client, "next") as runner:
        assignment = await runner.assignment()
        assert (assignment.attempt, assignment.resume_from) == (2, True)
        assert [message.content for message in assignment.execution.status.messages] == ["the left one"]
        assert await runner.heartbeat(held(assignment)) == []


async def test_a_question_after_an_answer_takes_another_one(client: Client) -> None:
    async with leased(client) as lease:
        for text in ("one", "two"):
            request = delta(lease.id, phase=EXECUTION_WAITING_FOR_INPUT, attempt=1)
            await client.executions.UpdateStatus(request)
            await client.executions.SubmitInput(answer(lease.id, text))
            assert (await lease.runner.command("input")).input.message.content == text
    assert [message.content for message in (await stored(client, lease.id)).status.messages] == ["one", "two"]


async def test_a_repeat_with_the_same_key_changes_nothing_even_later(client: Client) -> None:
    execution_id = await waiting(client)
    first = await client.executions.SubmitInput(answer(execution_id), metadata=KEY)
    assert await client.executions.SubmitInput(answer(execution_id), metadata=KEY) == first
    again = await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_WAITING_FOR_INPUT))
    assert await client.executions.SubmitInput(answer(execution_id), metadata=KEY) == again
    ended = await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED))
    assert await client.executions.SubmitInput(answer(execution_id), metadata=KEY) == ended


async def test_another_key_or_none_is_another_input(client: Client) -> None:
    execution_id = await waiting(client)
    for metadata in (KEY, (("idempotency-key", "two"),), (), ()):
        await client.executions.SubmitInput(answer(execution_id), metadata=metadata)
        await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_WAITING_FOR_INPUT))
    state = await stored(client, execution_id)
    assert len(state.status.messages) == 4
    assert len({message.id for message in state.status.messages}) == 4


async def test_twenty_at_once_with_one_key_are_one_message(client: Client) -> None:
    execution_id = await waiting(client)
    calls = (client.executions.SubmitInput(answer(execution_id), metadata=KEY) for _ in range(20))
    answers = await asyncio.gather(*calls)
    assert {each.metadata.revision for each in answers} == {4}
    assert len(answers[0].status.messages) == 1


async def test_of_twenty_at_once_one_is_the_answer(client: Client) -> None:
    execution_id = await waiting(client)
    calls = (client.executions.SubmitInput(answer(execution_id, str(number))) for number in range(20))
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    taken = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert taken == [await check_fold(client, execution_id)]


@pytest.mark.parametrize(
    "phase", [EXECUTION_PENDING, EXECUTION_IN_PROGRESS, EXECUTION_WAITING_FOR_APPROVAL, EXECUTION_PAUSED]
)
async def test_what_does_not_wait_for_input_takes_none(client: Client, phase: ExecutionPhase.ValueType) -> None:
    execution_id = await an_execution_in(client, phase)
    before = await stored(client, execution_id)
    told = await refusal(client.executions.SubmitInput(answer(execution_id), metadata=KEY))
    assert (told.code, told.reason) == (PRECONDITION, "NOT_WAITING_FOR_INPUT")
    assert told.metadata == {"id": execution_id, "phase": ExecutionPhase.Name(phase)}
    assert await stored(client, execution_id) == before


@pytest.mark.parametrize("phase", sorted(TERMINAL))
async def test_what_has_ended_takes_none(client: Client, phase: ExecutionPhase.ValueType) -> None:
    execution_id = await an_execution_in(client, phase)
    before = await stored(client, execution_id)
    told = await refusal(client.executions.SubmitInput(answer(execution_id), metadata=KEY))
    assert (told.code, told.reason) == (PRECONDITION, "EXECUTION_TERMINAL")
    assert await stored(client, execution_id) == before


async def test_a_wrong_request_is_refused(client: Client) -> None:
    execution_id = await waiting(client)
    before = await stored(client, execution_id)
    unknown = await refusal(client.executions.SubmitInput(answer(f"aex_{NOWHERE}")))
    assert (unknown.code, unknown.reason) == (MISSING, "AGENT_EXECUTION_NOT_FOUND")
    empty = await refusal(client.executions.SubmitInput(answer(execution_id, "")))
    assert (empty.code, set(empty.fields)) == (INVALID, {"message"})
    large = await refusal(client.executions.SubmitInput(answer(execution_id, "x" * ((1 << 20) + 1))))
    assert (large.code, set(large.fields)) == (INVALID, {"message"})
    long_key = (("idempotency-key", "k" * 256),)
    key = await refusal(client.executions.SubmitInput(answer(execution_id), metadata=long_key))
    assert (key.code, key.reason) == (INVALID, "INVALID_IDEMPOTENCY_KEY")
    assert await stored(client, execution_id) == before


async def test_calls_that_wait_for_approval_go_on_waiting(client: Client) -> None:
    execution_id = await abandoned(client, EXECUTION_WAITING_FOR_INPUT, "t")
    queued = await client.executions.SubmitInput(answer(execution_id))
    assert queued.status.phase == EXECUTION_PENDING
    made = await client.executions.SubmitApproval(decision(execution_id, "t", APPROVAL_APPROVE))
    assert made.status.tool_calls[0].approval.action == APPROVAL_APPROVE


async def test_an_answer_and_the_end_at_once_leave_a_whole_log(client: Client) -> None:
    for number in range(10):
        execution_id = await waiting(client, f"agent {number}")
        said, ended = await asyncio.gather(
            client.executions.SubmitInput(answer(execution_id)),
            client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_FAILED)),
            return_exceptions=True,
        )
        state = await check_fold(client, execution_id)
        assert state == ended
        assert len(state.status.messages) == (0 if isinstance(said, BaseException) else 1)


async def test_a_repeat_after_a_restart_changes_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        execution_id = await waiting(running.client)
        first = await running.client.executions.SubmitInput(answer(execution_id), metadata=KEY)
    async with serving(tmp_path) as running:
        assert await running.client.executions.SubmitInput(answer(execution_id), metadata=KEY) == first
