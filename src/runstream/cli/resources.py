"""Resources: what the commands of every kind do alike."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from runstream.cli.client import idempotent
from runstream.cli.failure import Failure, Misuse
from runstream.cli.kinds import AGENT, INSTANCE, Kind, R
from runstream.cli.plain_text import clean
from runstream.v1.agent_instance_pb2 import AgentInstance
from runstream.v1.resource_pb2 import ResourceDeleteInput, ResourceId, ResourceReference
from runstream.v1.session_pb2 import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runstream.cli.client import Client
    from runstream.cli.documents import Document
    from runstream.v1.resource_pb2 import ResourceMetadata


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


async def parse(client: Client, kind: Kind[R], document: Document) -> R:
    """Return the resource of a document; it may name others by slug. Raises `Misuse`."""
    if document.kind not in {"", kind.name}:
        raise Misuse(f"{document.place}: the kind is {document.kind!r}, not {kind.name!r}")
    resource = document.parse(kind.message())
    org = resource.metadata.org
    if isinstance(resource, AgentInstance):
        spec = resource.spec
        spec.agent_id = spec.agent_id and await identify(client, AGENT, spec.agent_id, org)
    elif isinstance(resource, Session):
        named = resource.spec.agent_instance_id
        resource.spec.agent_instance_id = named and await identify(client, INSTANCE, named, org)
    return resource


async def create(client: Client, kind: Kind[R], resource: R, idempotency_key: str = "") -> R:
    """Create one resource."""
    metadata = idempotent(idempotency_key)
    return await client.call(kind.commands(client.channel).Create, resource, metadata)


async def apply(client: Client, kind: Kind[R], document: Document) -> tuple[R, str]:
    """Create or update what a document says; return it, and the line that tells so."""
    resource = await parse(client, kind, document)
    applied = await client.call(kind.commands(client.channel).Apply, resource)
    revision = applied.metadata.revision
    return applied, done(kind, applied.metadata, f"applied, revision {revision}")


async def delete(client: Client, kind: Kind[R], name: str, org: str, *, cascade: bool) -> R:
    """Delete what is named by an id or a slug, with `cascade` what uses it too."""
    request = ResourceDeleteInput(value=await identify(client, kind, name, org), cascade=cascade)
    return await client.call(kind.commands(client.channel).Delete, request)


def confirm(what: Sequence[str], consequence: str, *, yes: bool) -> None:
    """Ask whether to go on. Raises `Failure` when the answer is no, `Misuse` when there is no terminal to ask on."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Misuse("nothing was deleted: there is no terminal to ask on; add --yes")
    question = f"Delete {', '.join(what)}{consequence}?"
    if not typer.confirm(clean(question), err=True):
        raise Failure("nothing was deleted", code="DECLINED")


def done(kind: Kind[R], metadata: ResourceMetadata, what: str) -> str:
    """Return the line that tells what was done to a resource."""
    return f"{kind.title} {metadata.slug or metadata.name} ({metadata.id}) {what}"
