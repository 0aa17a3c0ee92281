"""Agent instances: the agent they belong to, the default one, references and lists."""

from __future__ import annotations

from runstream.v1.agent_instance_service_pb2 import GetAgentInstancesByAgentRequest
from runstream.v1.resource_pb2 import (
    API_RESOURCE_KIND_AGENT,
    ResourceDeleteInput,
    ResourceId,
    ResourceReference,
)
from tests.making import NOWHERE, an_agent, execution, instance, session
from tests.serving import INVALID, MISSING, PRECONDITION, Client, refusal


async def test_an_instance_needs_an_agent_that_exists(client: Client) -> None:
    """Without an agent it is INVALID_ARGUMENT, with an unknown one NOT_FOUND; by Create and by Apply."""
    for call in (client.instances.Create, client.instances.Apply):
        nobody = await refusal(call(instance("")))
        assert (nobody.code, nobody.reason, set(nobody.fields)) == (INVALID, "AGENT_REQUIRED", {"spec.agent_id"})
        unknown = await refusal(call(instance(f"agt_{NOWHERE}")))
        assert (unknown.code, unknown.reason) == (MISSING, "AGENT_NOT_FOUND")


async def test_an_instance_stays_with_its_agent(client: Client) -> None:
    """The agent of an instance cannot change; one that is left out is the same."""
    mine, other = await an_agent(client, "mine"), await an_agent(client, "other")
    made = await client.instances.Create(instance(mine))
    made.spec.agent_id = other
    for call in (client.instances.Update, client.instances.Apply):
        told = await refusal(call(made))
        assert (told.code, told.reason, set(told.fields)) == (INVALID, "IMMUTABLE_FIELD", {"spec.agent_id"})
    made.spec.agent_id = ""
    made.spec.description = "in the cellar"
    answer = await client.instances.Update(made)
    assert (answer.spec.agent_id, answer.spec.description) == (mine, "in the cellar")


async def test_a_reference_finds_an_instance(client: Client) -> None:
    """An instance is found by its slug; a reference to another kind is refused."""
    made = await client.instances.Create(instance(await an_agent(client), "In The Cellar"))
    find = client.instance_queries.GetByReference
    assert await find(ResourceReference(slug="in-the-cellar")) == made
    wrong = await refusal(find(ResourceReference(slug="in-the-cellar", kind=API_RESOURCE_KIND_AGENT)))
    assert (wrong.code, wrong.reason) == (INVALID, "WRONG_KIND")
    unknown = await refusal(find(ResourceReference(slug="survey")))
    assert (unknown.code, unknown.reason) == (MISSING, "AGENT_INSTANCE_NOT_FOUND")


async def test_the_instances_of_an_agent_come_in_pages(client: Client) -> None:
    """GetByAgent shows an agent's instances, newest first, and nobody else's; 50 when no size is asked for."""
    mine, other = await an_agent(client, "mine"), await an_agent(client, "other")
    await client.instances.Create(instance(other, "other's"))
    for number in range(53):
        await client.instances.Create(instance(mine, f"number {number}"))
    first = await client.instance_queries.GetByAgent(GetAgentInstancesByAgentRequest(agent_id=mine))
    rest = await client.instance_queries.GetByAgent(
        GetAgentInstancesByAgentRequest(agent_id=mine, page_token=first.next_page_token)
    )
    seen = [found.metadata.name for found in (*first.entries, *rest.entries)]
    assert len(first.entries) == 50
    assert seen == [f"number {number}" for number in reversed(range(53))]
    assert rest.next_page_token == ""
    foreign = await refusal(
        client.instance_queries.GetByAgent(
            GetAgentInstancesByAgentRequest(agent_id=other, page_token=first.next_page_token)
        )
    )
    assert (foreign.code, foreign.reason) == (INVALID, "PAGE_TOKEN_FILTER_MISMATCH")


async def test_an_instance_with_sessions_is_kept(client: Client) -> None:
    """Sessions hold an instance back, and are counted in the refusal."""
    made = await client.instances.Create(instance(await an_agent(client)))
    for _ in range(2):
        await client.sessions.Create(session(made.metadata.id))
    told = await refusal(client.instances.Delete(ResourceDeleteInput(value=made.metadata.id)))
    assert (told.code, told.reason) == (PRECONDITION, "RESOURCE_IN_USE")
    assert told.metadata == {"id": made.metadata.id, "kind": "AGENT_INSTANCE", "session": "2"}


async def default_instance(client: Client, agent_id: str) -> str:
    """The id of an agent's default instance, empty without one."""
    found = await client.agent_queries.Get(ResourceId(value=agent_id))
    return found.status.default_instance_id


async def test_a_deleted_default_instance_is_made_anew(client: Client) -> None:
    """After its deletion the agent has no default instance, and the next execution makes one, of the same name."""
    agent_id = await an_agent(client)
    await client.executions.Create(execution(agent_id=agent_id))
    first = await default_instance(client, agent_id)
    await client.instances.Delete(ResourceDeleteInput(value=first, cascade=True))
    assert await default_instance(client, agent_id) == ""
    made = await client.executions.Create(execution(agent_id=agent_id))
    second = await default_instance(client, agent_id)
    found = await client.instance_queries.Get(ResourceId(value=second))
    on = await client.session_queries.Get(ResourceId(value=made.spec.session_id))
    assert second not in ("", first)
    assert found.metadata.name == "survey-default"
    assert on.spec.agent_instance_id == second


async def test_deleting_another_instance_leaves_the_default_one(client: Client) -> None:
    """Only the deletion of the default instance changes the agent."""
    agent_id = await an_agent(client)
    await client.executions.Create(execution(agent_id=agent_id))
    before = await client.agent_queries.Get(ResourceId(value=agent_id))
    other = await client.instances.Create(instance(agent_id, "other"))
    await client.instances.Delete(ResourceDeleteInput(value=other.metadata.id))
    assert await client.agent_queries.Get(ResourceId(value=agent_id)) == before


async def test_references_to_environments_are_kept(client: Client) -> None:
    """What an instance refers to is stored as it is, resolved or not."""
    request = instance(await an_agent(client))
    request.spec.environment_refs.add(slug="prod", org="acme", version="7")
    made = await client.instances.Create(request)
    assert made.spec == request.spec
    found = await client.instance_queries.Get(ResourceId(value=made.metadata.id))
    assert found.spec == request.spec
