"""What agents, instances and sessions have in common: Create, Update, Apply, Delete, Get, idempotency keys."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from runstream.model.ids import ulid_millis
from runstream.model.times import to_millis
from runstream.storage.records import IDEMPOTENCY
from runstream.storage.store import Query
from runstream.v1.resource_pb2 import OWNER_SCOPE_ORGANIZATION, ResourceDeleteInput, ResourceId
from tests.clock import START, FakeClock
from tests.kinds import AGENT, INSTANCE, KINDS, SESSION, Kind
from tests.making import NOWHERE
from tests.serving import ABORTED, EXISTS, INVALID, MISSING, Client, refusal, serving

if TYPE_CHECKING:
    from pathlib import Path

KEY = (("idempotency-key", "one"),)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
with_unique_slugs = pytest.mark.parametrize("kind", [AGENT, INSTANCE], ids=lambda kind: kind.name)


@every_kind
async def test_a_created_resource_is_complete(client: Client, kind: Kind) -> None:
    """The server fills in id, slug, revision, audit and the envelope; Get tells the same."""
    parent = await kind.parent(client)
    request = kind.build(parent, "  My First!  ")
    request.metadata.tags.append("red")
    request.metadata.owner_scope = OWNER_SCOPE_ORGANIZATION
    request.metadata.version.id = "v1"
    made = await kind.commands(client).Create(request)
    audit = made.status.audit
    assert (made.api_version, made.kind) == ("runstream/v1", kind.name)
    assert made.metadata.id.startswith(f"{kind.prefix}_")
    assert (made.metadata.name, made.metadata.slug, made.metadata.revision) == ("My First!", "my-first", 1)
    assert (list(made.metadata.tags), made.metadata.version.id) == (["red"], "v1")
    assert made.metadata.owner_scope == OWNER_SCOPE_ORGANIZATION
    assert (audit.spec_audit.event, audit.spec_audit.created_by.id) == ("created", "anonymous")
    assert audit.spec_audit == audit.status_audit
    assert to_millis(audit.spec_audit.created_at) == ulid_millis(made.metadata.id)
    assert await kind.get(client, made.metadata.id) == made


@every_kind
async def test_what_a_client_sends_as_output_is_dropped(client: Client, kind: Kind) -> None:
    """Id, revision and status of a request to create are the server's to give."""
    request = kind.build(await kind.parent(client), "first")
    request.metadata.id = f"{kind.prefix}_{NOWHERE}"
    request.metadata.revision = 7
    request.status.audit.spec_audit.created_by.id = "mallory"
    made = await kind.commands(client).Create(request)
    assert made.metadata.id != request.metadata.id
    assert made.metadata.revision == 1
    assert made.status.audit.spec_audit.created_by.id == "anonymous"


@every_kind
async def test_every_violation_is_reported_at_once(client: Client, kind: Kind) -> None:
    """Create, Update and Apply report every broken rule in one error."""
    request = kind.build(await kind.parent(client), "n" * 201)
    request.metadata.slug = "Not A Slug"
    request.metadata.labels["k"] = "v" * 257
    request.metadata.tags.extend(["", "t"])
    request.kind = "Planet"
    commands = kind.commands(client)
    for call in (commands.Create(request), commands.Update(request), commands.Apply(request)):
        told = await refusal(call)
        assert (told.code, told.reason) == (INVALID, "INVALID_FIELDS")
        assert set(told.fields) == {
            "kind",
            "metadata.name",
            "metadata.slug",
            'metadata.labels["k"]',
            "metadata.tags[0]",
        }


@every_kind
async def test_an_unknown_id_is_not_found(client: Client, kind: Kind) -> None:
    """Get, Update, Apply by id and Delete of what never was are NOT_FOUND, with the id."""
    nowhere = f"{kind.prefix}_{NOWHERE}"
    request = kind.build(await kind.parent(client), "first")
    request.metadata.id = nowhere
    commands = kind.commands(client)
    for call in (
        kind.queries(client).Get(ResourceId(value=nowhere)),
        commands.Update(request),
        commands.Apply(request),
        commands.Delete(ResourceDeleteInput(value=nowhere)),
        commands.Delete(ResourceDeleteInput(value=nowhere, cascade=True)),
    ):
        told = await refusal(call)
        assert (told.code, told.reason) == (MISSING, f"{kind.code}_NOT_FOUND")
        assert told.metadata == {"id": nowhere}


@every_kind
async def test_what_is_no_id_is_refused(client: Client, kind: Kind) -> None:
    """An id that cannot be one is INVALID_ARGUMENT; so is an update that names nothing."""
    for value in ("", "nonsense", f"{kind.prefix}_{NOWHERE}x"):
        for call in (
            kind.queries(client).Get(ResourceId(value=value)),
            kind.commands(client).Delete(ResourceDeleteInput(value=value)),
        ):
            told = await refusal(call)
            assert (told.code, set(told.fields)) == (INVALID, {"value"})
    told = await refusal(kind.commands(client).Update(kind.build(await kind.parent(client), "first")))
    assert (told.code, told.reason, set(told.fields)) == (INVALID, "ID_REQUIRED", {"metadata.id"})


@every_kind
async def test_an_update_replaces_what_the_author_says(client: Client, kind: Kind) -> None:
    """Metadata and spec are replaced, one revision is made, the slug stays when the name changes."""
    made = await kind.create(client)
    request = kind.copy(made)
    request.metadata.name = "second"
    request.metadata.labels["team"] = "a"
    request.metadata.annotations["note"] = "x"
    request.status.audit.spec_audit.event = "made up"
    answer = await kind.commands(client).Update(request)
    audit, before = answer.status.audit.spec_audit, made.status.audit.spec_audit
    assert (answer.metadata.name, answer.metadata.slug, answer.metadata.revision) == ("second", "first", 2)
    assert (dict(answer.metadata.labels), dict(answer.metadata.annotations)) == ({"team": "a"}, {"note": "x"})
    assert (audit.event, audit.created_at, audit.created_by) == ("updated", before.created_at, before.created_by)
    assert answer.spec == made.spec
    assert await kind.get(client, made.metadata.id) == answer


@every_kind
async def test_an_update_without_a_name_keeps_it(client: Client, kind: Kind) -> None:
    """A name that is left out is no new name."""
    made = await kind.create(client, "first")
    request = kind.copy(made)
    request.metadata.name = " "
    assert (await kind.commands(client).Update(request)).metadata.name == "first"


@every_kind
async def test_a_revision_that_is_not_current_is_refused(client: Client, kind: Kind) -> None:
    """Update and Apply of an older revision are ABORTED and tell the current one; 0 says nothing about it."""
    made = await kind.create(client)
    request = kind.copy(made)
    request.metadata.name = "second"
    await kind.commands(client).Update(request)
    request.metadata.name = "third"
    for call in (kind.commands(client).Update, kind.commands(client).Apply):
        told = await refusal(call(request))
        assert (told.code, told.reason) == (ABORTED, "REVISION_CONFLICT")
        assert told.metadata == {"id": made.metadata.id, "revision": "2"}
    assert (await kind.get(client, made.metadata.id)).metadata.name == "second"
    request.metadata.revision = 0
    assert (await kind.commands(client).Update(request)).metadata.revision == 3


@every_kind
async def test_of_many_updates_of_one_revision_one_is_taken(client: Client, kind: Kind) -> None:
    """Updates decided on the same revision do not overwrite each other; those without a revision all land."""
    made = await kind.create(client)
    calls = []
    for number in range(10):
        request = kind.copy(made)
        request.metadata.name = f"number {number}"
        calls.append(kind.commands(client).Update(request))
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(answer, type(made)) for answer in answers) == 1
    request = kind.copy(made)
    request.metadata.revision = 0
    await asyncio.gather(*(kind.commands(client).Update(request) for _ in range(10)))
    assert (await kind.get(client, made.metadata.id)).metadata.revision == 12


@every_kind
async def test_organization_and_slug_cannot_change(client: Client, kind: Kind) -> None:
    """Another organization or slug is refused by name, by Update and by Apply with an id."""
    made = await kind.create(client)
    for name in ("org", "slug"):
        request = kind.copy(made)
        setattr(request.metadata, name, "other")
        for call in (kind.commands(client).Update, kind.commands(client).Apply):
            told = await refusal(call(request))
            assert (told.code, told.reason, set(told.fields)) == (INVALID, "IMMUTABLE_FIELD", {f"metadata.{name}"})
    assert await kind.get(client, made.metadata.id) == made


@every_kind
async def test_apply_creates_once_and_then_updates(client: Client, kind: Kind) -> None:
    """Apply makes what is not there; the same again makes no revision; a change makes exactly one."""
    parent = await kind.parent(client)
    commands = kind.commands(client)
    request = kind.build(parent, "first")
    request.metadata.tags.append("red")
    made = await commands.Apply(request)
    assert made.metadata.revision == 1
    assert await commands.Apply(request) == made
    request.metadata.tags.append("blue")
    changed = await commands.Apply(request)
    assert (changed.metadata.id, changed.metadata.revision) == (made.metadata.id, 2)
    assert list(changed.metadata.tags) == ["red", "blue"]
    assert await commands.Apply(request) == changed
    assert [found.metadata.id for found in await kind.everyone(client, parent)] == [made.metadata.id]


@every_kind
async def test_apply_takes_back_what_get_tells(client: Client, kind: Kind) -> None:
    """A resource that was got can be applied as it is, which changes nothing, and with a change, by its id."""
    made = await kind.create(client)
    assert await kind.commands(client).Apply(made) == made
    request = kind.copy(made)
    request.metadata.name = "renamed"
    answer = await kind.commands(client).Apply(request)
    assert (answer.metadata.id, answer.metadata.slug, answer.metadata.revision) == (made.metadata.id, "first", 2)


@every_kind
async def test_apply_finds_by_a_slug_that_is_not_the_name(client: Client, kind: Kind) -> None:
    """A slug that is given is the one that counts, whatever the name."""
    parent = await kind.parent(client)
    request = kind.build(parent, "A name")
    request.metadata.slug = "short"
    made = await kind.commands(client).Apply(request)
    request.metadata.name = "Another name"
    answer = await kind.commands(client).Apply(request)
    assert (answer.metadata.id, answer.metadata.slug, answer.metadata.name) == (
        made.metadata.id,
        "short",
        "Another name",
    )


@with_unique_slugs
async def test_twenty_applies_at_once_make_one_resource(client: Client, kind: Kind) -> None:
    """Concurrent applies of the same create once, and all are answered with the same."""
    request = kind.build(await kind.parent(client), "first")
    answers = await asyncio.gather(*(kind.commands(client).Apply(request) for _ in range(20)))
    assert all(answer == answers[0] for answer in answers)
    assert answers[0].metadata.revision == 1


@with_unique_slugs
async def test_a_slug_that_is_taken_is_told_with_its_holder(client: Client, kind: Kind) -> None:
    """Create under a name whose slug is taken is ALREADY_EXISTS; in another organization it is free."""
    parent = await kind.parent(client)
    made = await kind.commands(client).Create(kind.build(parent, "First"))
    told = await refusal(kind.commands(client).Create(kind.build(parent, "first!")))
    assert (told.code, told.reason) == (EXISTS, "SLUG_TAKEN")
    assert told.metadata == {"slug": "first", "org": "", "id": made.metadata.id}
    elsewhere = kind.build(parent, "First")
    elsewhere.metadata.org = "acme"
    assert (await kind.commands(client).Create(elsewhere)).metadata.slug == "first"


@with_unique_slugs
async def test_of_twenty_creations_of_one_slug_one_lands(client: Client, kind: Kind) -> None:
    """Concurrent creations under one name make one resource."""
    parent = await kind.parent(client)
    calls = [kind.commands(client).Create(kind.build(parent, "first")) for _ in range(20)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    made = [answer for answer in answers if not isinstance(answer, BaseException)]
    everyone = await kind.everyone(client, parent)
    assert [found.metadata.id for found in made] == [found.metadata.id for found in everyone]
    assert len(made) == 1


@with_unique_slugs
async def test_a_name_of_which_no_slug_can_be_made_is_refused(client: Client, kind: Kind) -> None:
    """A name without a letter or digit needs a slug beside it; no name at all is refused."""
    parent = await kind.parent(client)
    request = kind.build(parent, "🚀🚀")
    for call in (kind.commands(client).Create, kind.commands(client).Apply):
        told = await refusal(call(request))
        assert (told.code, told.reason, set(told.fields)) == (INVALID, "NAME_WITHOUT_SLUG", {"metadata.name"})
    request.metadata.slug = "rocket"
    made = await kind.commands(client).Create(request)
    assert (made.metadata.name, made.metadata.slug) == ("🚀🚀", "rocket")
    for name in ("", "   "):
        told = await refusal(kind.commands(client).Create(kind.build(parent, name)))
        assert (told.code, told.reason, set(told.fields)) == (INVALID, "NAME_REQUIRED", {"metadata.name"})


@with_unique_slugs
async def test_a_slug_is_free_again_after_a_deletion(client: Client, kind: Kind) -> None:
    """The name of what was deleted can be taken anew, and means the new one."""
    parent = await kind.parent(client)
    first = await kind.commands(client).Create(kind.build(parent, "first"))
    await kind.commands(client).Delete(ResourceDeleteInput(value=first.metadata.id))
    second = await kind.commands(client).Create(kind.build(parent, "first"))
    again = await kind.commands(client).Apply(kind.build(parent, "first"))
    assert first.metadata.id != second.metadata.id == again.metadata.id


@every_kind
async def test_a_deletion_answers_with_what_was_deleted(client: Client, kind: Kind) -> None:
    """Delete answers with the resource; after it nobody finds it, and a repeat is NOT_FOUND."""
    parent = await kind.parent(client)
    made = await kind.commands(client).Create(kind.build(parent, "first"))
    left = await kind.commands(client).Create(kind.build(parent, "second"))
    assert await kind.commands(client).Delete(ResourceDeleteInput(value=made.metadata.id)) == made
    for call in (
        kind.queries(client).Get(ResourceId(value=made.metadata.id)),
        kind.commands(client).Delete(ResourceDeleteInput(value=made.metadata.id)),
        kind.commands(client).Update(made),
        kind.commands(client).Apply(made),
    ):
        told = await refusal(call)
        assert (told.code, told.reason) == (MISSING, f"{kind.code}_NOT_FOUND")
    assert [found.metadata.id for found in await kind.everyone(client, parent)] == [left.metadata.id]


@every_kind
async def test_a_repeat_with_the_same_key_answers_as_the_first_did(client: Client, kind: Kind) -> None:
    """The same key and request create once and are answered alike, even when the resource has changed since."""
    parent = await kind.parent(client)
    request = kind.build(parent, "first")
    create = kind.commands(client).Create
    answers = await asyncio.gather(*(create(request, metadata=KEY) for _ in range(10)))
    changed = kind.copy(answers[0])
    changed.metadata.labels["team"] = "a"
    await kind.commands(client).Update(changed)
    answers.append(await create(request, metadata=KEY))
    assert all(answer == answers[0] for answer in answers)
    assert len(await kind.everyone(client, parent)) == 1


@every_kind
async def test_a_key_for_another_request_is_refused(client: Client, kind: Kind) -> None:
    """A key that was used for another request names what that one created."""
    parent = await kind.parent(client)
    made = await kind.commands(client).Create(kind.build(parent, "first"), metadata=KEY)
    told = await refusal(kind.commands(client).Create(kind.build(parent, "second"), metadata=KEY))
    assert (told.code, told.reason) == (EXISTS, "IDEMPOTENCY_KEY_REUSED")
    assert told.metadata == {"id": made.metadata.id}


@every_kind
async def test_a_key_belongs_to_an_organization(client: Client, kind: Kind) -> None:
    """The same key in another organization is another key."""
    parent = await kind.parent(client)
    made = []
    for org in ("", "acme", "emca"):
        request = kind.build(parent, "first")
        request.metadata.org = org
        made.append(await kind.commands(client).Create(request, metadata=KEY))
    assert len({found.metadata.id for found in made}) == 3


async def test_a_key_belongs_to_a_kind(client: Client) -> None:
    """The same key for another kind of resource is another key."""
    parent = ""
    made = []
    for kind in KINDS:  # each is the parent of the next
        made.append(await kind.commands(client).Create(kind.build(parent, "first"), metadata=KEY))
        parent = made[-1].metadata.id
    assert [found.kind for found in made] == ["Agent", "AgentInstance", "Session"]


@every_kind
async def test_a_key_of_something_deleted_says_so(client: Client, kind: Kind) -> None:
    """After the deletion of what it created, a repeat creates nothing anew by accident."""
    request = kind.build(await kind.parent(client), "first")
    made = await kind.commands(client).Create(request, metadata=KEY)
    await kind.commands(client).Delete(ResourceDeleteInput(value=made.metadata.id))
    told = await refusal(kind.commands(client).Create(request, metadata=KEY))
    assert (told.code, told.reason) == (MISSING, "IDEMPOTENT_RESULT_DELETED")


@every_kind
async def test_a_key_of_a_refused_request_is_not_used_up(client: Client, kind: Kind) -> None:
    """A request that failed leaves its key free: the corrected one is taken under the same key."""
    parent = await kind.parent(client)
    await refusal(kind.commands(client).Create(kind.build(parent, "n" * 201), metadata=KEY))
    made = await kind.commands(client).Create(kind.build(parent, "first"), metadata=KEY)
    assert made.metadata.name == "first"


@every_kind
async def test_a_key_holds_across_a_restart(tmp_path: Path, kind: Kind) -> None:
    """A repeat to a server that was restarted in between is answered as the first call was."""
    async with serving(tmp_path / "data") as running:
        request = kind.build(await kind.parent(running.client), "first")
        first = await kind.commands(running.client).Create(request, metadata=KEY)
    async with serving(tmp_path / "data") as running:
        assert await kind.commands(running.client).Create(request, metadata=KEY) == first


async def test_a_key_is_kept_for_a_day(tmp_path: Path) -> None:
    """Until 24 hours are over a key is remembered; after that it is a new one, whether its record is gone or not."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock) as running:
        client = running.client
        first = await SESSION.create(client)
        request = SESSION.build(first.spec.agent_instance_id, "keyed")
        made = await client.sessions.Create(request, metadata=KEY)
        clock.set_now(START + timedelta(hours=23, minutes=59))
        assert await client.sessions.Create(request, metadata=KEY) == made
        clock.set_now(START + timedelta(hours=24))  # nobody has swept: that goes by the monotonic clock
        assert len(await running.store.scan(Query(IDEMPOTENCY), limit=9)) == 1
        second = await client.sessions.Create(request, metadata=KEY)
        again = await client.sessions.Create(request, metadata=KEY)
    assert made.metadata.id != second.metadata.id
    assert again == second
