"""A server that is asked to end lets running commands finish, sends everybody else away, and is gone in time."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
from grpc import aio

from runstream.v1.agent_execution_service_pb2 import (
    ListAgentExecutionsRequest,
    SubscribeAgentExecutionRequest,
    WatchAgentExecutionRequest,
)
from tests.end_to_end.folder_check import check_folder
from tests.end_to_end.load import text_of
from tests.making import a_running_execution, stored, token
from tests.process import ROUNDS, server_process
from tests.serving import UNAVAILABLE, Refusal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.serving import Client

BOUND_SECONDS = 60
WRITERS = 20
NARROW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 << 10))


async def test_streams_end_with_unavailable_and_go_on_at_the_next_server(tmp_path: Path) -> None:
    """Every kind of stream is told to come back; with its cursor it continues as if nothing had been."""
    async with server_process(tmp_path / "data") as server, server.client() as client, asyncio.timeout(BOUND_SECONDS):
        execution_id = await a_running_execution(client)
        changes: Any = client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id))
        states: Any = client.queries.Subscribe(SubscribeAgentExecutionRequest(value=execution_id))
        heads = client.queries.WatchList(ListAgentExecutionsRequest())
        assert [(await changes.read()).revision, (await changes.read()).revision] == [1, 2]
        assert (await states.read()).metadata.revision == 2
        await heads.initial_metadata()
        server.ask_to_end()
        for call in (changes, states, heads):
            told = await broken(call)
            assert (told.code, told.reason) == (UNAVAILABLE, "SHUTTING_DOWN")
        assert await server.wait() == 0

        await server.start()
        await client.executions.UpdateStatus(token(execution_id, "a"), wait_for_ready=True)
        changes = client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id, after_revision=2))
        assert (await changes.read()).revision == 3
        states = client.queries.Subscribe(SubscribeAgentExecutionRequest(value=execution_id, after_revision=2))
        assert (await states.read()).metadata.revision == 3


@pytest.mark.parametrize("seed", range(2 * ROUNDS))
async def test_running_commands_finish_and_those_refused_are_not_stored(tmp_path: Path, seed: int) -> None:
    """At SIGTERM under load each command has its reply and is stored, or is told UNAVAILABLE and is not."""
    seeded = random.Random(seed)
    async with server_process(tmp_path / "data") as server, server.client() as client, asyncio.timeout(BOUND_SECONDS):
        ids = [await a_running_execution(client, agent=f"agent {number}") for number in range(WRITERS)]
        answered = 0
        end_at = seeded.randrange(100, 400)
        texts: dict[str, str] = {}

        async def write(execution_id: str) -> Refusal:
            nonlocal answered
            for number in range(1_000_000):
                text = f"{number} "
                try:
                    await client.executions.UpdateStatus(token(execution_id, text))
                except aio.AioRpcError as error:
                    return Refusal(error)
                texts[execution_id] = texts.get(execution_id, "") + text
                answered += 1
                if answered == end_at:
                    server.ask_to_end()
            raise AssertionError("the server did not end")

        refusals = await asyncio.gather(*map(write, ids))
        assert await server.wait() == 0
        assert {told.code for told in refusals} == {UNAVAILABLE}
        assert answered >= end_at
        contents = check_folder(server.data)
        assert {name: text_of(contents.executions[name], "m") for name in ids} == {
            name: texts.get(name, "") for name in ids
        }
        assert all("listening on" in line for line in server.log)


async def test_a_reader_that_does_not_read_does_not_keep_the_server(tmp_path: Path) -> None:
    """It is cut off when its time is over; the exit code is 0 and everything is stored."""
    async with (
        asyncio.timeout(BOUND_SECONDS),
        server_process(tmp_path / "data", drain_timeout=1) as server,
        server.client() as client,
        server.client(*NARROW) as other,
    ):
        stalled = await a_stalled_stream(client, other)
        assert await server.terminate() == 0
        assert (await broken(stalled)).code is UNAVAILABLE
        (log,) = check_folder(server.data).logs.values()
        assert len(log) == 12


async def test_a_second_signal_ends_the_server_at_once(tmp_path: Path) -> None:
    """Whoever asks twice does not wait; nothing that was acknowledged is lost by it."""
    async with (
        asyncio.timeout(BOUND_SECONDS),
        server_process(tmp_path / "data", drain_timeout=3600) as server,
        server.client() as client,
        server.client(*NARROW) as other,
    ):
        heads = client.queries.WatchList(ListAgentExecutionsRequest())
        await heads.initial_metadata()
        await a_stalled_stream(client, other)
        server.ask_to_end()
        assert (await broken(heads)).code is UNAVAILABLE  # it has heard the first
        ended = asyncio.create_task(server.wait())
        while not ended.done():  # one that comes too soon is taken for an echo of the first
            server.ask_to_end()
            await asyncio.wait([ended], timeout=0.2)
        assert await ended == 128 + 15
        (log,) = check_folder(server.data).logs.values()
        assert len(log) == 12


async def test_a_signal_that_comes_twice_at_once_is_one(tmp_path: Path) -> None:
    """As from a terminal and from what runs in it: the server drains all the same."""
    async with (
        asyncio.timeout(BOUND_SECONDS),
        server_process(tmp_path / "data") as server,
        server.client() as client,
    ):
        heads = client.queries.WatchList(ListAgentExecutionsRequest())
        await heads.initial_metadata()
        server.ask_to_end()
        server.ask_to_end()
        assert (await broken(heads)).reason == "SHUTTING_DOWN"
        server.ask_to_end()
        assert await server.wait() == 0


async def test_a_server_that_is_ending_takes_no_calls(tmp_path: Path) -> None:
    """A call that comes while a stream is still open is told UNAVAILABLE, at the latest when the connection closes."""
    async with (
        asyncio.timeout(BOUND_SECONDS),
        server_process(tmp_path / "data", drain_timeout=2) as server,
        server.client() as client,
        server.client(*NARROW) as other,
    ):
        heads = client.queries.WatchList(ListAgentExecutionsRequest())
        await heads.initial_metadata()
        stalled = await a_stalled_stream(client, other)
        server.ask_to_end()
        await broken(heads)
        for _ in range(5):
            told = await broken(client.queries.WatchList(ListAgentExecutionsRequest()))
            assert told.code is UNAVAILABLE
        assert await server.wait() == 0
        await broken(stalled)


async def a_stalled_stream(client: Client, other: Client) -> Any:  # noqa: ANN401  # a call of aio
    """Open a Watch through `other` that is not read, of an execution with 12 changes, which do not fit."""
    execution_id = await a_running_execution(client)
    call: Any = other.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id))
    assert (await call.read()).revision == 1
    for _ in range(10):
        await client.executions.UpdateStatus(token(execution_id, "a" * 500_000))
    assert (await stored(client, execution_id)).metadata.revision == 12
    return call


async def broken(call: Any) -> Refusal:  # noqa: ANN401
    """Read a stream to its end, which must be an error."""
    try:
        while await call.read() is not aio.EOF:
            pass
    except aio.AioRpcError as error:
        return Refusal(error)
    raise AssertionError("the stream ended with OK")
