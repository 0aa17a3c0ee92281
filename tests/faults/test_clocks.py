"""A wall clock that jumps moves no deadline and no order, nor does one that has jumped while nobody was serving."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from runstream.v1.agent_execution_pb2 import EXECUTION_CANCELLED, EXECUTION_COMPLETED, EXECUTION_PENDING
from runstream.v1.agent_execution_service_pb2 import CancelAgentExecutionInput, ListAgentExecutionsRequest
from tests.asking import changes
from tests.care.folders import findings_of
from tests.faults.faulty_server import FaultyServer
from tests.making import an_agent, delta, execution, stored, token

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400
BOUND_SECONDS = 60


@pytest.mark.parametrize("jump", [DAY, -DAY])
async def test_a_jump_moves_no_deadline_and_no_order(tmp_path: Path, jump: int) -> None:
    """While the server runs; and set back over a restart, no deadline comes later than it was given."""
    server = FaultyServer(tmp_path / "data", drain_timeout=1)
    try:
        async with asyncio.timeout(BOUND_SECONDS):
            await server.start()
            async with server.client() as client:
                agent_id = await an_agent(client)
                request = execution(agent_id=agent_id)
                request.spec.context.max_duration.FromSeconds(3600)
                before = await client.executions.Create(request)
                await client.executions.UpdateStatus(token(before.metadata.id, "a"))
                server.clock.set_ahead(jump)
                after = await client.executions.Create(request)
                await client.executions.UpdateStatus(token(before.metadata.id, "b"))
                found = await stored(client, before.metadata.id)
                assert (found.status.phase, found.status.messages[0].content) == (EXECUTION_PENDING, "ab")
                listed = await client.queries.List(ListAgentExecutionsRequest())
                assert [entry.metadata.id for entry in listed.entries] == [after.metadata.id, before.metadata.id]
            await server.kill9()
            server.clock.set_ahead(0)
            await server.start()
            async with server.client() as client:
                cancelled = await client.executions.Cancel(CancelAgentExecutionInput(id=after.metadata.id))
                assert cancelled.status.phase == EXECUTION_CANCELLED
                await client.executions.UpdateStatus(delta(before.metadata.id, phase=EXECUTION_COMPLETED))
                log = await changes(client, before.metadata.id)
                assert [change.revision for change in log] == [1, 2, 3, 4]
            assert await server.terminate() == 0
    finally:
        await server.stop()
    assert findings_of(tmp_path / "data") == []
