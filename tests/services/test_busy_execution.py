"""Commands that need the whole of an execution, while others write to it without a pause."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from google.protobuf.empty_pb2 import Empty
from grpc import aio

from runstream.v1.agent_execution_pb2 import (
    EXECUTION_IN_PROGRESS,
    EXECUTION_TERMINATED,
    TOOL_CALL_INTERRUPTED,
    TOOL_CALL_RUNNING,
)
from runstream.v1.agent_execution_service_pb2 import TerminateAgentExecutionInput
from runstream.v1.resource_pb2 import ResourceDeleteInput, ResourceId
from runstream.v1.session_service_pb2 import ListSessionsRequest
from tests.making import an_agent, an_execution, delta, execution, instance, session, stored, token
from tests.serving import Client, serving

if TYPE_CHECKING:
    from pathlib import Path


async def write_on(client: Client, execution_id: str) -> None:
    """Stream tokens until the execution takes no more."""
    try:
        while True:
            await client.executions.UpdateStatus(token(execution_id, "x" * 200))
    except aio.AioRpcError:
        return


async def a_long_execution(client: Client) -> str:
    """An execution with a long log and an open tool call."""
    execution_id = await an_execution(client)
    begin = delta(execution_id, phase=EXECUTION_IN_PROGRESS)
    begin.status.tool_calls.add(id="open", status=TOOL_CALL_RUNNING)
    await client.executions.UpdateStatus(begin)
    for _ in range(20):
        await asyncio.gather(*(client.executions.UpdateStatus(token(execution_id, "x" * 500)) for _ in range(20)))
    return execution_id


async def test_terminate_is_not_refused_by_writers_that_never_pause(tmp_path: Path) -> None:
    """Even with no memory to keep folds in, and with the end settling what is open."""
    async with serving(tmp_path / "data", fold_cache_bytes=0) as running:
        client = running.client
        execution_id = await a_long_execution(client)
        writers = [asyncio.create_task(write_on(client, execution_id)) for _ in range(6)]
        ended = await client.executions.Terminate(TerminateAgentExecutionInput(id=execution_id))
        await asyncio.gather(*writers)
        after = await stored(client, execution_id)
    assert ended.status.phase == EXECUTION_TERMINATED
    assert after == ended
    assert [call.status for call in after.status.tool_calls] == [TOOL_CALL_INTERRUPTED]


async def test_delete_is_not_refused_by_writers_that_never_pause(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", fold_cache_bytes=0) as running:
        client = running.client
        execution_id = await a_long_execution(client)
        writers = [asyncio.create_task(write_on(client, execution_id)) for _ in range(6)]
        gone = await client.executions.Delete(ResourceId(value=execution_id))
        await asyncio.gather(*writers)
    assert gone.status.messages[0].content.startswith("x" * 500)


async def test_applies_of_one_session_at_once_make_one_session(client: Client) -> None:
    made = await client.instances.Create(instance(await an_agent(client)))
    request = session(made.metadata.id, "talk")
    answers = await asyncio.gather(*(client.sessions.Apply(request) for _ in range(20)))
    listed = await client.session_queries.List(ListSessionsRequest())
    assert len({answer.metadata.id for answer in answers}) == 1
    assert len(listed.entries) == 1


async def test_no_execution_outlives_its_session(client: Client) -> None:
    """A session is deleted while executions come and go; whatever was created in it is gone, or it is still there."""
    first = await client.executions.Create(execution(agent_id=await an_agent(client)))
    session_id = first.spec.session_id
    await client.executions.Delete(ResourceId(value=first.metadata.id))

    async def create() -> str:
        try:
            made = await client.executions.Create(execution(session_id=session_id))
        except aio.AioRpcError:
            return ""
        return made.metadata.id

    async def drop() -> object:
        try:
            return await client.sessions.Delete(ResourceDeleteInput(value=session_id))
        except aio.AioRpcError:
            return Empty()

    for _ in range(10):
        created, *_ = await asyncio.gather(create(), drop(), create(), drop())
        if created:
            kept = await stored(client, created)
            held = await client.session_queries.Get(ResourceId(value=kept.spec.session_id))
            assert held.metadata.id == session_id
