"""A reader that does not read holds up nobody, costs the server next to nothing, and loses nothing by it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from runstream.model.phases import is_terminal
from runstream.v1.agent_execution_pb2 import EXECUTION_COMPLETED, AgentExecution
from runstream.v1.agent_execution_service_pb2 import (
    ListAgentExecutionsRequest,
    SubscribeAgentExecutionRequest,
    WatchAgentExecutionRequest,
)
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC
from tests.end_to_end.folder_check import bits, fold_of
from tests.making import a_running_execution, an_agent, delta, execution, stored
from tests.process import server_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from runstream.v1.agent_execution_pb2 import ExecutionChange, ExecutionPhase
    from tests.serving import Client

KIB = 1 << 10
MIB = 1 << 20
#: So that a message is more than a stream takes in advance, and a client that does not read stalls it.
CHANGE_BYTES = 256 * KIB
NARROW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 * KIB))
BOUND_SECONDS = 100


async def test_a_stalled_reader_holds_up_nobody_and_reads_on_where_it_stopped(tmp_path: Path) -> None:
    """The writer and the others, even on its own connection, go on; then it gets every change and the last state."""
    async with (
        asyncio.timeout(BOUND_SECONDS),
        server_process(tmp_path / "data") as server,
        server.client() as client,
        server.client(*NARROW) as other,
    ):
        writer = Writer(client, await a_running_execution(client))
        stalled = [await watch(other, writer.id) for _ in range(3)]
        stalled_subscriptions = [await subscribe(other, writer.id) for _ in range(3)]
        beside = await watch(other, writer.id)
        for _ in range(60):
            await read_to(beside, await writer.write())
        await writer.write(EXECUTION_COMPLETED)
        assert [change.terminal async for change in beside] == [True]

        log, state = await whole_log(client, writer.id), await stored(client, writer.id)
        assert bits(fold_of(log)) == bits(state)
        for changes in stalled:
            await expect_all_changes(changes, log)
        for states in stalled_subscriptions:
            # What it had taken in advance, and the newest.
            assert await expect_newer_states(states, state) < 10


async def test_a_stalled_reader_of_heads_is_told_the_newest_of_each(tmp_path: Path) -> None:
    """However often each has changed meanwhile, it reads on what it had taken in advance, and then each once."""
    async with (
        asyncio.timeout(BOUND_SECONDS),
        server_process(tmp_path / "data") as server,
        server.client() as client,
        server.client(*NARROW) as other,
    ):
        heads = other.queries.WatchList(ListAgentExecutionsRequest())
        await heads.initial_metadata()
        executions = [await a_labelled_execution(client, number) for number in range(5)]
        for number in range(40):
            for labelled in executions:
                labelled.metadata.labels["number"] = str(number)
                labelled.metadata.revision = 0
                await client.executions.Update(labelled)
        newest: dict[str, int] = {}
        announced = 0
        async for head in heads:
            assert head.metadata.revision >= newest.get(head.metadata.id, 0)
            newest[head.metadata.id] = head.metadata.revision
            announced += 1
            if list(newest.values()) == [41] * 5:
                break
        assert announced < 60


async def test_stalled_readers_do_not_make_the_server_keep_what_they_have_not_read(tmp_path: Path) -> None:
    """While the log grows by 160 MiB in front of forty readers that stand still, the server grows by far less."""
    log_bytes = 160 * MIB
    async with (
        asyncio.timeout(BOUND_SECONDS),
        server_process(tmp_path / "data", fold_cache_bytes=MIB) as server,
        server.client() as client,
        server.client(*NARROW) as other,
    ):
        writer = Writer(client, await a_running_execution(client))
        for _ in range(2 * MIB // CHANGE_BYTES):
            await writer.write()
        stalled = [await watch(other, writer.id) for _ in range(30)]
        _others = [await subscribe(other, writer.id) for _ in range(10)]
        before = server.rss
        for _ in range(log_bytes // CHANGE_BYTES):
            await writer.write()
        grown = server.rss - before
        # Most of it is LevelDB's cache of blocks, 64 MiB.
        assert grown < 112 * MIB, f"it has grown by {grown / MIB:.0f} MiB"
        await writer.write(EXECUTION_COMPLETED)
        revisions = [change.revision async for change in stalled[0]]
        assert revisions == list(range(2, (await stored(client, writer.id)).metadata.revision + 1))


class Writer:
    """Writes large changes to one execution, of which the state keeps the last few."""

    def __init__(self, client: Client, execution_id: str) -> None:
        self.id = execution_id
        self._client = client
        self._sequence = 0

    async def write(self, phase: ExecutionPhase.ValueType | None = None) -> int:
        """Write one change; return its revision."""
        self._sequence += 1
        request = delta(self.id, sequence=self._sequence, phase=phase)
        request.status.tool_calls.add(id=str(self._sequence % 3), result=f"{self._sequence}{'.' * CHANGE_BYTES}")
        request.view = RESOURCE_VIEW_BASIC
        answer = await self._client.executions.UpdateStatus(request)
        return answer.metadata.revision


async def a_labelled_execution(client: Client, number: int) -> AgentExecution:
    """Create an execution with labels of 16 KiB, which every view of it has; return what an Update of it takes."""
    request = execution(agent_id=await an_agent(client, f"agent {number}"))
    for label in range(60):
        request.metadata.labels[f"label {label}"] = "." * 256
    made = await client.executions.Create(request)
    made.ClearField("status")
    return made


async def watch(client: Client, execution_id: str) -> AsyncIterator[ExecutionChange]:
    """Open a Watch, and read the first change only: nothing is read before it is asked for."""
    changes = aiter(client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id)))
    first = await anext(changes)
    assert first.revision == 1
    return changes


async def subscribe(client: Client, execution_id: str) -> AsyncIterator[AgentExecution]:
    """Open a Subscribe, and read the first state only."""
    states = aiter(client.queries.Subscribe(SubscribeAgentExecutionRequest(value=execution_id)))
    first = await anext(states)
    assert first.metadata.id == execution_id
    return states


async def whole_log(client: Client, execution_id: str) -> list[ExecutionChange]:
    """Watch a finished execution from its beginning to its end."""
    log = [change async for change in client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id))]
    assert [change.revision for change in log] == list(range(1, len(log) + 1))
    return log


async def read_to(changes: AsyncIterator[ExecutionChange], revision: int) -> None:
    """Read changes up to a revision."""
    async for change in changes:
        if change.revision == revision:
            return
    raise AssertionError("the stream ended")


async def expect_all_changes(changes: AsyncIterator[ExecutionChange], log: list[ExecutionChange]) -> None:
    """Read on to the end: every change of the log but the first, which was read before."""
    count = 1
    async for change in changes:
        assert change == log[count]
        count += 1
    assert count == len(log)


async def expect_newer_states(states: AsyncIterator[AgentExecution], final: AgentExecution) -> int:
    """Read on to the end: newer states, and at last this one; return how many."""
    revisions = []
    last = AgentExecution()
    async for last in states:
        revisions.append(last.metadata.revision)
    assert revisions == sorted(set(revisions))
    assert is_terminal(last.status.phase)
    assert bits(last) == bits(final)
    return len(revisions)
