"""Executions that a runner holds or has left, the questions they ask people, and the answers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from runstream.model.merge import fold_all
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_ACTION_UNSPECIFIED,
    EXECUTION_WAITING_FOR_APPROVAL,
    TOOL_CALL_WAITING_APPROVAL,
    AgentExecution,
    ApprovalAction,
    ExecutionPhase,
)
from runstream.v1.agent_execution_service_pb2 import (
    PauseAgentExecutionInput,
    RecoverAgentExecutionInput,
    ResumeAgentExecutionInput,
    SubmitApprovalInput,
    SubmitInputInput,
    WatchAgentExecutionRequest,
)
from tests.attached import attached
from tests.making import an_execution, delta, stored

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runstream.v1.agent_execution_pb2 import ExecutionChange
    from runstream.v1.agent_execution_service_pb2 import AgentExecutionUpdateStatusInput
    from runstream.v1.runner_pb2 import Assignment
    from tests.attached import Attached
    from tests.serving import Client


@dataclass(frozen=True)
class Leased:
    """An execution that a runner holds."""

    id: str
    runner: Attached
    assignment: Assignment


@asynccontextmanager
async def leased(client: Client, agent: str = "survey", runner_id: str = "runner-1") -> AsyncIterator[Leased]:
    """Create an execution of a new agent, and attach a runner that gets it."""
    execution_id = await an_execution(client, agent=agent)
    async with attached(client, runner_id) as runner:
        yield Leased(execution_id, runner, await runner.assignment())


async def abandoned(client: Client, phase: ExecutionPhase.ValueType, *call_ids: str) -> str:
    """Create an execution that has come to a waiting phase, attempt 1, and whose runner has gone; return its id."""
    async with leased(client) as held:
        request = question(held.id, *call_ids, attempt=1)
        request.status.phase = phase
        await client.executions.UpdateStatus(request)
        await held.runner.detach()
    return held.id


def question(  # each is a part of the question
    execution_id: str,
    *call_ids: str,
    attempt: int = 0,
    sequence: int = 0,
    seconds: float = 0,
    default: ApprovalAction.ValueType = APPROVAL_ACTION_UNSPECIFIED,
) -> AgentExecutionUpdateStatusInput:
    """A delta that asks for approval of tool calls, with a time to decide if `seconds` are given."""
    request = delta(execution_id, phase=EXECUTION_WAITING_FOR_APPROVAL, attempt=attempt, sequence=sequence)
    for call_id in call_ids:
        call = request.status.tool_calls.add(id=call_id, name="remove", status=TOOL_CALL_WAITING_APPROVAL)
        call.approval.default_action = default
        if seconds:
            call.approval.timeout.FromTimedelta(timedelta(seconds=seconds))
    return request


def decision(
    execution_id: str, call_id: str, action: ApprovalAction.ValueType, comment: str = ""
) -> SubmitApprovalInput:
    """A request to decide about a tool call."""
    return SubmitApprovalInput(agent_execution_id=execution_id, tool_call_id=call_id, action=action, comment=comment)


def answer(execution_id: str, message: str = "the left one") -> SubmitInputInput:
    """A request to answer an execution."""
    return SubmitInputInput(execution_id=execution_id, message=message)


def pause(execution_id: str, reason: str = "") -> PauseAgentExecutionInput:
    """A request to pause."""
    return PauseAgentExecutionInput(id=execution_id, reason=reason)


def resume(execution_id: str, reason: str = "") -> ResumeAgentExecutionInput:
    """A request to resume."""
    return ResumeAgentExecutionInput(id=execution_id, reason=reason)


def recover(execution_id: str, reason: str = "") -> RecoverAgentExecutionInput:
    """A request to recover."""
    return RecoverAgentExecutionInput(id=execution_id, reason=reason)


async def changes(client: Client, execution_id: str, after: int = 0) -> list[ExecutionChange]:
    """Watch an execution up to what it is now; return the changes."""
    last = (await stored(client, execution_id)).metadata.revision
    watched = client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id, after_revision=after))
    found: list[ExecutionChange] = []
    while after < last:
        found.append(await anext(aiter(watched)))
        after = found[-1].revision
    watched.cancel()
    return found


async def check_fold(client: Client, execution_id: str) -> AgentExecution:
    """Check that the changes of an execution fold to its state; return that."""
    state, folded = await stored(client, execution_id), AgentExecution()
    fold_all(folded, await changes(client, execution_id))
    assert folded == state
    return state
