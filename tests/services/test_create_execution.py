"""Create: every branch, its atomicity, and idempotency keys."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from runstream.v1.agent_execution_pb2 import EXECUTION_COMPLETED, EXECUTION_PENDING
from runstream.v1.agent_execution_service_pb2 import ListAgentExecutionsRequest
from runstream.v1.agent_instance_service_pb2 import GetAgentInstancesByAgentRequest
from runstream.v1.resource_pb2 import ResourceId
from runstream.v1.session_service_pb2 import ListSessionsByAgentRequest
from tests.making import NOWHERE, an_agent, execution, instance, session, stored
from tests.serving import EXISTS, INVALID, MISSING, Client, refusal, serving

if TYPE_CHECKING:
    from pathlib import Path


async def test_an_execution_of_an_agent_alone_gets_instance_and_session(client: Client) -> None:
    agent_id = await an_agent(client)
    made = await client.executions.Create(execution(agent_id=agent_id))
    agent = await client.agent_queries.Get(ResourceId(value=agent_id))
    instances = await client.instance_queries.GetByAgent(GetAgentInstancesByAgentRequest(agent_id=agent_id))
    session_of = await client.session_queries.Get(ResourceId(value=made.spec.session_id))
    assert made.status.phase == EXECUTION_PENDING
    assert made.metadata.revision == 1
    assert made.metadata.name == "look around"
    assert [found.metadata.name for found in instances.entries] == ["survey-default"]
    assert agent.status.default_instance_id == instances.entries[0].metadata.id
    assert agent.metadata.revision == 2
    assert session_of.spec.agent_instance_id == agent.status.default_instance_id
    assert session_of.status.agent_id == agent_id
    assert await stored(client, made.metadata.id) == made


async def test_the_next_execution_uses_the_same_instance_and_another_session(client: Client) -> None:
    agent_id = await an_agent(client)
    first = await client.executions.Create(execution(agent_id=agent_id))
    second = await client.executions.Create(execution(agent_id=agent_id))
    instances = await client.instance_queries.GetByAgent(GetAgentInstancesByAgentRequest(agent_id=agent_id))
    assert len(instances.entries) == 1
    assert first.spec.session_id != second.spec.session_id


async def test_only_a_session_that_was_made_for_an_execution_is_younger_than_it(client: Client) -> None:
    """So its id tells that nothing was said in it before."""
    agent_id = await an_agent(client)
    first = await client.executions.Create(execution(agent_id=agent_id))
    second = await client.executions.Create(execution(session_id=first.spec.session_id))
    first_ulid, second_ulid, session_ulid = (
        each.partition("_")[2] for each in (first.metadata.id, second.metadata.id, first.spec.session_id)
    )
    assert first_ulid < session_ulid < second_ulid


async def test_an_execution_in_a_session_takes_its_agent(client: Client) -> None:
    agent_id = await an_agent(client)
    first = await client.executions.Create(execution(agent_id=agent_id))
    second = await client.executions.Create(execution(session_id=first.spec.session_id))
    assert second.spec.agent_id == agent_id
    assert second.spec.session_id == first.spec.session_id


async def test_a_session_of_another_agent_is_refused(client: Client) -> None:
    mine, other = await an_agent(client, "mine"), await an_agent(client, "other")
    made = await client.executions.Create(execution(agent_id=mine))
    told = await refusal(client.executions.Create(execution(agent_id=other, session_id=made.spec.session_id)))
    assert (told.code, told.reason) == (INVALID, "SESSION_OF_OTHER_AGENT")
    assert list(told.fields) == ["spec.agent_id"]


async def test_neither_session_nor_agent_is_refused(client: Client) -> None:
    told = await refusal(client.executions.Create(execution()))
    assert (told.code, told.reason) == (INVALID, "SESSION_OR_AGENT_REQUIRED")


async def test_an_unknown_agent_or_session_is_not_found(client: Client) -> None:
    for request, reason in (
        (execution(agent_id=f"agt_{NOWHERE}"), "AGENT_NOT_FOUND"),
        (execution(agent_id=f"agt_{NOWHERE}", stateless=True), "AGENT_NOT_FOUND"),
        (execution(session_id=f"ses_{NOWHERE}"), "SESSION_NOT_FOUND"),
    ):
        told = await refusal(client.executions.Create(request))
        assert (told.code, told.reason) == (MISSING, reason)


async def test_a_stateless_execution_has_neither_instance_nor_session(client: Client) -> None:
    agent_id = await an_agent(client)
    made = await client.executions.Create(execution(agent_id=agent_id, stateless=True))
    instances = await client.instance_queries.GetByAgent(GetAgentInstancesByAgentRequest(agent_id=agent_id))
    sessions = await client.session_queries.ListByAgent(ListSessionsByAgentRequest(agent_id=agent_id))
    assert made.spec.session_id == ""
    assert not instances.entries
    assert not sessions.entries


async def test_a_stateless_execution_takes_no_session_and_needs_an_agent(client: Client) -> None:
    made = await client.executions.Create(execution(agent_id=await an_agent(client)))
    both = execution(session_id=made.spec.session_id, stateless=True)
    assert (await refusal(client.executions.Create(both))).reason == "STATELESS_WITH_SESSION"
    assert (await refusal(client.executions.Create(execution(stateless=True)))).reason == "AGENT_REQUIRED"


async def test_every_violation_is_reported_at_once(client: Client) -> None:
    bad = execution(agent_id="agent-1", name="n" * 201)
    bad.metadata.labels[""] = "v" * 257
    bad.spec.context.traceparent = "not one"
    told = await refusal(client.executions.Create(bad))
    assert (told.code, told.reason) == (INVALID, "INVALID_FIELDS")
    assert set(told.fields) == {
        "metadata.name",
        'metadata.labels[""]',
        "spec.agent_id",
        "spec.context.traceparent",
    }


async def test_what_a_client_sends_as_output_is_dropped(client: Client) -> None:
    bad = execution(agent_id=await an_agent(client))
    bad.status.phase = EXECUTION_COMPLETED
    bad.status.error = "made up"
    bad.metadata.revision = 9
    bad.metadata.id = f"aex_{NOWHERE}"
    bad.spec.context.root_execution_id = "made up"
    made = await client.executions.Create(bad)
    assert (made.status.phase, made.status.error, made.metadata.revision) == (EXECUTION_PENDING, "", 1)
    assert made.metadata.id != bad.metadata.id
    assert made.spec.context.root_execution_id == made.metadata.id


async def test_fifty_at_once_make_one_instance_and_fifty_sessions(client: Client) -> None:
    agent_id = await an_agent(client)
    made = await asyncio.gather(*(client.executions.Create(execution(agent_id=agent_id)) for _ in range(50)))
    instances = await client.instance_queries.GetByAgent(GetAgentInstancesByAgentRequest(agent_id=agent_id))
    sessions = await client.session_queries.ListByAgent(ListSessionsByAgentRequest(agent_id=agent_id, page_size=1000))
    assert len(instances.entries) == 1
    assert {found.metadata.id for found in sessions.entries} == {found.spec.session_id for found in made}
    assert len(sessions.entries) == 50


async def test_an_instance_made_by_hand_under_the_default_name_is_adopted(client: Client) -> None:
    agent_id = await an_agent(client)
    by_hand = await client.instances.Create(instance(agent_id, "survey-default"))
    made = await client.executions.Create(execution(agent_id=agent_id))
    session_of = await client.session_queries.Get(ResourceId(value=made.spec.session_id))
    assert session_of.spec.agent_instance_id == by_hand.metadata.id


async def test_a_default_name_taken_by_another_agent_is_no_obstacle(client: Client) -> None:
    mine, other = await an_agent(client, "mine"), await an_agent(client, "other")
    await client.instances.Create(instance(other, "mine-default"))
    made = await client.executions.Create(execution(agent_id=mine))
    assert made.spec.agent_id == mine


async def test_a_repeat_with_the_same_key_answers_as_the_first_did(client: Client) -> None:
    request = execution(agent_id=await an_agent(client))
    key = (("idempotency-key", "one"),)
    first = await client.executions.Create(request, metadata=key)
    again = await client.executions.Create(request, metadata=key)
    other = await client.executions.Create(request, metadata=(("idempotency-key", "two"),))
    assert again == first
    assert other.metadata.id != first.metadata.id


async def test_twenty_repeats_at_once_create_one_execution(client: Client) -> None:
    request = execution(agent_id=await an_agent(client))
    key = (("idempotency-key", "one"),)
    made = await asyncio.gather(*(client.executions.Create(request, metadata=key) for _ in range(20)))
    listed = await client.queries.List(ListAgentExecutionsRequest())
    assert len({answer.metadata.id for answer in made}) == 1
    assert len(listed.entries) == 1


async def test_the_same_key_for_another_request_is_refused(client: Client) -> None:
    agent_id, key = await an_agent(client), (("idempotency-key", "one"),)
    await client.executions.Create(execution(agent_id=agent_id), metadata=key)
    told = await refusal(client.executions.Create(execution(agent_id=agent_id, message="other"), metadata=key))
    assert (told.code, told.reason) == (EXISTS, "IDEMPOTENCY_KEY_REUSED")


async def test_a_key_holds_across_a_restart(tmp_path: Path) -> None:
    key = (("idempotency-key", "one"),)
    async with serving(tmp_path / "data") as running:
        request = execution(agent_id=await an_agent(running.client))
        first = await running.client.executions.Create(request, metadata=key)
    async with serving(tmp_path / "data") as running:
        again = await running.client.executions.Create(request, metadata=key)
    assert again == first


async def test_a_key_of_a_deleted_execution_says_so(client: Client) -> None:
    request, key = execution(agent_id=await an_agent(client)), (("idempotency-key", "one"),)
    made = await client.executions.Create(request, metadata=key)
    await client.executions.Delete(ResourceId(value=made.metadata.id))
    told = await refusal(client.executions.Create(request, metadata=key))
    assert (told.code, told.reason) == (MISSING, "IDEMPOTENT_RESULT_DELETED")


async def test_a_key_that_cannot_be_one_is_refused(client: Client) -> None:
    request = execution(agent_id=await an_agent(client))
    told = await refusal(client.executions.Create(request, metadata=(("idempotency-key", "k" * 256),)))
    assert (told.code, told.reason) == (INVALID, "INVALID_IDEMPOTENCY_KEY")


async def test_secrets_are_never_returned(client: Client) -> None:
    request = execution(agent_id=await an_agent(client))
    request.spec.runtime_env["TOKEN"].value = "hush"
    request.spec.runtime_env["TOKEN"].is_secret = True
    request.spec.runtime_env["REGION"].value = "north"
    made = await client.executions.Create(request)
    read = await stored(client, made.metadata.id)
    for answer in (made, read):
        assert answer.spec.runtime_env["TOKEN"].value == ""
        assert answer.spec.runtime_env["TOKEN"].is_secret
        assert answer.spec.runtime_env["REGION"].value == "north"


async def test_the_traceparent_of_the_call_is_kept(client: Client) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    request = execution(agent_id=await an_agent(client))
    made = await client.executions.Create(request, metadata=(("traceparent", trace),))
    assert made.spec.context.traceparent == trace


async def test_an_execution_without_words_is_named_after_its_id(client: Client) -> None:
    made = await client.executions.Create(execution(agent_id=await an_agent(client), message=""))
    assert made.metadata.name == made.metadata.id


async def test_a_session_needs_an_instance_that_exists(client: Client) -> None:
    told = await refusal(client.sessions.Create(session(f"ain_{NOWHERE}")))
    assert (told.code, told.reason) == (MISSING, "AGENT_INSTANCE_NOT_FOUND")
