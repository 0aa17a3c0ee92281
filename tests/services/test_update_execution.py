"""Update of an execution: what it replaces, what it leaves alone, and where the secrets are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from grpc import aio

from runstream.storage.records import EXECUTION_SECRETS
from runstream.v1.agent_execution_pb2 import (
    CHANGE_AUTHOR_USER,
    EXECUTION_COMPLETED,
    EXECUTION_IN_PROGRESS,
    AgentExecution,
    ExecutionPhase,
)
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    ListAgentExecutionsRequest,
    TerminateAgentExecutionInput,
    WatchAgentExecutionRequest,
)
from runstream.v1.resource_pb2 import ResourceId
from tests.making import (
    NOWHERE,
    a_running_execution,
    an_agent,
    an_execution,
    an_execution_in,
    delta,
    execution,
    stored,
    token,
)
from tests.serving import ABORTED, INVALID, MISSING, PRECONDITION, Client, Serving, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.serving import Refusal


def change_message(request: AgentExecution) -> None:
    request.spec.message = "other"


async def test_metadata_and_spec_are_replaced_and_the_status_is_not(client: Client) -> None:
    """Update replaces what the author says; the status stays but for the audit of the spec."""
    execution_id = await a_running_execution(client)
    await client.executions.UpdateStatus(token(execution_id, "hello"))
    before = await stored(client, execution_id)
    request = AgentExecution()
    request.CopyFrom(before)
    request.metadata.name = "renamed"
    request.metadata.tags.append("red")
    request.metadata.labels["team"] = "a"
    request.spec.message = "look closer"
    request.spec.execution_config.model_name = "m-2"
    request.status.phase = EXECUTION_COMPLETED
    request.status.error = "made up"
    answer = await client.executions.Update(request)
    assert answer.metadata.revision == 4
    assert (answer.metadata.name, answer.metadata.slug) == ("renamed", before.metadata.slug)
    assert (list(answer.metadata.tags), dict(answer.metadata.labels)) == (["red"], {"team": "a"})
    assert (answer.spec.message, answer.spec.execution_config.model_name) == ("look closer", "m-2")
    assert answer.status.audit.spec_audit.event == "updated"
    assert answer.status.audit.spec_audit.created_at == before.status.audit.spec_audit.created_at
    answer.status.audit.Clear()
    before.status.audit.Clear()
    assert answer.status == before.status


async def test_the_answer_of_an_update_is_what_get_tells(client: Client) -> None:
    """The answer is the stored state, and the change that is watched leads to it."""
    execution_id = await an_execution(client)
    request = await stored(client, execution_id)
    request.spec.message = "other"
    answer = await client.executions.Update(request)
    assert await stored(client, execution_id) == answer
    watch = client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id, after_revision=1))
    change = await anext(aiter(watch))
    watch.cancel()
    assert (change.revision, change.author, change.WhichOneof("kind")) == (2, CHANGE_AUTHOR_USER, "updated")
    assert change.updated.spec == answer.spec
    assert change.updated.metadata == answer.metadata


async def test_without_a_spec_the_spec_is_kept(client: Client) -> None:
    """An update of metadata alone leaves the spec as it was, and the name where none is given."""
    execution_id = await an_execution(client)
    before = await stored(client, execution_id)
    request = AgentExecution()
    request.metadata.id = execution_id
    request.metadata.annotations["note"] = "later"
    answer = await client.executions.Update(request)
    assert answer.spec == before.spec
    assert answer.metadata.name == before.metadata.name
    assert dict(answer.metadata.annotations) == {"note": "later"}


async def test_tags_and_labels_that_go_are_found_no_more(client: Client) -> None:
    """Lists find an execution by the tags and labels it has now, not by those it had."""
    agent_id = await an_agent(client)
    made = await client.executions.Create(
        execution(agent_id=agent_id, tags=["old", "both"], labels={"team": "a", "tier": "x"})
    )
    request = await stored(client, made.metadata.id)
    del request.metadata.tags[:]
    request.metadata.tags.extend(["new", "both"])
    request.metadata.labels["team"] = "b"
    await client.executions.Update(request)
    for tags, labels, found in (
        (["old"], {}, 0),
        (["new"], {}, 1),
        (["both"], {}, 1),
        ([], {"team": "a"}, 0),
        ([], {"team": "b"}, 1),
        (["new"], {"tier": "x"}, 1),
    ):
        listed = await client.queries.List(ListAgentExecutionsRequest(tags=tags, labels=labels))
        assert len(listed.entries) == found, (tags, labels)


async def test_a_revision_that_is_not_current_is_refused(client: Client) -> None:
    """Whoever decided on an older state is told so and changes nothing; the current revision is taken."""
    execution_id = await an_execution(client)
    old = await stored(client, execution_id)
    await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_IN_PROGRESS))
    old.metadata.name = "too late"
    told = await refusal(client.executions.Update(old))
    assert (told.code, told.reason) == (ABORTED, "REVISION_CONFLICT")
    assert told.metadata == {"id": execution_id, "revision": "2"}
    old.metadata.revision = 2
    assert (await client.executions.Update(old)).metadata.name == "too late"


async def test_of_many_updates_of_one_revision_one_is_taken(client: Client) -> None:
    """Of concurrent updates decided on the same revision exactly one lands, the others are ABORTED."""
    execution_id = await an_execution(client)
    request = await stored(client, execution_id)

    def named(number: int) -> AgentExecution:
        mine = AgentExecution()
        mine.CopyFrom(request)
        mine.metadata.name = f"number {number}"
        return mine

    answers = await asyncio.gather(
        *(client.executions.Update(named(number)) for number in range(20)), return_exceptions=True
    )
    taken = [answer for answer in answers if isinstance(answer, AgentExecution)]
    assert len(taken) == 1
    assert {error.code() for error in answers if isinstance(error, aio.AioRpcError)} == {ABORTED}
    assert await stored(client, execution_id) == taken[0]
    assert taken[0].metadata.revision == 2


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.org", "acme"),
        ("metadata.slug", "another"),
        ("spec.session_id", f"ses_{NOWHERE}"),
        ("spec.agent_id", f"agt_{NOWHERE}"),
        ("spec.context.stateless", True),
    ],
)
async def test_what_cannot_change_is_refused_by_name(client: Client, path: str, value: object) -> None:
    """Organization, slug, session, agent and statelessness stay; another value is refused, none is the old one."""
    execution_id = await an_execution(client)
    before = await stored(client, execution_id)
    request = await stored(client, execution_id)
    *parents, name = path.split(".")
    part: object = request
    for parent in parents:
        part = getattr(part, parent)
    setattr(part, name, value)
    told = await refusal(client.executions.Update(request))
    assert (told.code, told.reason, set(told.fields)) == (INVALID, "IMMUTABLE_FIELD", {path})
    assert await stored(client, execution_id) == before
    setattr(part, name, type(value)())
    answer = await client.executions.Update(request)
    assert (answer.metadata.org, answer.metadata.slug) == (before.metadata.org, before.metadata.slug)
    assert (answer.spec.session_id, answer.spec.agent_id) == (before.spec.session_id, before.spec.agent_id)
    assert answer.spec.context.stateless == before.spec.context.stateless


async def test_an_update_needs_an_id_that_exists(client: Client) -> None:
    """Without an id it is INVALID_ARGUMENT, with an unknown one NOT_FOUND."""
    nameless = await refusal(client.executions.Update(AgentExecution()))
    assert (nameless.code, nameless.reason, set(nameless.fields)) == (INVALID, "ID_REQUIRED", {"metadata.id"})
    request = AgentExecution()
    request.metadata.id = f"aex_{NOWHERE}"
    unknown = await refusal(client.executions.Update(request))
    assert (unknown.code, unknown.reason) == (MISSING, "AGENT_EXECUTION_NOT_FOUND")


async def test_every_violation_of_an_update_is_reported(client: Client) -> None:
    """The rules of the proto hold for updates as for creations."""
    request = await stored(client, await an_execution(client))
    request.metadata.tags.extend(["x", "x"])
    request.spec.context.traceparent = "bad"
    told = await refusal(client.executions.Update(request))
    assert (told.code, told.reason) == (INVALID, "INVALID_FIELDS")
    assert set(told.fields) == {"metadata.tags", "spec.context.traceparent"}


async def test_a_finished_execution_takes_labels_and_tags(client: Client) -> None:
    """Labels and tags of a finished execution can change; that is one more revision, and lists find by it."""
    execution_id = await an_execution_in(client, EXECUTION_COMPLETED)
    request = await stored(client, execution_id)
    request.metadata.labels["kept"] = "yes"
    request.metadata.tags.append("done")
    answer = await client.executions.Update(request)
    assert answer.metadata.revision == request.metadata.revision + 1
    assert answer.status.phase == EXECUTION_COMPLETED
    listed = await client.queries.List(ListAgentExecutionsRequest(tags=["done"], phase=EXECUTION_COMPLETED))
    assert [found.metadata.id for found in listed.entries] == [execution_id]
    watch = client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id, after_revision=2))
    assert [(change.revision, change.terminal) async for change in watch] == [(3, True)]


@pytest.mark.parametrize(
    "change",
    [
        change_message,
        lambda request: setattr(request.metadata, "name", "renamed"),
        lambda request: request.metadata.annotations.update(note="x"),
        lambda request: setattr(request.spec.runtime_env["HIDDEN"], "is_secret", True),
        lambda request: setattr(request.spec.execution_config, "model_name", "m"),
    ],
)
async def test_a_finished_execution_takes_nothing_else(
    client: Client, change: Callable[[AgentExecution], None]
) -> None:
    """Anything but labels and tags of a finished execution is FAILED_PRECONDITION."""
    execution_id = await an_execution_in(client, EXECUTION_COMPLETED)
    before = await stored(client, execution_id)
    request = await stored(client, execution_id)
    request.metadata.labels["kept"] = "yes"
    change(request)
    told = await refusal(client.executions.Update(request))
    assert (told.code, told.reason) == (PRECONDITION, "EXECUTION_TERMINAL")
    assert told.metadata["phase"] == "EXECUTION_COMPLETED"
    assert await stored(client, execution_id) == before


async def with_secrets(client: Client, **values: str) -> str:
    """Create an execution with these secrets and one open variable."""
    request = execution(agent_id=await an_agent(client))
    request.spec.runtime_env["REGION"].value = "north"
    for name, value in values.items():
        request.spec.runtime_env[name].value = value
        request.spec.runtime_env[name].is_secret = True
    return (await client.executions.Create(request)).metadata.id


async def secrets_of(running: Serving, execution_id: str) -> dict[str, str] | None:
    """What the store keeps of an execution's secrets, None for no record at all."""
    found = await running.store.durable.get(EXECUTION_SECRETS, execution_id)
    return None if found is None else dict(found.values)


async def test_secrets_are_kept_replaced_and_dropped(running: Serving) -> None:
    """An empty secret keeps the stored value, another value replaces it, one that is not named is dropped."""
    client = running.client
    execution_id = await with_secrets(client, KEPT="one", REPLACED="two", DROPPED="three")
    request = await stored(client, execution_id)
    del request.spec.runtime_env["DROPPED"]
    request.spec.runtime_env["REPLACED"].value = "four"
    request.spec.runtime_env["ADDED"].value = "five"
    request.spec.runtime_env["ADDED"].is_secret = True
    answer = await client.executions.Update(request)
    assert await secrets_of(running, execution_id) == {"KEPT": "one", "REPLACED": "four", "ADDED": "five"}
    told = {name: value.value for name, value in answer.spec.runtime_env.items()}
    assert told == {"REGION": "north", "KEPT": "", "REPLACED": "", "ADDED": ""}


async def test_secrets_stay_when_the_spec_is_left_out(running: Serving) -> None:
    """An update without a spec keeps the secrets."""
    execution_id = await with_secrets(running.client, HIDDEN="hush")
    request = AgentExecution()
    request.metadata.id = execution_id
    await running.client.executions.Update(request)
    assert await secrets_of(running, execution_id) == {"HIDDEN": "hush"}


async def test_secrets_go_when_none_is_named(running: Serving) -> None:
    """A spec without secrets leaves no record of any."""
    execution_id = await with_secrets(running.client, HIDDEN="hush")
    request = await stored(running.client, execution_id)
    request.spec.runtime_env.clear()
    await running.client.executions.Update(request)
    assert await secrets_of(running, execution_id) is None


async def end_by_runner(client: Client, execution_id: str) -> None:
    await client.executions.UpdateStatus(delta(execution_id, phase=ExecutionPhase.EXECUTION_COMPLETED))


async def end_by_cancel(client: Client, execution_id: str) -> None:
    await client.executions.Cancel(CancelAgentExecutionInput(id=execution_id))


async def end_by_terminate(client: Client, execution_id: str) -> None:
    await client.executions.Terminate(TerminateAgentExecutionInput(id=execution_id))


async def end_by_delete(client: Client, execution_id: str) -> None:
    await client.executions.Delete(ResourceId(value=execution_id))


@pytest.mark.parametrize("end", [end_by_runner, end_by_cancel, end_by_terminate, end_by_delete])
async def test_secrets_are_removed_at_the_end(
    running: Serving, end: Callable[[Client, str], asyncio.Future[None]]
) -> None:
    """However an execution ends, its secrets are off the store when the call returns."""
    execution_id = await with_secrets(running.client, HIDDEN="hush")
    assert await secrets_of(running, execution_id) == {"HIDDEN": "hush"}
    await end(running.client, execution_id)
    assert await secrets_of(running, execution_id) is None


async def test_a_failed_execution_keeps_its_secrets_since_it_can_be_recovered(running: Serving) -> None:
    """A failure is not the end for good; a deletion is."""
    execution_id = await with_secrets(running.client, HIDDEN="hush")
    await running.client.executions.UpdateStatus(delta(execution_id, phase=ExecutionPhase.EXECUTION_FAILED))
    assert await secrets_of(running, execution_id) == {"HIDDEN": "hush"}
    await end_by_delete(running.client, execution_id)
    assert await secrets_of(running, execution_id) is None


async def test_secrets_are_in_no_change(client: Client) -> None:
    """Neither the created nor an updated execution that is watched shows a secret, nor does any state."""
    execution_id = await with_secrets(client, HIDDEN="hush-1")
    request = await stored(client, execution_id)
    request.spec.runtime_env["HIDDEN"].value = "hush-2"
    await client.executions.Update(request)
    await client.executions.Terminate(TerminateAgentExecutionInput(id=execution_id))
    watch = client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id))
    seen = [change async for change in watch]
    snapshot = client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id, from_snapshot=True))
    seen += [change async for change in snapshot]
    assert [change.WhichOneof("kind") for change in seen] == ["created", "updated", "status", "snapshot"]
    assert not any(b"hush" in change.SerializeToString() for change in seen)


async def test_a_refusal_shows_no_value_of_a_variable(client: Client) -> None:
    """An error about a variable names it and never its value, which may be secret."""
    request = execution(agent_id=await an_agent(client))
    request.spec.runtime_env["HIDDEN"].value = "hush" * 20_000
    request.spec.runtime_env["HIDDEN"].is_secret = True
    told: Refusal = await refusal(client.executions.Create(request))
    assert set(told.fields) == {'spec.runtime_env["HIDDEN"].value'}
    assert "hush" not in told.message


async def test_labels_alone_can_be_sent_to_a_finished_execution(client: Client) -> None:
    """What the update leaves out, annotations too, stays as it is."""
    execution_id = await an_execution(client, annotations={"note": "kept"})
    await client.executions.Terminate(TerminateAgentExecutionInput(id=execution_id))
    request = AgentExecution()
    request.metadata.id = execution_id
    request.metadata.labels["team"] = "north"
    updated = await client.executions.Update(request)
    assert dict(updated.metadata.labels) == {"team": "north"}
    assert dict(updated.metadata.annotations) == {"note": "kept"}
