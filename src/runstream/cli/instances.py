"""`runstream instance`: writes agent instances down, shows and deletes them."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from runstream.cli import details, documents, pairs, resources, tables
from runstream.cli.arguments import (
    AllOption,
    CascadeOption,
    FilesOption,
    IdempotencyKeyOption,
    LabelsOption,
    LimitOption,
    OptionalFilesOption,
    OrgOption,
    PageTokenOption,
    TagsOption,
    YesOption,
)
from runstream.cli.calling import calling
from runstream.cli.client import Client, collect
from runstream.cli.examples import examples
from runstream.cli.failure import Misuse
from runstream.cli.kinds import AGENT, INSTANCE
from runstream.v1.agent_instance_pb2 import AgentInstance, AgentInstanceSpec
from runstream.v1.agent_instance_service_pb2 import GetAgentInstancesByAgentRequest
from runstream.v1.agent_instance_service_pb2_grpc import AgentInstanceQueryControllerStub
from runstream.v1.resource_pb2 import ResourceMetadata

app = typer.Typer(no_args_is_help=True)

InstanceArgument = Annotated[str, typer.Argument(metavar="INSTANCE", help="The instance's slug or id.")]
InstancesArgument = Annotated[list[str], typer.Argument(metavar="INSTANCE…", help="The instances' slugs or ids.")]


@app.command(epilog=examples("runstream instance apply -f instances.yaml"))
@calling
async def apply(client: Client, *, file: FilesOption) -> None:
    """Create instances, or update those whose slugs exist; `spec.agent_id` may be a slug."""
    applied = [await resources.apply(client, INSTANCE, each) for each in documents.read(file)]
    client.output.records([instance for instance, _ in applied], [line for _, line in applied])


@app.command(
    epilog=examples(
        "runstream instance create staging --agent researcher",
        "runstream instance create -f instance.yaml",
    )
)
@calling
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
    if file:
        instances = [await resources.parse(client, INSTANCE, each) for each in documents.read(file)]
    else:
        agent_id = await resources.identify(client, AGENT, agent, org)
        labels = pairs.parse(label or (), "--label")
        metadata = ResourceMetadata(name=name, org=org, labels=labels, tags=tag or ())
        spec = AgentInstanceSpec(agent_id=agent_id, description=description)
        instances = [AgentInstance(metadata=metadata, spec=spec)]
    if idempotency_key and len(instances) > 1:
        raise Misuse("--idempotency-key is for one instance")
    created = [await resources.create(client, INSTANCE, each, idempotency_key) for each in instances]
    client.output.records(created, [resources.done(INSTANCE, each.metadata, "created") for each in created])


@app.command(epilog=examples("runstream instance get staging", "runstream instance get ain_…"))
@calling
async def get(client: Client, instance: InstanceArgument, *, org: OrgOption = "") -> None:
    """Show an instance."""
    found = await resources.find(client, INSTANCE, instance, org)
    client.output.record(found, details.instance(found))


@app.command("list", epilog=examples("runstream instance list --agent researcher"))
@calling
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

    instances, rest = await collect(fetch, None if all_ else limit, page_token)
    client.output.page(instances, tables.instances(datetime.now(UTC)), rest)


@app.command(epilog=examples("runstream instance delete staging --cascade"))
@calling
async def delete(
    client: Client,
    instances: InstancesArgument,
    *,
    org: OrgOption = "",
    cascade: CascadeOption = False,
    yes: YesOption = False,
) -> None:
    """Delete instances; those in use only with --cascade."""
    consequence = " with all sessions and executions" if cascade else ""
    resources.confirm(instances, consequence, yes=yes)
    deleted = [await resources.delete(client, INSTANCE, each, org, cascade=cascade) for each in instances]
    client.output.records(deleted, [resources.done(INSTANCE, each.metadata, "deleted") for each in deleted])
