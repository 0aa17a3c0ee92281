"""The gate: who calls, what goes out when the server fails, and what is refused while it drains."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
from structlog.testing import capture_logs

from runstream.model.errors import Unavailable
from runstream.pipeline.context import Caller
from runstream.services.agents import AgentCommands, AgentQueries
from runstream.services.executions.streams import AgentExecutionStreams
from runstream.transport.gate import Call, Gate
from runstream.transport.methods import Method
from runstream.v1.agent_execution_service_pb2 import GetAgentExecutionRequest, SubscribeAgentExecutionRequest
from runstream.v1.resource_pb2 import ResourceId
from tests.making import NOWHERE, agent, an_agent, execution
from tests.serving import INTERNAL, MISSING, Client, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runstream.feed.follow import Started
    from runstream.feed.hub import Offer

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def gate() -> Gate:
    """A gate that calls every request that has no id ``req``."""
    return Gate(lambda: "req")


def test_a_caller_without_anything_is_anonymous() -> None:
    """Without metadata and identity the caller is anonymous, with an id of ours for the request."""
    assert gate().caller(Call({})) == Caller(actor="anonymous", request_id="req")


def test_what_comes_with_a_call_is_taken() -> None:
    """Identity, request id, idempotency key and trace reach the services as they were sent."""
    metadata = {"x-request-id": "mine", "idempotency-key": "k", "traceparent": TRACE, "other": "x"}
    assert gate().caller(Call(metadata, "runner-7")) == Caller(
        actor="runner-7", request_id="mine", idempotency_key="k", traceparent=TRACE
    )


@pytest.mark.parametrize("given", ["", "x" * 129, "a\nb", "a\x00"])
def test_a_request_id_that_cannot_be_one_is_ours(given: str) -> None:
    """A request id that is empty, endless or would break a log line is replaced."""
    assert gate().caller(Call({"x-request-id": given})).request_id == "req"


@pytest.mark.parametrize(
    "given", ["", "nonsense", TRACE[:-1], TRACE.upper(), f"{TRACE}-more", TRACE.replace("0af7", "zzzz"), "---"]
)
def test_a_trace_that_cannot_be_read_is_ignored(given: str) -> None:
    """A traceparent that is none is left out, as W3C asks, and refuses nothing."""
    assert gate().caller(Call({"traceparent": given})).traceparent == ""


async def test_the_request_id_of_a_caller_is_in_every_error(client: Client) -> None:
    """An error tells the id that the caller gave the request, and one of ours without."""
    request = GetAgentExecutionRequest(value=f"aex_{NOWHERE}")
    mine = await refusal(client.queries.Get(request, metadata=(("x-request-id", "mine-1"),)))
    assert (mine.code, mine.request_id) == (MISSING, "mine-1")
    ours = await refusal(client.queries.Get(request))
    again = await refusal(client.queries.Get(request))
    assert ours.request_id
    assert again.request_id != ours.request_id
    stream = client.queries.Subscribe(
        SubscribeAgentExecutionRequest(value=f"aex_{NOWHERE}"), metadata=(("x-request-id", "mine-2"),)
    )
    assert (await refusal(stream.read())).request_id == "mine-2"


class TestFault:
    """A fault inside a service, made by a method that raises what no service should."""

    @pytest.fixture(autouse=True)
    def faults(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let a query, a command and a stream fail; made before the server of the test is."""

        async def fail(*_: object) -> None:
            raise ZeroDivisionError("secret detail")

        def fail_stream(*_: object) -> object:
            raise ZeroDivisionError("secret detail")

        monkeypatch.setattr(AgentQueries, "get", fail)
        monkeypatch.setattr(AgentCommands, "update", fail)
        monkeypatch.setattr(AgentExecutionStreams, "subscribe", fail_stream)

    @pytest.mark.parametrize("which", ["query", "command", "stream"])
    async def test_a_client_sees_the_request_id_alone(self, client: Client, which: str) -> None:
        """A fault of ours is INTERNAL; what happened stands in the log under the request id, and nowhere else."""
        metadata = (("x-request-id", "mine"),)
        agent_id = await an_agent(client)
        with capture_logs() as logs:
            if which == "query":
                told = await refusal(client.agent_queries.Get(ResourceId(value=agent_id), metadata=metadata))
            elif which == "command":
                told = await refusal(client.agents.Update(agent("x"), metadata=metadata))
            else:
                request = SubscribeAgentExecutionRequest(value=f"aex_{NOWHERE}")
                told = await refusal(client.queries.Subscribe(request, metadata=metadata).read())
        assert (told.code, told.reason, told.request_id) == (INTERNAL, "INTERNAL", "mine")
        assert told.metadata == {"request_id": "mine"}
        assert told.message == "The server failed; its log has more under request id mine."
        (entry,) = [log for log in logs if log["event"] == "failed"]
        assert (entry["log_level"], entry["request_id"], entry["exc_info"]) == ("error", "mine", True)

    async def test_the_server_goes_on(self, client: Client) -> None:
        """After a fault the same server serves other calls."""
        agent_id = await an_agent(client)
        assert (await refusal(client.agent_queries.Get(ResourceId(value=agent_id)))).code == INTERNAL
        assert (await client.executions.Create(execution(agent_id=agent_id))).metadata.revision == 1


async def test_a_draining_gate_lets_nobody_in() -> None:
    """Once the server drains, new calls are held and then refused as SHUTTING_DOWN; none reaches a service."""
    reached = []

    async def serve(*_: object) -> ResourceId:
        reached.append(1)
        return ResourceId()

    async def started() -> None:
        reached.append(2)

    closed = gate()
    method = Method("runstream.v1.Some", "Get", ResourceId, query=serve)
    caller = closed.caller(Call({}))
    payload = ResourceId(value=f"aex_{NOWHERE}").SerializeToString()
    assert await closed.unary(method, payload, caller) == ResourceId()
    closed.drain()
    held = [
        asyncio.ensure_future(closed.unary(method, payload, caller)),
        asyncio.ensure_future(anext(closed.stream(method, payload, caller, started))),
    ]
    await asyncio.sleep(0)
    assert closed.held == 2
    assert not any(call.done() for call in held)
    closed.refuse()
    for call in (*held, closed.unary(method, payload, caller)):
        with pytest.raises(Unavailable) as refused:
            await call
        assert refused.value.reason == "SHUTTING_DOWN"
    assert reached == [1]


@pytest.mark.parametrize("room", [True, False])
async def test_what_is_passed_on_beside_a_stream_is_counted_as_its_answers_are(*, room: bool) -> None:
    """A message that the transport takes at once counts once; one that it does not take is left to the stream."""

    async def serve(_: object, started: Started) -> AsyncIterator[bytes]:
        offer = await started()
        assert offer is not None
        if not offer(b"beside"):
            yield b"beside"
        yield b"last"

    async def started() -> Offer:
        return lambda _: room

    method: Any = Method("runstream.v1.Some", "Follow", ResourceId, stream=cast("Any", serve))
    caller = gate().caller(Call({}))
    payload = ResourceId(value=f"aex_{NOWHERE}").SerializeToString()
    answers = [method.encode(answer) async for answer in gate().stream(method, payload, caller, started)]
    assert answers == ([b"last"] if room else [b"beside", b"last"])
    assert (method.counts.messages, method.counts.bytes_out) == (2, len(b"besidelast"))
