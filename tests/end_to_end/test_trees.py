"""Trees of executions across a crash: whoever is to end with its parent does, wherever the server died."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from runstream.v1.agent_execution_pb2 import (
    EXECUTION_CANCELLED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_TERMINATED,
    SUB_AGENT_CANCELLED,
)
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    TerminateAgentExecutionInput,
    WatchAgentExecutionRequest,
)
from tests.families import below, end_of, until
from tests.making import a_running_execution, an_agent, delta, stored
from tests.process import ROUNDS, server_process

if TYPE_CHECKING:
    from pathlib import Path

    from tests.serving import Client

CHILDREN = 60
BELOW_EACH = 3


async def a_family(client: Client) -> tuple[str, list[str]]:
    """Create a parent with many children, each at work and with children of its own; return all their ids."""
    helper = await an_agent(client, "helper")
    root = await a_running_execution(client)
    made = await asyncio.gather(*(client.executions.Create(below(root, helper)) for _ in range(CHILDREN)))
    children = [child.metadata.id for child in made]
    await asyncio.gather(
        *(client.executions.UpdateStatus(delta(child, phase=EXECUTION_IN_PROGRESS)) for child in children)
    )
    made = await asyncio.gather(
        *(client.executions.Create(below(child, helper)) for child in children for _ in range(BELOW_EACH))
    )
    return root, children + [grandchild.metadata.id for grandchild in made]


@pytest.mark.parametrize("ended", [0, 1, CHILDREN // 2, CHILDREN])
async def test_a_crash_in_the_middle_of_a_cascade_leaves_nobody_behind(tmp_path: Path, ended: int) -> None:
    """Killed when so many children had ended, the server ends the rest of the tree after its next start."""
    for turn in range(ROUNDS):
        async with server_process(tmp_path / f"data-{turn}") as server:
            async with server.client() as client:
                root, family = await a_family(client)
                await client.executions.Terminate(TerminateAgentExecutionInput(id=root))
                for child in family[:ended]:
                    await end_of(client, child)
                await server.kill9()
            await server.start()
            async with server.client() as client:
                for member in family:
                    state = await end_of(client, member)
                    assert (state.status.phase, state.status.reason) == (EXECUTION_TERMINATED, "PARENT_TERMINATED")
                state = await stored(client, root)
                assert {entry.status for entry in state.status.sub_agent_executions} == {SUB_AGENT_CANCELLED}


async def test_a_cancel_that_a_crash_has_cut_off_is_told_once(tmp_path: Path) -> None:
    """Children that were asked to end before a crash are not asked again, the others are; the entries follow."""
    async with server_process(tmp_path / "data", cancel_grace=3600) as server:
        async with server.client() as client:
            root, family = await a_family(client)
            await client.executions.Cancel(CancelAgentExecutionInput(id=root))
            await until(client, family[0], lambda state: state.status.HasField("control"))
            await server.kill9()
        await server.start()
        async with server.client() as client:
            children, grandchildren = family[:CHILDREN], family[CHILDREN:]
            for child in children:
                await until(client, child, lambda state: state.status.HasField("control"))
            for grandchild in grandchildren:
                state = await end_of(client, grandchild)
                assert (state.status.phase, state.status.reason) == (EXECUTION_CANCELLED, "PARENT_CANCELLED")
            for child in children:
                await client.executions.UpdateStatus(delta(child, phase=EXECUTION_CANCELLED))
                watched = client.queries.Watch(WatchAgentExecutionRequest(execution_id=child))
                kinds = [change.WhichOneof("kind") async for change in watched]
                assert kinds.count("control") == 1
            state = await stored(client, root)
            assert state.status.phase == EXECUTION_IN_PROGRESS
            assert {entry.status for entry in state.status.sub_agent_executions} == {SUB_AGENT_CANCELLED}
