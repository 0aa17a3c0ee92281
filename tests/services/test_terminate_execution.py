"""Terminate: the end at once, whoever is at work."""

from __future__ import annotations

import asyncio

import pytest

from runstream.model.phases import TERMINAL
from runstream.v1.agent_execution_pb2 import (
    CHANGE_AUTHOR_USER,
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_TERMINATED,
    ExecutionPhase,
)
from runstream.v1.agent_execution_service_pb2 import (
    SubscribeAgentExecutionRequest,
    TerminateAgentExecutionInput,
    WatchAgentExecutionRequest,
)
from tests.making import NOWHERE, a_running_execution, an_execution_in, delta, stored
from tests.serving import MISSING, PRECONDITION, Client, refusal

OPEN = [phase for phase in ExecutionPhase.values() if phase and phase not in TERMINAL]


def terminate(execution_id: str, reason: str = "") -> TerminateAgentExecutionInput:
    """A request to terminate."""
    return TerminateAgentExecutionInput(id=execution_id, reason=reason)


@pytest.mark.parametrize("phase", OPEN)
async def test_every_open_phase_ends_at_once(client: Client, phase: ExecutionPhase.ValueType) -> None:
    """Terminate ends an execution in any phase that is not terminal, in one revision, and keeps the reason."""
    execution_id = await an_execution_in(client, phase)
    before = await stored(client, execution_id)
    answer = await client.executions.Terminate(terminate(execution_id, "out of budget"))
    assert (answer.status.phase, answer.status.reason) == (EXECUTION_TERMINATED, "out of budget")
    assert answer.status.completed_at
    assert answer.metadata.revision == before.metadata.revision + 1
    assert answer.status.audit.status_audit.event == "terminated"
    assert await stored(client, execution_id) == answer


async def test_a_runner_is_too_late_after_it(client: Client) -> None:
    """What a runner reports after the end is refused."""
    execution_id = await a_running_execution(client)
    await client.executions.Terminate(terminate(execution_id))
    told = await refusal(client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED)))
    assert (told.code, told.reason) == (PRECONDITION, "EXECUTION_TERMINAL")


async def test_a_repeat_keeps_the_first_reason(client: Client) -> None:
    """A second terminate is answered with the state as the first left it."""
    execution_id = await a_running_execution(client)
    first = await client.executions.Terminate(terminate(execution_id, "one"))
    assert await client.executions.Terminate(terminate(execution_id, "two")) == first


async def test_twenty_at_once_are_one_revision(client: Client) -> None:
    """Concurrent terminates are all answered alike."""
    execution_id = await a_running_execution(client)
    answers = await asyncio.gather(*(client.executions.Terminate(terminate(execution_id, str(n))) for n in range(20)))
    assert all(answer == answers[0] for answer in answers)
    assert answers[0].metadata.revision == 3


@pytest.mark.parametrize("phase", [EXECUTION_COMPLETED, EXECUTION_FAILED, EXECUTION_CANCELLED])
async def test_what_ended_otherwise_cannot_be_terminated(client: Client, phase: ExecutionPhase.ValueType) -> None:
    """An execution that ended in another way is refused, naming both phases."""
    execution_id = await an_execution_in(client, phase)
    before = await stored(client, execution_id)
    told = await refusal(client.executions.Terminate(terminate(execution_id)))
    assert (told.code, told.reason) == (PRECONDITION, "EXECUTION_TERMINAL")
    assert told.metadata["phase"] == ExecutionPhase.Name(phase)
    assert "EXECUTION_TERMINATED" in told.message
    assert await stored(client, execution_id) == before


async def test_an_unknown_execution_is_not_found(client: Client) -> None:
    """Terminate of an execution that never was is NOT_FOUND."""
    told = await refusal(client.executions.Terminate(terminate(f"aex_{NOWHERE}")))
    assert (told.code, told.reason) == (MISSING, "AGENT_EXECUTION_NOT_FOUND")


async def test_followers_get_the_end_and_then_ok(client: Client) -> None:
    """A subscriber and a watcher see the terminal state, and their streams end without an error."""
    execution_id = await a_running_execution(client)
    subscribed = client.queries.Subscribe(SubscribeAgentExecutionRequest(value=execution_id))
    watched = client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id, after_revision=2))
    states = aiter(subscribed)
    assert (await anext(states)).metadata.revision == 2
    answer = await client.executions.Terminate(terminate(execution_id))
    assert [state async for state in states] == [answer]
    (change,) = [change async for change in watched]
    assert (change.terminal, change.author, change.revision) == (True, CHANGE_AUTHOR_USER, 3)


async def test_a_runner_and_a_user_at_once_end_it_once(client: Client) -> None:
    """Of a terminate and an end by the runner at the same moment one counts, and the state is whole."""
    for number in range(10):
        execution_id = await a_running_execution(client, agent=f"agent {number}")
        terminated, completed = await asyncio.gather(
            client.executions.Terminate(terminate(execution_id)),
            client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED)),
            return_exceptions=True,
        )
        state = await stored(client, execution_id)
        winner = terminated if state.status.phase == EXECUTION_TERMINATED else completed
        assert state == winner
        assert state.metadata.revision == 3
        assert sum(isinstance(answer, BaseException) for answer in (terminated, completed)) == 1
