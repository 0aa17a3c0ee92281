"""The tree under random histories, concurrent and with restarts: no orphan goes on, and every entry tells the truth."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
from grpc import StatusCode, aio

from runstream.model.phases import is_terminal
from runstream.services.executions.parents import sub_agent_status
from runstream.v1.agent_execution_pb2 import (
    CONTROL_CANCEL,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    SUB_AGENT_IN_PROGRESS,
    SUB_AGENT_PENDING,
    AgentExecution,
    AgentExecutionStatus,
)
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    ListAgentExecutionsRequest,
    PauseAgentExecutionInput,
    RecoverAgentExecutionInput,
    ResumeAgentExecutionInput,
    TerminateAgentExecutionInput,
)
from runstream.v1.resource_pb2 import RESOURCE_VIEW_FULL, ResourceId
from tests.families import below
from tests.making import an_agent, delta, token
from tests.process import ROUNDS
from tests.serving import Client, Serving, serving

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

ROOTS, STEPS, AT_ONCE = 3, 40, 6
#: What a client may hear when somebody else was quicker; anything else is a fault.
_REFUSALS = {StatusCode.FAILED_PRECONDITION, StatusCode.NOT_FOUND}
_OPEN = {SUB_AGENT_PENDING, SUB_AGENT_IN_PROGRESS}


class Forest:
    """Makes random calls on the executions of some trees."""

    def __init__(self, agent_id: str, chance: random.Random) -> None:
        self.ids: list[str] = []
        #: Those that were recovered, as a parent of which nothing was written while they had ended.
        self.recovered: set[str] = set()
        self._agent_id = agent_id
        self._chance = chance

    async def begin(self, client: Client) -> None:
        """Create the root of another tree."""
        made = await client.executions.Create(below("", self._agent_id, call=""))
        self.ids.append(made.metadata.id)

    async def step(self, client: Client) -> None:
        """Make some calls at once; each is answered or refused."""
        calls = [self._any_call(client) for _ in range(AT_ONCE)]
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(answer, aio.AioRpcError):
                assert answer.code() in _REFUSALS, answer.details()
            else:
                assert isinstance(answer, AgentExecution)
                if answer.metadata.id not in self.ids:
                    self.ids.append(answer.metadata.id)

    async def _recover(self, client: Client, execution_id: str) -> AgentExecution:
        self.recovered.add(execution_id)
        return await client.executions.Recover(RecoverAgentExecutionInput(id=execution_id))

    def _any_call(self, client: Client) -> Awaitable[AgentExecution]:
        executions, chosen = client.executions, self._chance.choice(self.ids)
        failed = AgentExecutionStatus(phase=EXECUTION_FAILED, error="no")
        calls: list[tuple[int, Callable[[], Awaitable[Any]]]] = [
            (12, lambda: executions.Create(below(chosen, self._agent_id))),
            (6, lambda: executions.UpdateStatus(delta(chosen, phase=EXECUTION_IN_PROGRESS))),
            (4, lambda: executions.UpdateStatus(token(chosen, "x"))),
            (2, lambda: executions.UpdateStatus(delta(chosen, phase=EXECUTION_COMPLETED))),
            (2, lambda: executions.UpdateStatus(delta(chosen, failed))),
            (2, lambda: self._recover(client, chosen)),
            (1, lambda: executions.Pause(PauseAgentExecutionInput(id=chosen))),
            (1, lambda: executions.Resume(ResumeAgentExecutionInput(id=chosen))),
            (1, lambda: executions.Cancel(CancelAgentExecutionInput(id=chosen))),
            (1, lambda: executions.Terminate(TerminateAgentExecutionInput(id=chosen))),
            (1, lambda: executions.Delete(ResourceId(value=chosen))),
        ]
        ((_, call),) = self._chance.choices(calls, [weight for weight, _ in calls])
        return call()


async def settled(running: Serving) -> dict[str, AgentExecution]:
    """Let the server end what is to end; return everything that there is then."""
    keeper = running.server._tree  # noqa: SLF001  # whether it has anything left to do
    for queue in (keeper._ending, keeper._begun_anew):  # noqa: SLF001
        while len(queue) or queue._calls:  # noqa: SLF001
            await queue.run_due()
    found: dict[str, AgentExecution] = {}
    request = ListAgentExecutionsRequest(page_size=1000, view=RESOURCE_VIEW_FULL)
    while True:
        page = await running.client.queries.List(request)
        found |= {entry.metadata.id: entry for entry in page.entries}
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def is_ending(execution: AgentExecution | None) -> bool:
    """Whether an execution has ended, shall end, or is not there."""
    if execution is None or is_terminal(execution.status.phase):
        return True
    return execution.status.control.action == CONTROL_CANCEL


def check(everything: dict[str, AgentExecution], recovered: set[str]) -> None:
    """See that nobody goes on whose parent does not, and that each parent's entries are as its children are."""
    for execution in everything.values():
        parent_id = execution.spec.context.parent_execution_id
        if parent_id and is_ending(everything.get(parent_id)):
            assert is_ending(execution), f"{execution.metadata.id} is an orphan of {parent_id}"
        for entry in execution.status.sub_agent_executions:
            child = everything.get(entry.execution_id)
            if is_terminal(execution.status.phase) or child is None:
                assert entry.status not in _OPEN
            else:
                expected = sub_agent_status(child.status.phase)
                assert entry.status == expected or execution.metadata.id in recovered
                assert child.spec.context.depth == execution.spec.context.depth + 1


@pytest.mark.parametrize("seed", range(3 * ROUNDS))
async def test_no_history_leaves_an_orphan(tmp_path: Path, seed: int) -> None:
    """Whatever is created, driven, ended, recovered and deleted at once, over restarts: the tree stays sound."""
    chance = random.Random(seed)
    async with serving(tmp_path / "data") as running:
        forest = Forest(await an_agent(running.client), chance)
    for _ in range(3):
        async with serving(tmp_path / "data", cancel_grace=3600) as running:
            for _ in range(ROOTS):
                await forest.begin(running.client)
            for _ in range(STEPS):
                await forest.step(running.client)
            if chance.random() < 0.5:
                check(await settled(running), forest.recovered)
    async with serving(tmp_path / "data", cancel_grace=3600) as running:
        everything = await settled(running)
        check(everything, forest.recovered)
    assert any(execution.spec.context.depth > 1 for execution in everything.values())
