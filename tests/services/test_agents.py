"""Agents: references, lists, and what holds one back from being deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runstream.v1.agent_instance_service_pb2 import GetAgentInstancesByAgentRequest
from runstream.v1.agent_service_pb2 import ListAgentsRequest
from runstream.v1.resource_pb2 import (
    API_RESOURCE_KIND_AGENT,
    API_RESOURCE_KIND_AGENT_INSTANCE,
    OWNER_SCOPE_ORGANIZATION,
    OWNER_SCOPE_PLATFORM,
    ApiResourceKind,
    ResourceDeleteInput,
    ResourceId,
    ResourceReference,
)
from tests.making import agent, an_agent, execution, instance
from tests.serving import INVALID, MISSING, PRECONDITION, Client, refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runstream.v1.agent_pb2 import Agent


def names(agents: Sequence[Agent]) -> list[str]:
    """The names of agents, in their order."""
    return [found.metadata.name for found in agents]


async def test_an_agent_keeps_what_a_runner_needs(client: Client) -> None:
    """Instructions, runtime, tools and limits are stored and told as they were given."""
    request = agent("survey")
    request.spec.description = "looks around"
    request.spec.instructions = "Be brief."
    request.spec.runtime.update({"module": "survey", "options": {"depth": 3, "deep": [1, "two", None]}})
    request.spec.tools.extend(["read", "list"])
    request.spec.max_duration.seconds = 60
    request.spec.max_attempts = 3
    made = await client.agents.Create(request)
    assert made.spec == request.spec
    assert (await client.agent_queries.Get(ResourceId(value=made.metadata.id))).spec == request.spec


async def test_a_reference_finds_by_organization_and_slug(client: Client) -> None:
    """The same slug in two organizations are two agents; a kind that fits is no hindrance."""
    ours = await client.agents.Create(agent("Survey"))
    theirs = await client.agents.Create(agent("Survey", org="acme"))
    find = client.agent_queries.GetByReference
    assert await find(ResourceReference(slug="survey")) == ours
    assert await find(ResourceReference(slug="survey", org="acme")) == theirs
    assert await find(ResourceReference(slug="survey", kind=API_RESOURCE_KIND_AGENT)) == ours
    assert await find(ResourceReference(slug="survey", version="v9")) == ours


@pytest.mark.parametrize(
    ("reference", "field"),
    [
        (ResourceReference(), "slug"),
        (ResourceReference(org="acme"), "slug"),
        (ResourceReference(slug="survey", kind=API_RESOURCE_KIND_AGENT_INSTANCE), "kind"),
        (ResourceReference(slug="Not A Slug"), "slug"),
    ],
)
async def test_a_reference_that_cannot_be_resolved_is_refused(
    client: Client, reference: ResourceReference, field: str
) -> None:
    """A reference needs a slug and, if it names a kind, the right one."""
    await an_agent(client)
    told = await refusal(client.agent_queries.GetByReference(reference))
    assert (told.code, set(told.fields)) == (INVALID, {field})


async def test_an_unknown_reference_is_not_found(client: Client) -> None:
    """A slug that nobody has, or that somebody has elsewhere, is NOT_FOUND with what was looked for."""
    await client.agents.Create(agent("survey", org="acme"))
    for org in ("", "emca"):
        told = await refusal(client.agent_queries.GetByReference(ResourceReference(slug="survey", org=org)))
        assert (told.code, told.reason) == (MISSING, "AGENT_NOT_FOUND")
        assert told.metadata == {"slug": "survey", "org": org}


async def test_a_reference_with_a_scope_finds_what_has_it(client: Client) -> None:
    """A scope that is given must be the resource's own; without one it is not compared."""
    made = await client.agents.Create(agent("survey", owner_scope=OWNER_SCOPE_PLATFORM))
    find = client.agent_queries.GetByReference
    assert await find(ResourceReference(slug="survey")) == made
    assert await find(ResourceReference(slug="survey", scope=OWNER_SCOPE_PLATFORM)) == made
    told = await refusal(find(ResourceReference(slug="survey", scope=OWNER_SCOPE_ORGANIZATION)))
    assert (told.code, told.reason) == (MISSING, "AGENT_NOT_FOUND")


async def test_a_reference_follows_a_renamed_agent(client: Client) -> None:
    """The slug stays when the name changes, so references stay good."""
    made = await client.agents.Create(agent("survey"))
    made.metadata.name = "something else"
    updated = await client.agents.Update(made)
    assert await client.agent_queries.GetByReference(ResourceReference(slug="survey")) == updated


async def test_the_default_instance_survives_updates(client: Client) -> None:
    """What the server says about an agent, its default instance, is not lost by Update or Apply."""
    agent_id = await an_agent(client)
    await client.executions.Create(execution(agent_id=agent_id))
    before = await client.agent_queries.Get(ResourceId(value=agent_id))
    request = agent("survey", tags=["red"])
    applied = await client.agents.Apply(request)
    assert before.status.default_instance_id
    assert applied.status.default_instance_id == before.status.default_instance_id
    assert applied.metadata.revision == 3
    request.metadata.id = agent_id
    request.spec.instructions = "Be brief."
    updated = await client.agents.Update(request)
    assert updated.status.default_instance_id == before.status.default_instance_id


async def test_agents_are_listed_by_tag_label_and_organization(client: Client) -> None:
    """Every filter of a list holds; together they must all hold; the newest agent comes first."""
    await client.agents.Create(agent("one", tags=["red", "big"], labels={"team": "a"}))
    await client.agents.Create(agent("two", tags=["red"], labels={"team": "b", "tier": "x"}))
    await client.agents.Create(agent("three", tags=["red"], labels={"team": "a"}, org="acme"))
    for request, expected in (
        (ListAgentsRequest(), ["three", "two", "one"]),
        (ListAgentsRequest(tags=["red"]), ["three", "two", "one"]),
        (ListAgentsRequest(tags=["red", "big"]), ["one"]),
        (ListAgentsRequest(labels={"team": "a"}), ["three", "one"]),
        (ListAgentsRequest(labels={"team": "b", "tier": "x"}), ["two"]),
        (ListAgentsRequest(labels={"team": "a", "tier": "x"}), []),
        (ListAgentsRequest(org="acme"), ["three"]),
        (ListAgentsRequest(org="acme", tags=["big"]), []),
        (ListAgentsRequest(tags=["none"]), []),
    ):
        assert names((await client.agent_queries.List(request)).entries) == expected, request


async def test_agents_come_in_pages(client: Client) -> None:
    """Pages follow each other without a gap or a repeat, though agents are created in between."""
    for number in range(7):
        await client.agents.Create(agent(f"agent {number}", tags=["t"]))
    request, seen = ListAgentsRequest(page_size=3, tags=["t"]), list[str]()
    while True:
        page = await client.agent_queries.List(request)
        seen += names(page.entries)
        await client.agents.Create(agent(f"later {len(seen)}", tags=["t"]))
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    assert seen == [f"agent {number}" for number in reversed(range(7))]
    told = await refusal(client.agent_queries.List(ListAgentsRequest(page_size=1001)))
    assert (told.code, set(told.fields)) == (INVALID, {"page_size"})


async def test_an_agent_in_use_is_kept_and_told_by_whom_it_is_used(client: Client) -> None:
    """Without `cascade`, the refusal counts what uses the agent, in words and in metadata; nothing is deleted."""
    agent_id = await an_agent(client)
    for _ in range(2):
        await client.executions.Create(execution(agent_id=agent_id))
    await client.executions.Create(execution(agent_id=agent_id, stateless=True))
    before = await client.agent_queries.Get(ResourceId(value=agent_id))
    told = await refusal(client.agents.Delete(ResourceDeleteInput(value=agent_id)))
    assert (told.code, told.reason) == (PRECONDITION, "RESOURCE_IN_USE")
    assert told.metadata == {
        "id": agent_id,
        "kind": "AGENT",
        "agent_execution": "3",
        "session": "2",
        "agent_instance": "1",
    }
    assert "3 agent execution(s) and 2 session(s) and 1 agent instance(s)" in told.message
    assert "cascade" in told.message
    assert await client.agent_queries.Get(ResourceId(value=agent_id)) == before


async def test_an_instance_alone_holds_an_agent_back(client: Client) -> None:
    """Only what there is is counted; when it is gone, the agent can go."""
    agent_id = await an_agent(client)
    made = await client.instances.Create(instance(agent_id))
    told = await refusal(client.agents.Delete(ResourceDeleteInput(value=agent_id)))
    assert told.metadata == {"id": agent_id, "kind": "AGENT", "agent_instance": "1"}
    await client.instances.Delete(ResourceDeleteInput(value=made.metadata.id))
    assert (await client.agents.Delete(ResourceDeleteInput(value=agent_id))).metadata.id == agent_id
    missing = await refusal(client.instance_queries.GetByAgent(GetAgentInstancesByAgentRequest(agent_id=agent_id)))
    assert (missing.code, missing.reason) == (MISSING, "AGENT_NOT_FOUND")


def test_kinds_are_numbered_as_the_shared_clients_number_them() -> None:
    """The numbers of the kinds are shared with other clients and never change."""
    assert dict(ApiResourceKind.items()) == {
        "API_RESOURCE_KIND_UNSPECIFIED": 0,
        "API_RESOURCE_KIND_AGENT": 40,
        "API_RESOURCE_KIND_AGENT_EXECUTION": 41,
        "API_RESOURCE_KIND_SESSION": 42,
        "API_RESOURCE_KIND_AGENT_INSTANCE": 45,
    }
