"""Resources: what the commands of every kind do alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

from google.protobuf.message import Message

from runstream.cli.client import Client, idempotent
from runstream.cli.failure import Misuse
from runstream.cli.kinds import AGENT, INSTANCE, Kind, R
from runstream.v1.agent_instance_pb2 import AgentInstance
from runstream.v1.resource_pb2 import ResourceDeleteInput, ResourceId, ResourceReference
from runstream.v1.session_pb2 import Session

if TYPE_CHECKING:
    from runstream.cli.documents import Document
    from runstream.v1.agent_pb2 import Agent
    from runstream.v1.resource_pb2 import ResourceMetadata

#: Applies one resource; returns it as it is then, and the line that tells so.
Application: TypeAlias = Callable[[Client], Awaitable[tuple[Message, str]]]


def is_id(name: str) -> bool:
    """Whether `name` is an id; a slug has no underscore."""
    return "_" in name


async def find(client: Client, kind: Kind[R], name: str, org: str = "") -> R:
    """Return the resource with an id, or with a slug in `org`. Raises `Misuse` for a kind without."""
    if is_id(name):
        return await client.call(kind.queries(client.channel).Get, ResourceId(value=name))
    if kind.references is None:
        raise Misuse(f"a {kind.title} is named by its id, which {name!r} is not")
    reference = ResourceReference(org=org, slug=name)
    return await client.call(kind.references(client.channel).GetByReference, reference)


async def identify(client: Client, kind: Kind[R], name: str, org: str = "") -> str:
    """Return the id of what is named by an id, which is not looked up, or by a slug in `org`."""
    return name if is_id(name) else (await find(client, kind, name, org)).metadata.id


def parse(kind: Kind[R], document: Document) -> R:
    """Return the resource of a document, in which others may be named by slug. Raises `Misuse`."""
    if document.kind not in {"", kind.name}:
        raise Misuse(f"{document.place}: the kind is {document.kind!r}, not {kind.name!r}")
    return document.parse(kind.message())


async def create(client: Client, kind: Kind[R], resource: R, idempotency_key: str = "") -> tuple[R, str]:
    """Create a resource; return it, and the line that tells so."""
    await _resolve(client, resource)
    created = await client.call(kind.commands(client.channel).Create, resource, idempotent(idempotency_key))
    return created, done(kind, created.metadata, "created")


def application(kind: Kind[R], document: Document) -> Application:
    """Return what creates or updates the resource of a document, which is parsed by now. Raises `Misuse`."""
    resource = parse(kind, document)

    async def apply(client: Client) -> tuple[Message, str]:
        await _resolve(client, resource)
        applied = await client.call(kind.commands(client.channel).Apply, resource)
        return applied, done(kind, applied.metadata, f"applied, revision {applied.metadata.revision}")

    return apply


async def delete(client: Client, kind: Kind[R], name: str, org: str, *, cascade: bool) -> tuple[R, str]:
    """Delete what an id or a slug names, with `cascade` what uses it too; return it, and the line that tells so."""
    request = ResourceDeleteInput(value=await identify(client, kind, name, org), cascade=cascade)
    deleted = await client.call(kind.commands(client.channel).Delete, request)
    return deleted, done(kind, deleted.metadata, "deleted")


def done(kind: Kind[R], metadata: ResourceMetadata, what: str) -> str:
    """Return the line that tells what was done to a resource."""
    return f"{kind.title} {metadata.slug or metadata.name} ({metadata.id}) {what}"


async def _resolve(client: Client, resource: Agent | AgentInstance | Session) -> None:
    """Put ids where a resource names others by slug."""
    org = resource.metadata.org
    if isinstance(resource, AgentInstance):
        agent = resource.spec.agent_id
        resource.spec.agent_id = agent and await identify(client, AGENT, agent, org)
    elif isinstance(resource, Session):
        instance = resource.spec.agent_instance_id
        resource.spec.agent_instance_id = instance and await identify(client, INSTANCE, instance, org)
