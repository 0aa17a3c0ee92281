"""The streams as clients have them: how each begins, waits, ends, and is given up."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from grpc import aio

from runstream.v1.agent_execution_pb2 import (
    CONTROL_CANCEL,
    EXECUTION_COMPLETED,
    EXECUTION_IN_PROGRESS,
    AgentExecution,
    ExecutionChange,
)
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    ListAgentExecutionsRequest,
    SubscribeAgentExecutionRequest,
    WatchAgentExecutionRequest,
)
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC, RESOURCE_VIEW_FULL, ResourceId, ResourceView
from tests.making import (
    NOWHERE,
    a_running_execution,
    an_agent,
    an_execution,
    delta,
    execution,
    stored,
    token,
)
from tests.serving import INVALID, MISSING, OUT_OF_RANGE, Client, Refusal, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from runstream.server import Server
    from tests.serving import Serving

BOUND_SECONDS = 60
pytestmark = pytest.mark.timeout(BOUND_SECONDS + 10)


@pytest_asyncio.fixture(name="running")
async def _running(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(tmp_path / "data") as running:
        yield running


@pytest.fixture(name="client")
def _client(running: Serving) -> Client:
    return running.client


class TestBeginning:
    """Where a stream begins, and where it cannot."""

    @pytest.mark.parametrize("method", ["Watch", "Subscribe"])
    async def test_an_unknown_execution_is_not_found(self, client: Client, method: str) -> None:
        """NOT_FOUND, as for Get."""
        told = await ending(follow(client, method, f"aex_{NOWHERE}"))
        assert (told.code, told.reason) == (MISSING, "AGENT_EXECUTION_NOT_FOUND")

    @pytest.mark.parametrize("method", ["Watch", "Subscribe"])
    async def test_a_cursor_ahead_of_the_head_is_out_of_range(self, client: Client, method: str) -> None:
        """OUT_OF_RANGE, which says where the head is."""
        execution_id = await an_execution(client)
        told = await ending(follow(client, method, execution_id, after=2))
        assert (told.code, told.reason, told.metadata["revision"]) == (OUT_OF_RANGE, "REVISION_AHEAD", "1")

    @pytest.mark.parametrize("method", ["Watch", "Subscribe"])
    @pytest.mark.parametrize(("name", "after"), [("", 0), ("ses_" + NOWHERE, 0), ("aex_" + NOWHERE, -1)])
    async def test_a_malformed_request_is_invalid(self, client: Client, method: str, name: str, after: int) -> None:
        """INVALID_ARGUMENT, with the field."""
        told = await ending(follow(client, method, name, after=after))
        assert told.code is INVALID
        assert len(told.fields) == 1

    async def test_a_subscriber_is_told_the_state_now(self, client: Client) -> None:
        """The whole of it, as Get tells it; later the next."""
        execution_id = await a_running_execution(client)
        states = aiter(follow(client, "Subscribe", execution_id))
        assert await anext(states) == await stored(client, execution_id)
        await client.executions.UpdateStatus(token(execution_id, "a"))
        assert await anext(states) == await stored(client, execution_id)

    async def test_a_basic_subscriber_is_told_no_lists(self, client: Client) -> None:
        """The view is the caller's choice."""
        execution_id = await a_running_execution(client)
        await client.executions.UpdateStatus(token(execution_id, "a"))
        state = await anext(aiter(follow(client, "Subscribe", execution_id, view=RESOURCE_VIEW_BASIC)))
        assert (state.metadata.revision, len(state.status.messages)) == (3, 0)

    @pytest.mark.parametrize("method", ["Watch", "Subscribe"])
    @pytest.mark.parametrize("from_snapshot", [False, True])
    async def test_a_reader_at_the_head_is_told_nothing_before_the_next_commit(
        self, running: Serving, method: str, *, from_snapshot: bool
    ) -> None:
        """No state that it has, no snapshot of it: the next change is the first that comes."""
        client = running.client
        execution_id = await a_running_execution(client)
        stream = aiter(follow(client, method, execution_id, after=2, from_snapshot=from_snapshot))
        first = asyncio.ensure_future(anext(stream))
        await until_listening(running, 1)
        await client.executions.UpdateStatus(token(execution_id, "a"))
        told = await first
        if isinstance(told, ExecutionChange):
            assert (told.revision, told.WhichOneof("kind")) == (3, "status")
        else:
            assert told.metadata.revision == 3

    async def test_a_snapshot_is_the_state_and_then_come_the_changes_after_it(self, client: Client) -> None:
        """The snapshot stands for all before it, also for a cursor in the middle."""
        execution_id = await a_running_execution(client)
        await client.executions.UpdateStatus(token(execution_id, "a"))
        for after in (0, 1, 2):
            changes = aiter(follow(client, "Watch", execution_id, after=after, from_snapshot=True))
            first = await anext(changes)
            state = await stored(client, execution_id)
            assert (first.revision, first.terminal, first.snapshot) == (state.metadata.revision, False, state)
            await client.executions.UpdateStatus(token(execution_id, "b"))
            following = await anext(changes)
            assert (following.revision, following.WhichOneof("kind")) == (first.revision + 1, "status")

    async def test_secrets_are_in_no_stream(self, client: Client) -> None:
        """Neither in the change that brought them, nor in a state, nor after an update brings others."""
        heads = await watch_list(client, ListAgentExecutionsRequest())
        request = execution(agent_id=await an_agent(client))
        request.spec.runtime_env["TOKEN"].value = "hush"
        request.spec.runtime_env["TOKEN"].is_secret = True
        made = await client.executions.Create(request)
        told: list[Any] = [made, await anext(heads)]
        execution_id = made.metadata.id
        request.metadata.CopyFrom(made.metadata)
        request.spec.runtime_env["TOKEN"].value = "hushhush"
        told += [await client.executions.Update(request), await anext(heads)]
        for method, from_snapshot in (("Watch", False), ("Watch", True), ("Subscribe", False)):
            stream = aiter(follow(client, method, execution_id, from_snapshot=from_snapshot))
            told += [await anext(stream) for _ in range(2 if (method, from_snapshot) == ("Watch", False) else 1)]
        assert len(told) == 8
        for message in told:
            assert b"TOKEN" in message.SerializeToString()
            assert b"hush" not in message.SerializeToString()


class TestEnd:
    """A stream of an execution that has ended, or ends, or is deleted."""

    async def test_a_finished_execution_is_told_and_the_stream_is_over(self, client: Client) -> None:
        """Every way to follow gives what there is, the terminal state last, and OK."""
        execution_id = await self._finished(client)
        state = await stored(client, execution_id)
        assert [told async for told in follow(client, "Subscribe", execution_id)] == [state]
        assert [told async for told in follow(client, "Subscribe", execution_id, after=2)] == [state]
        log = [told async for told in follow(client, "Watch", execution_id)]
        assert [(change.revision, change.terminal) for change in log] == [(1, False), (2, False), (3, True)]
        (snapshot,) = [told async for told in follow(client, "Watch", execution_id, from_snapshot=True)]
        assert (snapshot.revision, snapshot.terminal, snapshot.snapshot) == (3, True, state)

    @pytest.mark.parametrize("method", ["Watch", "Subscribe"])
    @pytest.mark.parametrize("from_snapshot", [False, True])
    async def test_who_has_the_terminal_state_is_told_no_more(
        self, client: Client, method: str, *, from_snapshot: bool
    ) -> None:
        """OK at once, so that a reader that lost the end of its stream is done when it comes back."""
        execution_id = await self._finished(client)
        assert [told async for told in follow(client, method, execution_id, after=3, from_snapshot=from_snapshot)] == []

    async def test_new_labels_after_the_end_are_seen_by_who_comes_then(self, client: Client) -> None:
        """They are changes as all others; a stream that has ended has ended."""
        execution_id = await self._finished(client)
        before = [told async for told in follow(client, "Watch", execution_id)]
        request = AgentExecution()
        request.metadata.CopyFrom((await stored(client, execution_id)).metadata)
        request.metadata.labels["mood"] = "good"
        await client.executions.Update(request)
        (change,) = [told async for told in follow(client, "Watch", execution_id, after=3)]
        assert (change.revision, change.updated.metadata.labels["mood"]) == (4, "good")
        assert [told async for told in follow(client, "Watch", execution_id)] == [*before, change]
        (state,) = [told async for told in follow(client, "Subscribe", execution_id, after=3)]
        assert state == await stored(client, execution_id)

    async def test_a_request_to_cancel_is_seen_by_those_who_follow(self, client: Client) -> None:
        """A runner that follows what it works on learns that it shall end."""
        execution_id = await a_running_execution(client)
        changes = aiter(follow(client, "Watch", execution_id, after=2))
        states = aiter(follow(client, "Subscribe", execution_id, after=2))
        await client.executions.Cancel(CancelAgentExecutionInput(id=execution_id, reason="enough"))
        change, state = await anext(changes), await anext(states)
        assert (change.revision, change.control.action, change.control.reason) == (3, CONTROL_CANCEL, "enough")
        assert state.status.control == change.control

    async def test_deletion_ends_the_streams_of_those_who_follow(self, running: Serving) -> None:
        """A watcher gets it as a last change; all are told NOT_FOUND, with a reason that says why."""
        client = running.client
        execution_id = await a_running_execution(client)
        changes, states = follow(client, "Watch", execution_id, after=2), follow(client, "Subscribe", execution_id, 2)
        reading = [asyncio.create_task(until_error(stream)) for stream in (changes, states)]
        await until_listening(running, 2)
        await client.executions.Delete(ResourceId(value=execution_id))
        (watched, watch_end), (subscribed, subscribe_end) = await asyncio.gather(*reading)
        assert [(change.revision, change.WhichOneof("kind"), change.terminal) for change in watched] == [
            (3, "deleted", True)
        ]
        assert subscribed == []
        for told in (watch_end, subscribe_end):
            assert (told.code, told.reason) == (MISSING, "EXECUTION_DELETED")
        for method in ("Watch", "Subscribe"):
            assert (await ending(follow(client, method, execution_id))).code is MISSING

    async def _finished(self, client: Client) -> str:
        execution_id = await a_running_execution(client)
        await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED))
        return execution_id


class TestList:
    """WatchList: what changes among those that match."""

    async def test_heads_that_match_are_told_as_they_change(self, client: Client) -> None:
        """Created, changed, ended, relabelled into the filter; BASIC; and nothing of the others."""
        agent_id = await an_agent(client)
        heads = await watch_list(client, ListAgentExecutionsRequest(labels={"mood": "good"}))
        other = await client.executions.Create(execution(agent_id=agent_id))
        mine = await client.executions.Create(execution(agent_id=agent_id, labels={"mood": "good"}))
        assert await told_of(heads) == (mine.metadata.id, 1)
        await client.executions.UpdateStatus(token(other.metadata.id, "a"))
        await client.executions.UpdateStatus(token(mine.metadata.id, "a"))
        head = await anext(heads)
        assert (head.metadata.id, head.metadata.revision, len(head.status.messages)) == (mine.metadata.id, 2, 0)
        await client.executions.UpdateStatus(delta(mine.metadata.id, phase=EXECUTION_COMPLETED))
        assert await told_of(heads) == (mine.metadata.id, 3)
        other.ClearField("status")
        other.metadata.revision = 0
        other.metadata.labels["mood"] = "good"
        await client.executions.Update(other)
        assert await told_of(heads) == (other.metadata.id, 3)

    async def test_it_tells_nothing_of_what_was_before(self, client: Client) -> None:
        """No history: it begins with the next change, and a phase filter follows the phase."""
        execution_id = await an_execution(client)
        heads = await watch_list(client, ListAgentExecutionsRequest(phase=EXECUTION_IN_PROGRESS))
        await client.executions.UpdateStatus(token(execution_id, "a"))
        await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_IN_PROGRESS))
        assert await told_of(heads) == (execution_id, 3)

    async def test_a_deletion_does_not_end_it(self, client: Client) -> None:
        """It goes on with the others."""
        agent_id = await an_agent(client)
        first = await client.executions.Create(execution(agent_id=agent_id))
        heads = await watch_list(client, ListAgentExecutionsRequest())
        await client.executions.Delete(ResourceId(value=first.metadata.id))
        second = await client.executions.Create(execution(agent_id=agent_id))
        assert await told_of(heads) == (second.metadata.id, 1)

    async def test_wrong_filters_are_refused(self, client: Client) -> None:
        """As those of List are."""
        request = ListAgentExecutionsRequest(session_id="nonsense")
        told = await ending(client.queries.WatchList(request))
        assert told.code is INVALID


class TestGivenUp:
    """A client that goes away takes everything with it."""

    @pytest.mark.parametrize("method", ["Watch", "Subscribe", "WatchList"])
    async def test_a_cancelled_stream_is_listened_to_no_more(self, running: Serving, method: str) -> None:
        """Whether it waits, or has something to read."""
        execution_id = await a_running_execution(running.client)
        calls = [follow(running.client, method, execution_id) for _ in range(20)]
        await until_listening(running, 20)
        for call in calls[:10]:
            call.cancel()
        await until_listening(running, 10)
        await running.client.executions.UpdateStatus(token(execution_id, "a"))
        for call in calls:
            call.cancel()
        await until_listening(running, 0)

    async def test_a_connection_that_breaks_ends_its_streams(self, running: Serving) -> None:
        """All of them, stalled ones too, which had not read what was sent to them."""
        execution_id = await a_running_execution(running.client)
        async with another_client(running) as client:
            for method in ("Watch", "Subscribe", "WatchList"):
                client_calls = [follow(client, method, execution_id) for _ in range(3)]
                assert all(not call.done() for call in client_calls)
            await until_listening(running, 9)
            for _ in range(20):
                await running.client.executions.UpdateStatus(token(execution_id, "a" * 100_000))
        await until_listening(running, 0)

    async def test_a_stream_whose_time_is_over_is_listened_to_no_more(self, running: Serving) -> None:
        """A deadline of the client's ends it on the server too."""
        execution_id = await a_running_execution(running.client)
        request = WatchAgentExecutionRequest(execution_id=execution_id, after_revision=2)
        told = await ending(running.client.queries.Watch(request, timeout=0.2))
        assert told.code.name == "DEADLINE_EXCEEDED"
        await until_listening(running, 0)

    async def test_streams_that_have_ended_are_listened_to_no_more(self, running: Serving) -> None:
        """With OK or with an error."""
        execution_id = await a_running_execution(running.client)
        readings = [
            asyncio.create_task(_read_all(follow(running.client, method, execution_id)))
            for method in ("Watch", "Subscribe")
        ]
        await until_listening(running, 2)
        await ending(follow(running.client, "Watch", execution_id, after=99))
        await running.client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED))
        await asyncio.gather(*readings)
        await until_listening(running, 0)

    @pytest.mark.parametrize("seed", range(3))
    async def test_a_command_whose_client_is_gone_is_stored_and_told_or_not_at_all(
        self, running: Serving, seed: int
    ) -> None:
        """Cancelled at any moment: if it is stored, those who follow are told of it without another commit."""
        seeded, client = random.Random(seed), running.client
        execution_id = await a_running_execution(client)
        elsewhere = await a_running_execution(client, agent="other")
        changes = aiter(follow(client, "Watch", execution_id, after=2))
        tokens = [f"{number} " for number in range(60)]
        # On a connection of its own: an engine may close one on which very many calls are cancelled at once.
        async with another_client(running) as leaving:
            for text in tokens:
                call = asyncio.ensure_future(leaving.executions.UpdateStatus(token(execution_id, text)))
                for _ in range(seeded.randrange(25)):
                    await asyncio.sleep(0)
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
        # A commit to another execution, which has all before it on disk with it and wakes nobody here.
        await client.executions.UpdateStatus(token(elsewhere, "a"))
        state = await stored(client, execution_id)
        told = [await anext(changes) for _ in range(state.metadata.revision - 2)]
        assert [change.revision for change in told] == list(range(3, state.metadata.revision + 1))
        texts = [change.status.messages[0].content_append for change in told]
        # Nobody waited for one before sending the next, so they may come in any order, but none twice.
        assert len(texts) == len(set(texts))
        assert set(texts) <= set(tokens)


def follow(  # noqa: PLR0913  # each is a field of one of the requests
    client: Client,
    method: str,
    execution_id: str,
    after: int = 0,
    *,
    from_snapshot: bool = False,
    view: ResourceView.ValueType = RESOURCE_VIEW_FULL,
) -> Any:  # noqa: ANN401  # a call of aio, of one of three kinds
    """Open a stream by the name of its method."""
    if method == "Watch":
        return client.queries.Watch(
            WatchAgentExecutionRequest(execution_id=execution_id, after_revision=after, from_snapshot=from_snapshot)
        )
    if method == "Subscribe":
        return client.queries.Subscribe(
            SubscribeAgentExecutionRequest(value=execution_id, after_revision=after, view=view)
        )
    return client.queries.WatchList(ListAgentExecutionsRequest())


async def watch_list(client: Client, request: ListAgentExecutionsRequest) -> AsyncIterator[AgentExecution]:
    """Open a WatchList; what changes from now on is told."""
    call = client.queries.WatchList(request)
    await call.initial_metadata()
    return aiter(call)


async def told_of(heads: AsyncIterator[AgentExecution]) -> tuple[str, int]:
    """Read one head: of which execution it is, and of which revision."""
    head = await anext(heads)
    return head.metadata.id, head.metadata.revision


async def until_error(call: Any) -> tuple[list[Any], Refusal]:  # noqa: ANN401
    """Read a stream that must end with an error: what came before it, and what was told."""
    told = []
    try:
        async for one in call:
            told.append(one)  # noqa: PERF401  # what came before the error counts
    except aio.AioRpcError as error:
        return told, Refusal(error)
    raise AssertionError("the stream ended with OK")


async def ending(call: Any) -> Refusal:  # noqa: ANN401
    """Read a stream that must be refused before anything comes."""
    told, refused = await until_error(call)
    assert told == []
    return refused


async def until_listening(running: Serving, count: int) -> None:
    """Return when so many readers listen; calls to the server go on meanwhile, and so does the server."""
    async with asyncio.timeout(BOUND_SECONDS):
        while listeners(running.server) != count:
            await running.client.queries.List(ListAgentExecutionsRequest(page_size=1))


def listeners(server: Server) -> int:
    """How many readers the server's hub has."""
    return server._hub.listeners  # noqa: SLF001  # nothing outside shows it


@asynccontextmanager
async def another_client(running: Serving) -> AsyncIterator[Client]:
    """Be a client on a connection of its own."""
    address = running.server.address
    client = Client(address, aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]))
    try:
        yield client
    finally:
        await client.channel.close()


async def _read_all(call: Any) -> None:  # noqa: ANN401
    async for _ in call:
        pass
