"""The engines, all alike: reflection, health, how they drain, calls given up, requests and readers out of bounds."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc import Compression, StatusCode, aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from runstream.services.agents import AgentQueries
from runstream.services.executions.streams import AgentExecutionStreams
from runstream.v1.agent_execution_pb2 import EXECUTION_COMPLETED
from runstream.v1.agent_execution_service_pb2 import (
    ListAgentExecutionsRequest,
    SubscribeAgentExecutionRequest,
    WatchAgentExecutionRequest,
)
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC, ResourceId
from tests.making import a_running_execution, agent, an_agent, delta, execution, stored
from tests.raw import every_service
from tests.serving import EXHAUSTED, UNAVAILABLE, Client, Serving, refusal, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from runstream.v1.agent_pb2 import Agent

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNIMPLEMENTED = StatusCode.UNIMPLEMENTED
DEADLINE = StatusCode.DEADLINE_EXCEEDED
BESIDES = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


class Reflection:
    """Asks a server what it serves, as grpcurl does."""

    def __init__(self, channel: aio.Channel) -> None:
        make: Any = reflection_pb2_grpc.ServerReflectionStub  # its types know of no asynchronous channel
        self._stub = make(channel)

    async def services(self) -> set[str]:
        """The names of all services."""
        answer = await self._ask(reflection_pb2.ServerReflectionRequest(list_services=""))
        return {service.name for service in answer.list_services_response.service}

    async def files(self, symbol: str) -> dict[str, FileDescriptorProto]:
        """The file that defines a symbol and all files it needs, by name, each asked for when it is missing."""
        found = await self._files(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
        while missing := {name for file in found.values() for name in file.dependency} - set(found):
            for name in sorted(missing):
                found |= await self._files(reflection_pb2.ServerReflectionRequest(file_by_filename=name))
        return found

    async def _files(self, request: reflection_pb2.ServerReflectionRequest) -> dict[str, FileDescriptorProto]:
        answer = await self._ask(request)
        files = [FileDescriptorProto.FromString(data) for data in answer.file_descriptor_response.file_descriptor_proto]
        assert files, answer
        return {file.name: file for file in files}

    async def _ask(self, request: reflection_pb2.ServerReflectionRequest) -> reflection_pb2.ServerReflectionResponse:
        async def once() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
            yield request

        answers: AsyncIterator[reflection_pb2.ServerReflectionResponse] = aiter(self._stub.ServerReflectionInfo(once()))
        return await anext(answers)


async def test_reflection_lists_every_service(client: Client) -> None:
    """A tool that knows nothing of the protos finds all services of the API, health and reflection."""
    assert await Reflection(client.channel).services() == {service.full_name for service in every_service()} | BESIDES


async def test_reflection_tells_the_methods_with_everything_they_need(client: Client) -> None:
    """For each service the file is told, with all methods, and with every file it imports, to the last."""
    reflection = Reflection(client.channel)
    for service in every_service():
        files = await reflection.files(service.full_name)
        told = {
            f"{file.package}.{found.name}": {method.name for method in found.method}
            for file in files.values()
            for found in file.service
        }
        assert told[service.full_name] == {method.name for method in service.methods}
        imported = {file.name for file in service.file.dependencies}
        assert imported
        assert imported <= set(files)


def health_of(client: Client) -> Any:  # noqa: ANN401  # its types name no methods
    """The health service of a client's server."""
    return health_pb2_grpc.HealthStub(client.channel)


async def test_health_says_serving(client: Client) -> None:
    """The server as a whole and each service are SERVING."""
    health = health_of(client)
    for name in ("", *(service.full_name for service in every_service())):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == SERVING


class Held:
    """A query of an agent that is being served and does not end before it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        #: Filled for each query that was cancelled.
        self.cancelled: asyncio.Queue[None] = asyncio.Queue()
        get, held = AgentQueries.get, self

        async def slow(self: AgentQueries, request: ResourceId) -> Agent:
            held.entered.set()
            try:
                await held.release.wait()
            except asyncio.CancelledError:
                held.cancelled.put_nowait(None)
                raise
            return await get(self, request)

        monkeypatch.setattr(AgentQueries, "get", slow)


async def until_not_serving(watch: AsyncIterator[health_pb2.HealthCheckResponse]) -> None:
    """Return when health says that the server drains."""
    async for answer in watch:
        if answer.status == NOT_SERVING:
            return


async def test_a_draining_server_finishes_what_runs_and_takes_nothing_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During a stop health is NOT_SERVING, new calls are UNAVAILABLE, and a running one is answered."""
    held = Held(monkeypatch)
    async with serving(tmp_path / "data", drain_timeout=10) as running:
        client = running.client
        agent_id = await an_agent(client)
        other = Client(running.server.address)
        health = aiter(health_of(client).Watch(health_pb2.HealthCheckRequest()))
        assert (await anext(health)).status == SERVING
        call = asyncio.ensure_future(client.agent_queries.Get(ResourceId(value=agent_id)))
        await held.entered.wait()
        stopping = asyncio.create_task(running.server.stop())
        await until_not_serving(health)
        for late in (client, other):
            told = await refusal(late.executions.Create(execution(agent_id=agent_id)))
            assert told.code == UNAVAILABLE
        assert not call.done()
        held.release.set()
        assert (await call).metadata.id == agent_id
        await stopping
        await other.channel.close()


async def test_a_watch_of_the_health_holds_no_shutdown_up(tmp_path: Path) -> None:
    """Whoever watches the health hears of the shutdown and is let go: nobody waits for the end of the grace."""
    async with serving(tmp_path / "data", drain_timeout=3_600) as running:
        watch = aiter(health_of(running.client).Watch(health_pb2.HealthCheckRequest()))
        assert (await anext(watch)).status == SERVING
        await running.server.stop()
        assert [answer.status async for answer in watch] == [NOT_SERVING]


async def test_a_call_that_does_not_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draining is bounded: after its time a call that still runs is ended, and the server is down."""
    held = Held(monkeypatch)
    async with serving(tmp_path / "data", drain_timeout=0.05) as running:
        agent_id = await an_agent(running.client)
        call = asyncio.ensure_future(running.client.agent_queries.Get(ResourceId(value=agent_id)))
        await held.entered.wait()
        await running.server.stop()
        with pytest.raises((aio.AioRpcError, asyncio.CancelledError)):
            await call


async def test_streams_end_so_that_clients_connect_again(tmp_path: Path) -> None:
    """At a shutdown Subscribe, Watch and WatchList end with UNAVAILABLE, SHUTTING_DOWN."""
    async with serving(tmp_path / "data") as running:
        queries = running.client.queries
        execution_id = await a_running_execution(running.client)
        subscribed = aiter(queries.Subscribe(SubscribeAgentExecutionRequest(value=execution_id)))
        watched = aiter(queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id, after_revision=1)))
        listed = queries.WatchList(ListAgentExecutionsRequest())
        await anext(subscribed)
        await anext(watched)
        await listed.initial_metadata()
        stopping = asyncio.create_task(running.server.stop())
        for stream in (subscribed, watched, aiter(listed)):
            told = await refusal(anext(stream))
            assert (told.code, told.reason) == (UNAVAILABLE, "SHUTTING_DOWN")
        await stopping


async def test_what_was_answered_before_a_stop_is_there_after_it(tmp_path: Path) -> None:
    """Commands that run while the server stops are answered and kept, or refused and not there."""
    async with serving(tmp_path / "data", drain_timeout=10) as running:
        agent_id = await an_agent(running.client)
        calls = [running.client.executions.Create(execution(agent_id=agent_id)) for _ in range(50)]
        answered = asyncio.gather(*calls, return_exceptions=True)
        await calls[0]
        await running.server.stop()
        answers = await answered
    made = [answer for answer in answers if not isinstance(answer, BaseException)]
    refused = [error for error in answers if isinstance(error, aio.AioRpcError)]
    assert made
    assert len(made) + len(refused) == 50
    assert {error.code() for error in refused} <= {UNAVAILABLE}
    async with serving(tmp_path / "data") as running:
        for answer in made:
            assert await stored(running.client, answer.metadata.id) == answer
        listed = await running.client.queries.List(ListAgentExecutionsRequest(page_size=1000))
        assert len(listed.entries) == len(made)


async def test_a_stop_of_an_idle_server_is_complete(running: Serving) -> None:
    """A stop may be repeated, and nobody can connect after it."""
    await running.server.stop()
    await running.server.stop()
    told = await refusal(running.client.agent_queries.Get(ResourceId(value="agt_00000000000000000000000000")))
    assert told.code == UNAVAILABLE


async def test_a_method_that_does_not_exist_is_unimplemented(client: Client) -> None:
    """A client of another version learns that this server has no such method, of a known service or an unknown one."""
    for path in ("/runstream.v1.AgentQueryController/Guess", "/nobody.Knows/This"):
        call: Any = client.channel.unary_unary(path)
        assert (await refusal(call(b""))).code == UNIMPLEMENTED


async def test_a_request_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    """Whoever sends too much is told so, compressed or not, and is served when it sends less."""
    async with serving(tmp_path / "data", max_message_bytes=1 << 20) as running:
        agents = running.client.agents
        for how in (Compression.NoCompression, Compression.Gzip):
            big = agent()
            big.spec.instructions = "x" * (2 << 20)
            assert (await refusal(agents.Create(big, compression=how))).code == EXHAUSTED
        assert (await agents.Create(agent(), compression=Compression.Gzip)).metadata.id


async def test_a_call_that_its_client_gives_up_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A query whose client cancels, or whose deadline passes, is cancelled at the server, and nothing is left of it."""
    held = Held(monkeypatch)
    async with serving(tmp_path / "data") as running:
        agent_id = await an_agent(running.client)
        given_up = running.client.agent_queries.Get(ResourceId(value=agent_id))
        await held.entered.wait()
        given_up.cancel()
        await held.cancelled.get()
        late = running.client.agent_queries.Get(ResourceId(value=agent_id), timeout=0.05)
        assert (await refusal(late)).code == DEADLINE
        await held.cancelled.get()


async def test_a_stream_that_its_client_leaves_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is woken any more for a watcher that has gone: the stream is closed at the server."""
    left: asyncio.Queue[str] = asyncio.Queue()
    watch = AgentExecutionStreams.watch

    async def told(self: AgentExecutionStreams, request: Any, started: Any) -> AsyncIterator[Any]:  # noqa: ANN401
        try:
            async with aclosing(watch(self, request, started)) as changes:
                async for change in changes:
                    yield change
        finally:
            left.put_nowait(request.execution_id)

    monkeypatch.setattr(AgentExecutionStreams, "watch", told)
    async with serving(tmp_path / "data") as running:
        execution_id = await a_running_execution(running.client)
        stream = running.client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id))
        await anext(aiter(stream))
        stream.cancel()
        assert await left.get() == execution_id


async def test_one_connection_carries_as_many_streams_as_its_client_opens(running: Serving) -> None:
    """Beyond a thousand watchers behind one connection, the last one is served as the first, and so is a command."""
    execution_id = await a_running_execution(running.client)
    request = WatchAgentExecutionRequest(execution_id=execution_id)
    streams = [running.client.queries.Watch(request) for _ in range(1100)]
    readers = [aiter(stream) for stream in streams]
    for reader in readers:
        assert (await anext(reader)).revision == 1
    assert await an_agent(running.client, "another")
    for stream in streams:
        stream.cancel()


async def test_a_reader_that_stood_still_gets_everything_in_order(client: Client) -> None:
    """More than any buffer holds waits in the log for a reader that does not read; then it gets all of it, in order."""
    execution_id = await a_running_execution(client)
    stream = client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id))
    reader = aiter(stream)
    first = await anext(reader)
    made = 2
    for number in range(40):
        update = delta(execution_id)
        update.view = RESOURCE_VIEW_BASIC
        update.status.messages.add(id=f"m{number}", content="x" * (1 << 19))
        made = (await client.executions.UpdateStatus(update)).metadata.revision
    revisions = [first.revision]
    while revisions[-1] < made:
        revisions.append((await anext(reader)).revision)
    assert revisions == list(range(1, made + 1))
    stream.cancel()


async def test_quick_and_slow_viewers_of_one_execution_get_every_change_in_order(running: Serving) -> None:
    """Those who read along, those who read late, and those among them who leave: nobody costs another one a change."""
    client = running.client
    execution_id = await a_running_execution(client)
    watch = WatchAgentExecutionRequest(execution_id=execution_id, after_revision=2)
    late = [client.queries.Watch(watch) for _ in range(5)]
    leaving = [client.queries.Watch(watch) for _ in range(5)]
    quick = [client.queries.Watch(watch) for _ in range(5)]
    reading = [asyncio.create_task(revisions(stream)) for stream in quick]
    for stream in (*late, *leaving):
        await stream.initial_metadata()
    for number in range(60):
        update = delta(execution_id)
        update.view = RESOURCE_VIEW_BASIC
        update.status.messages.add(id=f"m{number}", content="x" * (1 << 16))
        await client.executions.UpdateStatus(update)
        if number % 12 == 6:
            leaving.pop().cancel()
    await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED))
    reading += [asyncio.create_task(revisions(stream)) for stream in late]
    assert await asyncio.gather(*reading) == [list(range(3, 64))] * 10


async def revisions(stream: Any) -> list[int]:  # noqa: ANN401  # a call of aio
    """Read a stream of changes to its end; return their revisions."""
    return [change.revision async for change in stream]
