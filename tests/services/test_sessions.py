"""Sessions: the instance they are on, names that need not be unique, lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.v1.resource_pb2 import ResourceDeleteInput, ResourceId
from runstream.v1.session_service_pb2 import ListSessionsByAgentRequest, ListSessionsRequest
from tests.kinds import an_instance
from tests.making import NOWHERE, an_agent, execution, instance, session
from tests.serving import INVALID, MISSING, PRECONDITION, Client, refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runstream.v1.session_pb2 import Session


def ids_of(sessions: Sequence[Session]) -> list[str]:
    """The ids of sessions, in their order."""
    return [found.metadata.id for found in sessions]


async def test_a_session_needs_an_instance_that_exists(client: Client) -> None:
    """Without an instance it is INVALID_ARGUMENT, with an unknown one NOT_FOUND; by Create and by Apply."""
    for call in (client.sessions.Create, client.sessions.Apply):
        nowhere = await refusal(call(session("")))
        assert (nowhere.code, nowhere.reason) == (INVALID, "INSTANCE_REQUIRED")
        assert set(nowhere.fields) == {"spec.agent_instance_id"}
        unknown = await refusal(call(session(f"ain_{NOWHERE}")))
        assert (unknown.code, unknown.reason) == (MISSING, "AGENT_INSTANCE_NOT_FOUND")


async def test_a_session_tells_its_agent_and_keeps_its_spec(client: Client) -> None:
    """The agent is that of the instance; what the author says is stored as it is."""
    agent_id = await an_agent(client)
    on = await client.instances.Create(instance(agent_id))
    request = session(on.metadata.id, "talk")
    request.spec.subject = "the weather"
    request.spec.thread_id = "t-1"
    request.spec.metadata["mood"] = "good"
    request.status.agent_id = f"agt_{NOWHERE}"
    made = await client.sessions.Create(request)
    assert made.status.agent_id == agent_id
    assert made.spec == request.spec
    made.spec.subject = "something else"
    updated = await client.sessions.Update(made)
    assert (updated.status.agent_id, updated.spec.subject) == (agent_id, "something else")


async def test_a_session_stays_on_its_instance(client: Client) -> None:
    """The instance of a session cannot change; one that is left out is the same."""
    agent_id = await an_agent(client)
    here = await client.instances.Create(instance(agent_id, "here"))
    there = await client.instances.Create(instance(agent_id, "there"))
    made = await client.sessions.Create(session(here.metadata.id))
    made.spec.agent_instance_id = there.metadata.id
    for call in (client.sessions.Update, client.sessions.Apply):
        told = await refusal(call(made))
        assert (told.code, told.reason) == (INVALID, "IMMUTABLE_FIELD")
        assert set(told.fields) == {"spec.agent_instance_id"}
    made.spec.agent_instance_id = ""
    assert (await client.sessions.Update(made)).spec.agent_instance_id == here.metadata.id


async def test_names_of_sessions_need_not_be_unique_nor_be_there(client: Client) -> None:
    """Two sessions may have one name; one without a name, or without a letter in it, gets names from its id."""
    instance_id = await an_instance(client)
    twins = [await client.sessions.Create(session(instance_id, "talk")) for _ in range(2)]
    nameless = await client.sessions.Create(session(instance_id))
    rocket = await client.sessions.Create(session(instance_id, "🚀"))
    assert [twin.metadata.slug for twin in twins] == ["talk", "talk"]
    assert nameless.metadata.name == nameless.metadata.id
    assert nameless.metadata.slug == nameless.metadata.id.replace("_", "-")
    assert (rocket.metadata.name, rocket.metadata.slug) == ("🚀", rocket.metadata.id.replace("_", "-"))


async def test_apply_finds_the_newest_of_its_name_on_its_instance(client: Client) -> None:
    """Of several sessions with one slug Apply updates the newest of this instance and organization, no other's."""
    agent_id = await an_agent(client)
    here = await client.instances.Create(instance(agent_id, "here"))
    there = await client.instances.Create(instance(agent_id, "there"))
    await client.sessions.Create(session(here.metadata.id, "talk"))
    newest = await client.sessions.Create(session(here.metadata.id, "talk"))
    elsewhere = await client.sessions.Create(session(there.metadata.id, "talk"))
    foreign = session(here.metadata.id, "talk")
    foreign.metadata.org = "acme"
    of_acme = await client.sessions.Apply(foreign)
    request = session(here.metadata.id, "talk")
    request.spec.subject = "news"
    applied = await client.sessions.Apply(request)
    assert (applied.metadata.id, applied.metadata.revision) == (newest.metadata.id, 2)
    assert of_acme.metadata.id not in ids_of([newest, elsewhere])
    assert await client.session_queries.Get(ResourceId(value=elsewhere.metadata.id)) == elsewhere


async def test_apply_of_a_nameless_session_makes_one_each_time(client: Client) -> None:
    """Without a name there is nothing to find a session by."""
    instance_id = await an_instance(client)
    made = [await client.sessions.Apply(session(instance_id)) for _ in range(2)]
    assert len(set(ids_of(made))) == 2


async def test_sessions_are_listed_by_tag_in_pages(client: Client) -> None:
    """List shows the sessions with every tag that is asked for, newest first, page by page."""
    instance_id = await an_instance(client)
    made = []
    for number in range(7):
        request = session(instance_id, f"number {number}")
        request.metadata.tags.extend(["t", "even" if number % 2 == 0 else "odd"])
        made.append(await client.sessions.Create(request))
    newest_first = ids_of(made)[::-1]
    seen: list[str] = []
    page = ListSessionsRequest(page_size=3, tags=["t"])
    for _ in range(3):
        listed = await client.session_queries.List(page)
        seen += ids_of(listed.entries)
        page.page_token = listed.next_page_token
    assert seen == newest_first
    assert page.page_token == ""
    even = await client.session_queries.List(ListSessionsRequest(tags=["t", "even"]))
    assert ids_of(even.entries) == newest_first[::2]
    assert not (await client.session_queries.List(ListSessionsRequest(tags=["even", "odd"]))).entries


async def test_the_sessions_of_an_agent_are_listed_over_its_instances(client: Client) -> None:
    """ListByAgent shows the sessions of all instances of an agent, no other agent's; an unknown one is NOT_FOUND."""
    mine, other = await an_agent(client, "mine"), await an_agent(client, "other")
    made = []
    for name, agent_id in (("one", mine), ("two", mine), ("three", other)):
        on = await client.instances.Create(instance(agent_id, name))
        made.append(await client.sessions.Create(session(on.metadata.id)))
    started = await client.executions.Create(execution(agent_id=mine))
    listed = await client.session_queries.ListByAgent(ListSessionsByAgentRequest(agent_id=mine))
    assert ids_of(listed.entries) == [started.spec.session_id, made[1].metadata.id, made[0].metadata.id]
    told = await refusal(client.session_queries.ListByAgent(ListSessionsByAgentRequest(agent_id=f"agt_{NOWHERE}")))
    assert (told.code, told.reason) == (MISSING, "AGENT_NOT_FOUND")


async def test_a_session_with_executions_is_kept(client: Client) -> None:
    """Executions hold a session back, and are counted in the refusal."""
    made = await client.executions.Create(execution(agent_id=await an_agent(client)))
    session_id = made.spec.session_id
    told = await refusal(client.sessions.Delete(ResourceDeleteInput(value=session_id)))
    assert (told.code, told.reason) == (PRECONDITION, "RESOURCE_IN_USE")
    assert told.metadata == {"id": session_id, "kind": "SESSION", "agent_execution": "1"}
    assert (await client.session_queries.Get(ResourceId(value=session_id))).metadata.id == session_id
