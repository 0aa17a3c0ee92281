"""Agents, instances and sessions from another server: as they were there, in one commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runstream.model.errors import AlreadyExists, InvalidArgument, invalid_field
from runstream.model.ids import is_id, ulid_millis
from runstream.model.times import to_millis
from runstream.pipeline.context import SYSTEM, ContextKey
from runstream.pipeline.resources import envelope
from runstream.pipeline.steps import Persist, slug_taken
from runstream.services.resource_commands import require
from runstream.services.resource_types import AGENTS, INSTANCES, SESSIONS
from runstream.services.transfer.pieces import check_id
from runstream.v1.transfer_pb2 import ImportResourcesRequest, ImportResourcesResponse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

    from runstream.model.ids import IdSource
    from runstream.pipeline.context import RequestContext
    from runstream.pipeline.engine import Pipeline
    from runstream.pipeline.resources import ResourceType
    from runstream.services.wiring import Wiring

    ImportContext = RequestContext[ImportResourcesRequest, Any]

_FIELDS: Final = (("agents", AGENTS), ("agent_instances", INSTANCES), ("sessions", SESSIONS))
_UNCHANGED: ContextKey[int] = ContextKey("resources that are there")


class ResourceImport:
    """Imports agents, instances and sessions."""

    def __init__(self, wiring: Wiring) -> None:
        self._pipeline = _pipeline(wiring)

    async def take(self, request: ImportResourcesRequest) -> ImportResourcesResponse:
        """Import what is in the request, all or nothing; durable when it returns."""
        return await self._pipeline.run(request, SYSTEM)


def _pipeline(wiring: Wiring) -> Pipeline[ImportResourcesRequest, Any, ImportResourcesResponse]:
    return wiring.pipeline(
        "Resources.Import",
        [CheckImported(wiring.ids), StageImported(), RequireNamed(), Persist(), answer_imported],
        ImportResourcesResponse,
    )


class CheckImported:
    """Checks each by itself: only what a server has made has all that a server writes. INVALID_ARGUMENT."""

    def __init__(self, ids: IdSource) -> None:
        self._ids = ids

    async def __call__(self, context: ImportContext) -> None:
        """Check the request."""
        for field, resource, message in _all(context.request):
            seen = envelope(message)
            metadata = seen.metadata
            if not is_id(resource.prefix, metadata.id):
                raise invalid_field(f"{field}.metadata.id", "ID_REQUIRED", f"must be an id of {resource.prefix}_…")
            check_id(f"{field}.metadata.id", metadata.id, context.now)
            if not (metadata.revision and metadata.name and metadata.slug):
                told = "name, slug and revision must be given as the server has them that it comes from"
                raise invalid_field(f"{field}.metadata", "METADATA_REQUIRED", told)
            if to_millis(seen.status.audit.spec_audit.created_at) != ulid_millis(metadata.id):
                told = "must be the time that the id tells"
                raise invalid_field(f"{field}.status.audit.spec_audit.created_at", "CREATED_AT_DIFFERS", told)
            self._ids.observe(metadata.id)


class StageImported:
    """Stages what is not there yet. ALREADY_EXISTS, reason RESOURCE_DIFFERS or SLUG_TAKEN."""

    async def __call__(self, context: ImportContext) -> None:
        """Compare with what is there; leave how many are there as they are."""
        unchanged = 0
        for _, resource, sent in _all(context.request):
            message = resource.record.message()
            message.CopyFrom(sent)
            message.DiscardUnknownFields()
            existing = await context.get(resource.record, envelope(message).metadata.id)
            if existing is None:
                await _stage(context, resource, message)
            elif existing == message:
                unchanged += 1
            else:
                raise _differs(message, existing)
        context.put(_UNCHANGED, unchanged)


class RequireNamed:
    """Demands that what they name is in the request or here, and of the same agent. NOT_FOUND, INVALID_ARGUMENT."""

    async def __call__(self, context: ImportContext) -> None:
        """Look everything up."""
        for agent in context.request.agents:
            default_id = agent.status.default_instance_id
            if default_id:
                default = await require(context, INSTANCES, default_id)
                _check_agent(agent.metadata.id, default_id, default.spec.agent_id, agent.metadata.id)
        for instance in context.request.agent_instances:
            await require(context, AGENTS, instance.spec.agent_id)
        for session in context.request.sessions:
            of = await require(context, INSTANCES, session.spec.agent_instance_id)
            _check_agent(session.metadata.id, of.metadata.id, of.spec.agent_id, session.status.agent_id)


async def answer_imported(context: ImportContext) -> ImportResourcesResponse:
    """Answer with the counts."""
    unchanged, total = context.value(_UNCHANGED), sum(1 for _ in _all(context.request))
    return ImportResourcesResponse(imported=total - unchanged, unchanged=unchanged)


def _all(request: ImportResourcesRequest) -> Iterator[tuple[str, ResourceType[Any], Message]]:
    """Yield the path, the type and the message of each resource in a request."""
    for field, resource in _FIELDS:
        for place, message in enumerate(getattr(request, field)):
            yield f"{field}[{place}]", resource, message


async def _stage(context: ImportContext, resource: ResourceType[Any], message: Message) -> None:
    metadata, transaction = envelope(message).metadata, context.transaction
    if resource.unique_slug:
        unique = resource.unique(metadata.org, metadata.slug)
        holder = await context.holder(unique)
        if holder is not None:
            raise slug_taken(metadata.org, metadata.slug, holder)
        transaction.claim(unique, metadata.id)
    transaction.expect(resource.record, metadata.id, None)
    transaction.put(resource.record, metadata.id, message)
    transaction.index(resource.record, metadata.id, after=resource.terms(message))


def _check_agent(resource_id: str, instance_id: str, found: str, expected: str) -> None:
    if found != expected:
        told = f"{resource_id} names the instance {instance_id}, which is of another agent, {found}."
        raise InvalidArgument("INSTANCE_OF_OTHER_AGENT", told, metadata={"id": resource_id})


def _differs(message: Message, existing: Message) -> AlreadyExists:
    metadata, there = envelope(message).metadata, envelope(existing).metadata
    return AlreadyExists(
        "RESOURCE_DIFFERS",
        f"{metadata.id} is here already, at revision {there.revision}, and differs from what is imported, which is at"
        f" revision {metadata.revision}. Leave it out, so that what is here is used.",
        metadata={"id": metadata.id, "revision": str(there.revision)},
    )
