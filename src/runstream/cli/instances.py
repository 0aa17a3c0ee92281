"""`runstream instance`: writes agent instances down, shows and deletes them."""

from typing import Annotated

import typer

from runstream.cli import details, resources, tables
from runstream.cli.arguments import (
    AllOption,
    IdempotencyKeyOption,
    LabelsOption,
    LimitOption,
    OptionalFilesOption,
    OrgOption,
    PageTokenOption,
    TagsOption,
)
from runstream.cli.client import Client
from runstream.cli.failure import Misuse
from runstream.cli.kind_app import KindApp, new_metadata
from runstream.cli.kinds import AGENT, INSTANCE
from runstream.v1.agent_instance_pb2 import AgentInstance, AgentInstanceSpec
from runstream.v1.agent_instance_service_pb2 import GetAgentInstancesByAgentRequest
from runstream.v1.agent_instance_service_pb2_grpc import AgentInstanceQueryControllerStub

_kind = KindApp(INSTANCE, details.instance, tables.instances)
app = _kind.app


async def create(  # noqa: PLR0913 — one parameter per option
    client: Client,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="The instance's name.")] = "",
    *,
    file: OptionalFilesOption = None,
    agent: Annotated[str, typer.Option(metavar="AGENT", help="Its agent's slug or id.")] = "",
    description: Annotated[str, typer.Option(metavar="TEXT", help="What it is for.")] = "",
    org: OrgOption = "",
    label: LabelsOption = None,
    tag: TagsOption = None,
    idempotency_key: IdempotencyKeyOption = "",
) -> None:
    """Create instances: one by its name and agent, or those of a file."""
    if bool(name) == bool(file):
        raise Misuse("give either the NAME of the instance, or -f FILE")
    if name and not agent:
        raise Misuse("--agent is missing: an instance is of an agent")

    async def one() -> AgentInstance:
        spec = AgentInstanceSpec(agent_id=agent, description=description)
        return AgentInstance(metadata=new_metadata(name, org, label, tag), spec=spec)

    await _kind.create(client, file, one, idempotency_key)


async def list_instances(  # noqa: PLR0913 — one parameter per option
    client: Client,
    *,
    agent: Annotated[str, typer.Option(metavar="AGENT", help="The agent's slug or id.")],
    org: OrgOption = "",
    limit: LimitOption = 50,
    all_: AllOption = False,
    page_token: PageTokenOption = "",
) -> None:
    """List the instances of an agent, newest first."""
    queries = AgentInstanceQueryControllerStub(client.channel)
    agent_id = await resources.identify(client, AGENT, agent, org)

    async def fetch(size: int, token: str) -> tuple[list[AgentInstance], str]:
        request = GetAgentInstancesByAgentRequest(agent_id=agent_id, page_size=size, page_token=token)
        page = await client.call(queries.GetByAgent, request)
        return [*page.entries], page.next_page_token

    await _kind.show_page(client, fetch, None if all_ else limit, page_token)


_kind.add_apply(
    "Create instances, or update those whose slugs exist; `spec.agent_id` may be a slug.", "apply -f instances.yaml"
)
_kind.command(create, "create staging --agent researcher", "create -f instance.yaml")
_kind.add_get("Show an instance.", "get staging", "get ain_…")
_kind.command(list_instances, "list --agent researcher", name="list")
_kind.add_delete(
    "Delete instances; those in use only with --cascade.", "sessions and executions", "delete staging --cascade"
)
