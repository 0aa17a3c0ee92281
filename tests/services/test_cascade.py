"""Cascade: what uses a resource goes with it, and nothing is left that points to nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from grpc import aio

from runstream.storage.records import AGENT, AGENT_EXECUTION, AGENT_INSTANCE, SESSION
from runstream.storage.store import Query
from runstream.v1.agent_execution_service_pb2 import SubscribeAgentExecutionRequest, WatchAgentExecutionRequest
from runstream.v1.resource_pb2 import ResourceDeleteInput, ResourceId
from tests.making import an_agent, execution, instance, session, stored
from tests.serving import EXISTS, MISSING, PRECONDITION, Client, Serving, refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from runstream.storage.store import Store


async def count_everything(store: Store) -> dict[str, int]:
    """How many records there are of each kind of resource."""
    kinds = (AGENT, AGENT_INSTANCE, SESSION, AGENT_EXECUTION)
    return {kind.name: len(await store.scan(Query(kind), limit=10_000)) for kind in kinds}


async def a_family(client: Client, name: str) -> str:
    """Create an agent with two instances, three sessions and four executions, one of them stateless."""
    agent_id = await an_agent(client, name)
    made = await client.executions.Create(execution(agent_id=agent_id))
    await client.executions.Create(execution(session_id=made.spec.session_id))
    await client.executions.Create(execution(agent_id=agent_id))
    await client.executions.Create(execution(agent_id=agent_id, stateless=True))
    other = await client.instances.Create(instance(agent_id, f"{name} other"))
    await client.sessions.Create(session(other.metadata.id))
    return agent_id


async def test_an_agent_goes_with_everything_that_uses_it(running: Serving) -> None:
    """With `cascade` instances, sessions and executions go too, and another agent's stay."""
    client = running.client
    mine = await a_family(client, "mine")
    await a_family(client, "other")
    before = await client.agent_queries.Get(ResourceId(value=mine))
    answer = await client.agents.Delete(ResourceDeleteInput(value=mine, cascade=True))
    assert answer.metadata.name == before.metadata.name
    assert await count_everything(running.store) == {
        "agent": 1,
        "agent_instance": 2,
        "session": 3,
        "agent_execution": 4,
    }


async def test_an_instance_goes_with_its_sessions_and_their_executions(running: Serving) -> None:
    """The cascade of an instance leaves the agent, its other instances and what is stateless."""
    client = running.client
    agent_id = await a_family(client, "mine")
    found = await client.agent_queries.Get(ResourceId(value=agent_id))
    await client.instances.Delete(ResourceDeleteInput(value=found.status.default_instance_id, cascade=True))
    assert await count_everything(running.store) == {
        "agent": 1,
        "agent_instance": 1,
        "session": 1,
        "agent_execution": 1,
    }


async def test_a_session_goes_with_its_executions(running: Serving) -> None:
    """The cascade of a session takes its executions alone."""
    client = running.client
    agent_id = await an_agent(client)
    made = await client.executions.Create(execution(agent_id=agent_id))
    await client.executions.Create(execution(session_id=made.spec.session_id))
    left = await client.executions.Create(execution(agent_id=agent_id))
    await client.sessions.Delete(ResourceDeleteInput(value=made.spec.session_id, cascade=True))
    assert (await count_everything(running.store))["agent_execution"] == 1
    assert (await stored(client, left.metadata.id)).metadata.id == left.metadata.id


async def test_cascade_deletes_what_nobody_uses_too(client: Client) -> None:
    """`cascade` on something that is not used is a deletion like any other."""
    agent_id = await an_agent(client)
    answer = await client.agents.Delete(ResourceDeleteInput(value=agent_id, cascade=True))
    assert answer.metadata.id == agent_id


async def test_followers_hear_of_the_cascade(client: Client) -> None:
    """The open streams of an execution that a cascade deletes end as with a deletion of its own."""
    agent_id = await an_agent(client)
    execution_id = (await client.executions.Create(execution(agent_id=agent_id))).metadata.id
    subscribed = aiter(client.queries.Subscribe(SubscribeAgentExecutionRequest(value=execution_id)))
    watched = aiter(client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id)))
    await anext(subscribed)
    await anext(watched)
    await client.agents.Delete(ResourceDeleteInput(value=agent_id, cascade=True))
    assert (await anext(watched)).WhichOneof("kind") == "deleted"
    for stream in (subscribed, watched):
        told = await refusal(anext(stream))
        assert (told.code, told.reason) == (MISSING, "EXECUTION_DELETED")


async def test_two_cascades_at_once_delete_once(running: Serving) -> None:
    """Of two cascades of one agent one answers, the other finds nothing any more; everything is gone."""
    client = running.client
    agent_id = await a_family(client, "mine")
    calls = [client.agents.Delete(ResourceDeleteInput(value=agent_id, cascade=True)) for _ in range(2)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    refused = [error for error in answers if isinstance(error, aio.AioRpcError)]
    assert [error.code() for error in refused] == [MISSING]
    assert set((await count_everything(running.store)).values()) == {0}


async def test_creations_during_a_cascade_leave_no_orphan(running: Serving) -> None:
    """Executions, sessions and instances created while their agent is deleted exist with it or not at all."""
    client, store = running.client, running.store
    for round_ in range(5):
        agent_id = await an_agent(client, f"agent {round_}")
        on = await client.instances.Create(instance(agent_id, f"on {round_}"))
        calls: list[Awaitable[Any]] = []
        for number in range(10):
            calls.append(client.executions.Create(execution(agent_id=agent_id)))
            calls.append(client.sessions.Create(session(on.metadata.id)))
            calls.append(client.instances.Create(instance(agent_id, f"{round_} {number}")))
            if number == 4:
                calls.append(client.agents.Delete(ResourceDeleteInput(value=agent_id, cascade=True)))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        codes = {error.code() for error in answers if isinstance(error, aio.AioRpcError)}
        assert codes <= {MISSING, PRECONDITION, EXISTS}
        await assert_no_orphans(store)


async def assert_no_orphans(store: Store) -> None:
    """Check that everything that is referred to exists."""
    for execution_id in await store.scan(Query(AGENT_EXECUTION), limit=10_000):
        made = await store.durable.get(AGENT_EXECUTION, execution_id)
        assert made is not None
        assert await store.durable.get(AGENT, made.spec.agent_id) is not None
        assert await store.durable.get(SESSION, made.spec.session_id) is not None
    for session_id in await store.scan(Query(SESSION), limit=10_000):
        talk = await store.durable.get(SESSION, session_id)
        assert talk is not None
        assert await store.durable.get(AGENT_INSTANCE, talk.spec.agent_instance_id) is not None
        assert await store.durable.get(AGENT, talk.status.agent_id) is not None
    for instance_id in await store.scan(Query(AGENT_INSTANCE), limit=10_000):
        on = await store.durable.get(AGENT_INSTANCE, instance_id)
        assert on is not None
        assert await store.durable.get(AGENT, on.spec.agent_id) is not None
