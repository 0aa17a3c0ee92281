"""The commands of dispatch: what they refuse and what they leave alone, whatever the dispatcher believes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runstream.model.errors import FailedPrecondition, NotFound
from runstream.services.executions.leasing import ExecutionLeasing
from runstream.stored.v1.stored_pb2 import (
    LEASE_STEP_ASSIGN,
    LEASE_STEP_LOSE,
    LEASE_STEP_RETURN,
    LeaseCommand,
    LeaseStep,
)
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_WAITING_FOR_INPUT,
    ExecutionPhase,
)
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    PauseAgentExecutionInput,
)
from runstream.v1.resource_pb2 import RESOURCE_VIEW_FULL
from tests.making import NOWHERE, an_execution, an_execution_in, delta, stored, token
from tests.serving import Serving, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Serving]:
    """A running server that no runner is attached to."""
    async with serving(tmp_path) as running:
        yield running


@pytest.fixture
def leasing(served: Serving) -> ExecutionLeasing:
    """The commands, as the dispatcher has them."""
    return ExecutionLeasing(served.server._wiring)  # noqa: SLF001  # a test may look


def assign(execution_id: str, runner_id: str = "r1") -> LeaseCommand:
    """Give an execution to a runner."""
    return LeaseCommand(execution_id=execution_id, runner_id=runner_id, step=LEASE_STEP_ASSIGN)


@pytest.mark.parametrize(
    "phase", [EXECUTION_IN_PROGRESS, EXECUTION_WAITING_FOR_INPUT, EXECUTION_PAUSED, EXECUTION_COMPLETED]
)
async def test_only_what_is_queued_is_assigned(
    served: Serving, leasing: ExecutionLeasing, phase: ExecutionPhase.ValueType
) -> None:
    execution_id = await an_execution_in(served.client, phase)
    before = await stored(served.client, execution_id)
    with pytest.raises(FailedPrecondition) as refused:
        await leasing.change_lease(assign(execution_id))
    assert refused.value.reason == "NOT_QUEUED"
    assert await stored(served.client, execution_id) == before


async def test_what_is_assigned_is_not_assigned_once_more(served: Serving, leasing: ExecutionLeasing) -> None:
    execution_id = await an_execution(served.client)
    assert (await leasing.change_lease(assign(execution_id))).attempt == 1
    with pytest.raises(FailedPrecondition, match="does not wait"):
        await leasing.change_lease(assign(execution_id, "r2"))
    with pytest.raises(NotFound):
        await leasing.change_lease(assign(f"aex_{NOWHERE}"))


@pytest.mark.parametrize("reported_before", [False, True])
async def test_what_a_runner_is_given_first_is_what_the_log_says(
    served: Serving, leasing: ExecutionLeasing, *, reported_before: bool
) -> None:
    """A fresh execution is given to its runner without a look at its log; that must be no other one than the log's."""
    wiring = served.server._wiring  # noqa: SLF001  # a test may look
    execution_id = await an_execution(served.client)
    if reported_before:
        await served.client.executions.UpdateStatus(token(execution_id, "said while it was queued"))
    await leasing.change_lease(assign(execution_id))
    head = await wiring.executions.head(execution_id)
    assert head is not None
    given = await wiring.executions.at_head(execution_id, head, RESOURCE_VIEW_FULL)
    assert given is not None
    assert given.status == await wiring.folds.status(execution_id, head.revision)
    assert bool(given.status.messages) == reported_before


@pytest.mark.parametrize(("runner_id", "attempt"), [("r2", 1), ("r1", 2)])
async def test_only_the_holder_can_lose_its_attempt(
    served: Serving, leasing: ExecutionLeasing, runner_id: str, attempt: int
) -> None:
    execution_id = await an_execution(served.client)
    await leasing.change_lease(assign(execution_id))
    before = await stored(served.client, execution_id)
    command = LeaseCommand(execution_id=execution_id, runner_id=runner_id, attempt=attempt, step=LEASE_STEP_LOSE)
    await leasing.change_lease(command)
    assert await stored(served.client, execution_id) == before


@pytest.mark.parametrize("step", [LEASE_STEP_LOSE, LEASE_STEP_RETURN])
async def test_what_was_asked_of_a_runner_that_goes_is_done(
    served: Serving, leasing: ExecutionLeasing, step: LeaseStep.ValueType
) -> None:
    """Nobody is left to comply with a cancel or a pause, so both have happened."""
    ids = [await an_execution(served.client, agent=name) for name in ("cancelled", "paused", "queued")]
    for execution_id in ids:
        await leasing.change_lease(assign(execution_id))
    await served.client.executions.Cancel(CancelAgentExecutionInput(id=ids[0], reason="enough"))
    await served.client.executions.Pause(PauseAgentExecutionInput(id=ids[1]))
    for execution_id in ids:
        await leasing.change_lease(LeaseCommand(execution_id=execution_id, runner_id="r1", attempt=1, step=step))
    states = [(await stored(served.client, execution_id)).status for execution_id in ids]
    assert [state.phase for state in states] == [EXECUTION_CANCELLED, EXECUTION_PAUSED, EXECUTION_PENDING]
    assert states[0].reason == "enough"
    assert not any(state.HasField("control") for state in states)


async def test_who_drives_from_outside_may_end_what_a_runner_has_begun(
    served: Serving, leasing: ExecutionLeasing
) -> None:
    """Its numbers are not those of the runner before, even when the first of them is the last report."""
    execution_id = await an_execution(served.client)
    await leasing.change_lease(assign(execution_id))
    said = delta(execution_id, attempt=1, sequence=7)
    said.status.tool_calls.add(id="open")
    await served.client.executions.UpdateStatus(said)
    command = LeaseCommand(execution_id=execution_id, runner_id="r1", attempt=1, step=LEASE_STEP_RETURN)
    await leasing.change_lease(command)
    end = delta(execution_id, phase=EXECUTION_COMPLETED, sequence=1)
    for _ in range(2):
        answer = await served.client.executions.UpdateStatus(end)
        assert (answer.status.phase, answer.metadata.revision) == (EXECUTION_COMPLETED, 5)


async def test_sequences_count_anew_in_each_attempt(served: Serving, leasing: ExecutionLeasing) -> None:
    execution_id = await an_execution(served.client)
    for attempt in (1, 2):
        await leasing.change_lease(assign(execution_id))
        said = delta(execution_id, attempt=attempt, sequence=1)
        said.status.messages.add(id="m", content_append=f"{attempt}")
        answers = [await served.client.executions.UpdateStatus(said) for _ in range(2)]
        assert [message.content for message in answers[1].status.messages] == [f"{attempt}"]
        assert answers[0].metadata.revision == answers[1].metadata.revision
        command = LeaseCommand(execution_id=execution_id, runner_id="r1", attempt=attempt, step=LEASE_STEP_LOSE)
        await leasing.change_lease(command)
