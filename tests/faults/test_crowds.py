"""Hundreds of connections that do nothing good cost those who work nothing but a little time."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from runstream.v1.agent_execution_pb2 import EXECUTION_COMPLETED
from runstream.v1.agent_execution_service_pb2 import WatchAgentExecutionRequest
from tests.care.folders import findings_of
from tests.faults.crowd import crowd, most_connections, window_of, words_of
from tests.making import a_running_execution, delta, token
from tests.process import server_process

if TYPE_CHECKING:
    from pathlib import Path

CONNECTIONS = 200
BOUND_SECONDS = 60
_DATA = 0
_HEADERS = 1


async def test_a_crowd_that_asks_and_never_reads_keeps_nobody_else_from_anything(tmp_path: Path) -> None:
    """Silent, half-open, nonsense, stalled: others write and watch meanwhile, and the server still ends when asked."""
    async with (
        asyncio.timeout(BOUND_SECONDS),
        server_process(tmp_path / "data", drain_timeout=1) as server,
        server.client() as client,
    ):
        execution_id = await a_running_execution(client)
        async with crowd(server.address, CONNECTIONS, random.Random(0), execution_id) as number:
            assert number == most_connections(CONNECTIONS)
            for _ in range(30):
                await client.executions.UpdateStatus(token(execution_id, "x" * 10_000))
            async with server.client() as newcomer:
                await newcomer.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED))
                watched = newcomer.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id))
                revisions = [change.revision async for change in watched]
            assert revisions == list(range(1, 34))
        async with crowd(server.address, CONNECTIONS, random.Random(1), execution_id):
            assert await server.terminate() == 0
        # That somebody goes away while something is sent to him is no error of the server.
        assert [line for line in server.log if '"level": "error"' in line] == []
    assert findings_of(tmp_path / "data") == []


async def test_a_reader_without_a_window_is_sent_nothing_until_it_takes_something(tmp_path: Path) -> None:
    """The stalled ones of the crowd are streams that the server serves, not connections that it has refused."""
    async with asyncio.timeout(BOUND_SECONDS), server_process(tmp_path / "data") as server, server.client() as client:
        execution_id = await a_running_execution(client)
        reader, writer = await asyncio.open_connection(*server.address.split(":"))
        writer.write(words_of("never reads", execution_id))
        while await _frame(reader) != (_HEADERS, b""):
            pass
        await client.executions.UpdateStatus(token(execution_id, "never sent"))
        writer.write(window_of(1 << 20))
        received = b""
        while b"never sent" not in received:
            received += (await _frame(reader))[1]
        writer.close()


async def _frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one frame of HTTP/2; return its type, and its payload if it is data: headers may be compressed."""
    head = await reader.readexactly(9)
    payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
    return head[3], payload if head[3] == _DATA else b""
