"""Admission: each limit of calls, streams and clients is met exactly, and every place is given back."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from hypothesis import given
from hypothesis import strategies as st

from runstream.model.errors import ResourceExhausted
from runstream.services.agents import AgentQueries
from runstream.services.executions.streams import AgentExecutionStreams
from runstream.transport.admission import CALLS, Admission, CallLimits
from runstream.transport.clients import Clients
from runstream.transport.gate import Call
from runstream.transport.methods import Method
from runstream.transport.tally import Tally
from runstream.v1.agent_execution_service_pb2 import ListAgentExecutionsRequest, WatchAgentExecutionRequest
from runstream.v1.resource_pb2 import ResourceId
from tests.attached import attached
from tests.certificates import OPENSSL
from tests.clock import FakeClock
from tests.engines import needs_tls
from tests.making import NOWHERE, agent, an_agent
from tests.serving import EXHAUSTED, INTERNAL, MISSING, Client, Refusal, refusal, serving
from tests.transport.test_tls import connect, files

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from grpc import aio

    from tests.serving import Serving
    from tests.transport.test_tls import Files

__all__ = ["files"]

ANY = ListAgentExecutionsRequest()
NOTHING = ResourceId(value=f"agt_{NOWHERE}")


class Held:
    """Queries of agents that are in flight for as long as the test likes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: asyncio.Queue[None] = asyncio.Queue()
        self.free = asyncio.Event()

        async def get(_: AgentQueries, __: ResourceId) -> ResourceId:
            self.begun.put_nowait(None)
            await self.free.wait()
            return ResourceId()

        monkeypatch.setattr(AgentQueries, "get", get)

    async def call(self, client: Client) -> asyncio.Future[Any]:
        """Begin a call, and return it once it is in flight."""
        call = asyncio.ensure_future(self._get(client))
        begun = asyncio.ensure_future(self.begun.get())
        await asyncio.wait({call, begun}, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        return call

    @staticmethod
    async def _get(client: Client) -> object:
        return await client.agent_queries.Get(NOTHING)


@pytest.fixture(name="held")
def _held(monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(monkeypatch)


@asynccontextmanager
async def another(served: Serving) -> AsyncIterator[Client]:
    """A client on a connection of its own."""
    client = Client(served.server.address)
    yield client
    await client.channel.close()


async def opened(client: Client) -> aio.UnaryStreamCall[Any, Any]:
    """Open a stream, and return it once it is."""
    call = client.queries.WatchList(ANY)
    await call.initial_metadata()
    return call


async def refused_stream(client: Client) -> Refusal:
    """Open a stream that must be refused."""
    return await refusal(client.queries.WatchList(ANY).read())


async def opened_in_the_end(client: Client) -> aio.UnaryStreamCall[Any, Any]:
    """Open a stream as soon as a place is given back, which a server does soon after its client has gone."""
    async with asyncio.timeout(30):
        while True:
            call = client.queries.WatchList(ANY)
            await call.initial_metadata()
            if not call.done():
                return call


async def test_as_many_calls_as_the_limit_are_in_flight_and_no_more(tmp_path: Path, held: Held) -> None:
    async with serving(tmp_path / "data", max_calls=3) as served:
        calls = [await held.call(served.client) for _ in range(3)]
        told = await refusal(served.client.agents.Create(agent()))
        assert (told.code, told.reason, told.retry_after) == (EXHAUSTED, "TOO_MANY_CALLS", 0.1)
        assert told.metadata == {"limit": "3", "current": "3", "setting": "max_calls"}
        assert told.message == "The server has 3 calls in flight, as many as it takes at a time."
        held.free.set()
        await asyncio.gather(*calls)
        await an_agent(served.client)


async def test_a_call_that_is_cancelled_gives_its_place_back(tmp_path: Path, held: Held) -> None:
    async with serving(tmp_path / "data", max_calls=1) as served:
        call = await held.call(served.client)
        call.cancel()
        async with asyncio.timeout(30):
            while (told := await held.call(served.client)).done():
                assert (await refusal(told)).reason == "TOO_MANY_CALLS"
        told.cancel()


async def test_a_call_that_fails_gives_its_place_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the request is wrong, the service refuses it, or breaks."""

    async def fail(*_: object) -> None:
        raise ZeroDivisionError

    async with serving(tmp_path / "data", max_calls=1) as served:
        for _ in range(3):
            assert (await refusal(served.client.agent_queries.Get(NOTHING))).code == MISSING
            assert (await refusal(served.client.agent_queries.Get(ResourceId()))).reason == "INVALID_FIELDS"
    monkeypatch.setattr(AgentQueries, "get", fail)
    async with serving(tmp_path / "data", max_calls=1) as served:
        for _ in range(3):
            assert (await refusal(served.client.agent_queries.Get(NOTHING))).code == INTERNAL


async def test_as_many_streams_as_the_limit_are_open_and_no_more(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", max_streams=3) as served:
        streams = [await opened(served.client) for _ in range(3)]
        told = await refused_stream(served.client)
        assert (told.code, told.reason, told.retry_after) == (EXHAUSTED, "TOO_MANY_STREAMS", 1)
        assert told.metadata == {"limit": "3", "current": "3", "setting": "max_streams"}
        await an_agent(served.client)  # calls are another thing
        streams[0].cancel()
        await opened_in_the_end(served.client)
        assert (await refused_stream(served.client)).reason == "TOO_MANY_STREAMS"


async def test_a_client_that_hangs_up_gives_its_places_back(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", max_streams=2) as served:
        async with another(served) as client:
            for _ in range(2):
                await opened(client)
            assert (await refused_stream(served.client)).reason == "TOO_MANY_STREAMS"
        for _ in range(2):
            await opened_in_the_end(served.client)


async def test_a_stream_that_the_server_ends_gives_its_place_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its end, by an error, by a fault, and one whose request is wrong."""
    missing = WatchAgentExecutionRequest(execution_id=f"aex_{NOWHERE}")
    async with serving(tmp_path / "data", max_streams=1) as served:
        for _ in range(3):
            assert (await refusal(served.client.queries.Watch(missing).read())).code == MISSING
            wrong = served.client.queries.Watch(WatchAgentExecutionRequest())
            assert (await refusal(wrong.read())).reason == "INVALID_FIELDS"

        def fail(*_: object) -> object:
            raise ZeroDivisionError

        (await opened(served.client)).cancel()
        monkeypatch.setattr(AgentExecutionStreams, "watch", fail)
    async with serving(tmp_path / "data", max_streams=1) as served:
        for _ in range(3):
            assert (await refusal(served.client.queries.Watch(missing).read())).code == INTERNAL


async def test_runners_and_health_are_let_in_whatever_others_do(tmp_path: Path, held: Held) -> None:
    """Their streams, heartbeats and farewells have places of their own, and cost no client's rate."""
    settings: dict[str, Any] = {"max_calls": 1, "max_streams": 1, "max_streams_per_client": 1, "client_rate": 0.001}
    async with serving(tmp_path / "data", client_burst=2, **settings) as served:
        client = served.client
        await opened(client)
        call = await held.call(client)
        assert (await refusal(client.agents.Create(agent()))).reason == "TOO_MANY_CALLS"
        assert (await refused_stream(client)).reason == "TOO_MANY_STREAMS"
        async with attached(client) as runner:
            for _ in range(5):
                assert await runner.heartbeat() == []
            await runner.detach()
            check = client.channel.unary_unary(
                "/grpc.health.v1.Health/Check", HealthCheckRequest.SerializeToString, HealthCheckResponse.FromString
            )
            assert (await check(HealthCheckRequest())).status == HealthCheckResponse.SERVING
        held.free.set()
        await call
        assert (await refusal(client.agents.Create(agent()))).reason == "CLIENT_RATE_EXCEEDED"


async def test_the_streams_of_runners_have_a_limit_too(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", max_streams=1) as served, attached(served.client, "runner-1"):
        with pytest.raises(Exception, match="streams open") as refused:
            async with attached(served.client, "runner-2"):
                pass
        assert Refusal(refused.value).reason == "TOO_MANY_STREAMS"  # type: ignore[arg-type]  # of a stream


async def test_one_client_has_as_many_calls_and_streams_as_its_limits(tmp_path: Path, held: Held) -> None:
    """However many connections it has."""
    async with (
        serving(tmp_path / "data", max_calls_per_client=2, max_streams_per_client=2) as served,
        another(served) as client,
    ):
        calls = [await held.call(each) for each in (served.client, client)]
        told = await refusal(client.agent_queries.Get(NOTHING))
        assert (told.code, told.reason, told.retry_after) == (EXHAUSTED, "TOO_MANY_CLIENT_CALLS", 0.1)
        assert told.metadata["client"] == "ipv4:127.0.0.1"
        assert (told.metadata["limit"], told.metadata["setting"]) == ("2", "max_calls_per_client")
        streams = [await opened(each) for each in (served.client, client)]
        told = await refused_stream(client)
        assert (told.code, told.reason, told.retry_after) == (EXHAUSTED, "TOO_MANY_CLIENT_STREAMS", 1)
        held.free.set()
        await asyncio.gather(*calls)
        await client.agent_queries.Get(NOTHING)
        streams[0].cancel()
        await opened_in_the_end(client)


async def test_a_client_may_call_a_burst_and_then_as_often_as_the_rate(tmp_path: Path) -> None:
    clock = FakeClock()
    async with serving(tmp_path / "data", clock, client_rate=4, client_burst=3) as served:
        for _ in range(3):
            assert (await refusal(served.client.agent_queries.Get(NOTHING))).code == MISSING
        for _ in range(2):  # what is refused costs nothing
            told = await refusal(served.client.agent_queries.Get(NOTHING))
            assert (told.code, told.reason, told.retry_after) == (EXHAUSTED, "CLIENT_RATE_EXCEEDED", 0.25)
            assert told.metadata == {"client": "ipv4:127.0.0.1", "limit": "4", "setting": "client_rate"}
        assert (await refused_stream(served.client)).reason == "CLIENT_RATE_EXCEEDED"
        clock.advance(0.25)
        stream = await opened(served.client)
        assert (await refusal(served.client.agent_queries.Get(NOTHING))).reason == "CLIENT_RATE_EXCEEDED"
        clock.advance(100)
        for _ in range(3):
            assert (await refusal(served.client.agent_queries.Get(NOTHING))).code == MISSING
        assert not stream.done()


@needs_tls
@pytest.mark.skipif(OPENSSL is None, reason="openssl makes the certificates and is not installed")
async def test_a_client_with_a_certificate_is_counted_by_its_name(tmp_path: Path, files: Files) -> None:
    limits: dict[str, Any] = {"client_rate": 0.001, "client_burst": 1}
    async with serving(tmp_path / "data", tls_client_ca=files.ca, **files.settings, **limits) as served:
        client = connect(served.server.address, files, files.client)
        await client.agents.Create(agent())
        told = await refusal(client.agents.Create(agent()))
        await client.channel.close()
    assert (told.reason, told.metadata["client"]) == ("CLIENT_RATE_EXCEEDED", "runner-7")


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ("ipv4:10.0.0.7:40001", "ipv4:10.0.0.7"),
        ("ipv6:%5B2001:db8::7%5D:40001", "ipv6:%5B2001:db8::7%5D"),
        ("10.0.0.7:40001", "10.0.0.7"),
        ("unix:", "unix:"),
        ("unix:/run/x", "unix:/run/x"),
        ("", ""),
    ],
)
def test_a_client_is_an_address_without_a_port(peer: str, client: str) -> None:
    counting = Admission(CallLimits(client_rate=1), lambda: 0.0)
    assert counting.client(Call({}, "", lambda: peer)) == client
    assert counting.client(Call({}, "named", lambda: peer)) == "named"


def test_nobody_is_asked_for_an_address_while_nothing_is_counted_of_clients() -> None:
    def ask() -> str:
        raise AssertionError("it costs time")

    assert Admission(CallLimits(max_calls=1, max_streams=1), lambda: 0.0).client(Call({}, "", ask)) == ""


def test_clients_without_anything_under_way_are_forgotten() -> None:
    """As soon as that changes nothing; meanwhile there are never more than that were there lately."""
    now = 0.0
    clients, overall = Clients(CallLimits(client_rate=10, client_burst=5), lambda: now), Tally(CALLS, 0)
    open_ = clients.take("stays", overall, stream=True)
    for number in range(20_000):
        now += 0.01  # ten are not whole again
        with clients.take(f"client-{number}", overall, stream=False):
            pass
        assert len(clients) < 30
    with open_:
        assert overall.count == 1
    assert overall.count == 0


def test_of_too_many_clients_those_that_were_seen_longest_ago_are_forgotten() -> None:
    clients, overall = Clients(CallLimits(client_rate=1), lambda: 0.0, most=100), Tally(CALLS, 0)
    open_ = [clients.take(f"busy-{number}", overall, stream=True) for number in range(10)]
    for number in range(1_000):
        with clients.take(f"client-{number}", overall, stream=False):
            pass
    assert len(clients) <= 100
    with pytest.raises(ResourceExhausted):
        clients.take("client-999", overall, stream=False)
    assert overall.count == len(open_)
    with pytest.raises(ResourceExhausted):
        clients.take("busy-0", overall, stream=True)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 30)), max_size=200))
def test_whatever_comes_and_goes_no_limit_is_passed_and_no_place_is_lost(calls: list[tuple[str, bool, int]]) -> None:
    """Each entry is a call of a client, or a stream, and which of those under way ends before it."""
    limits = CallLimits(max_calls=4, max_streams=3, max_calls_per_client=2, max_streams_per_client=2)
    admission = Admission(limits, lambda: 0.0)
    methods = {
        False: Method("runstream.v1.Some", "Get", ResourceId),
        True: Method("runstream.v1.Some", "Watch", ResourceId, stream=_no_stream),
    }
    under_way: list[tuple[str, bool, Any]] = []
    for client, stream, ends in calls:
        if ends < len(under_way):
            with under_way.pop(ends)[2]:
                pass
        mine = [entry for entry in under_way if entry[1] == stream]
        most = limits.max_streams if stream else limits.max_calls
        room = len(mine) < most and len([each for each in mine if each[0] == client]) < 2
        try:
            place = admission.admit(methods[stream], client)
        except ResourceExhausted:
            assert not room
        else:
            assert room
            under_way.append((client, stream, place))
    for *_, place in under_way:
        with place:
            pass
    assert (admission.calls.count, admission.streams.count) == (0, 0)
    assert admission.clients is not None
    for client in "abc":
        for _ in range(2):
            admission.admit(methods[False], client).__exit__(None, None, None)


def _no_stream(*_: object) -> Any:  # noqa: ANN401  # it is never called
    raise AssertionError
