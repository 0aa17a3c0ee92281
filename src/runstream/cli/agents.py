"""`runstream agent`: writes agents down, shows and deletes them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from runstream.cli import details, documents, pairs, resources, tables
from runstream.cli.arguments import (
    AllOption,
    CascadeOption,
    FilesOption,
    IdempotencyKeyOption,
    LabelFilter,
    LabelsOption,
    LimitOption,
    OptionalFilesOption,
    OrgFilter,
    OrgOption,
    PageTokenOption,
    TagFilter,
    TagsOption,
    YesOption,
)
from runstream.cli.calling import calling
from runstream.cli.client import Client, collect
from runstream.cli.examples import examples
from runstream.cli.failure import Misuse
from runstream.cli.kinds import AGENT
from runstream.v1.agent_pb2 import Agent, AgentSpec
from runstream.v1.agent_service_pb2 import ListAgentsRequest
from runstream.v1.agent_service_pb2_grpc import AgentQueryControllerStub
from runstream.v1.resource_pb2 import ResourceMetadata

app = typer.Typer(no_args_is_help=True)

AgentArgument = Annotated[str, typer.Argument(metavar="AGENT", help="The agent's slug or id.")]
AgentsArgument = Annotated[list[str], typer.Argument(metavar="AGENT…", help="The agents' slugs or ids.")]


@app.command(epilog=examples("runstream agent apply -f agents.yaml"))
@calling
async def apply(client: Client, *, file: FilesOption) -> None:
    """Create agents, or update those whose slugs exist."""
    applied = [await resources.apply(client, AGENT, each) for each in documents.read(file)]
    client.output.records([agent for agent, _ in applied], [line for _, line in applied])


@app.command(
    epilog=examples(
        'runstream agent create researcher --instructions "Find out, then answer."',
        "runstream agent create -f agent.yaml",
    )
)
@calling
async def create(  # noqa: PLR0913 — one parameter per option
    client: Client,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="The agent's name.")] = "",
    *,
    file: OptionalFilesOption = None,
    instructions: Annotated[str, typer.Option(metavar="TEXT", help="What it is told to do: its system prompt.")] = "",
    instructions_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Take the instructions from a file."),
    ] = None,
    description: Annotated[str, typer.Option(metavar="TEXT", help="What it is for.")] = "",
    org: OrgOption = "",
    label: LabelsOption = None,
    tag: TagsOption = None,
    idempotency_key: IdempotencyKeyOption = "",
) -> None:
    """Create agents: one by its name, or those of a file."""
    if bool(name) == bool(file):
        raise Misuse("give either the NAME of the agent, or -f FILE")
    if file:
        agents = [await resources.parse(client, AGENT, each) for each in documents.read(file)]
    else:
        spec = AgentSpec(description=description, instructions=instructions)
        if instructions_file:
            spec.instructions = documents.read_text(instructions_file)
        labels = pairs.parse(label or (), "--label")
        metadata = ResourceMetadata(name=name, org=org, labels=labels, tags=tag or ())
        agents = [Agent(metadata=metadata, spec=spec)]
    if idempotency_key and len(agents) > 1:
        raise Misuse("--idempotency-key is for one agent")
    created = [await resources.create(client, AGENT, each, idempotency_key) for each in agents]
    client.output.records(created, [resources.done(AGENT, agent.metadata, "created") for agent in created])


@app.command(epilog=examples("runstream agent get researcher", "runstream agent get agt_… -o yaml"))
@calling
async def get(client: Client, agent: AgentArgument, *, org: OrgOption = "") -> None:
    """Show an agent."""
    found = await resources.find(client, AGENT, agent, org)
    client.output.record(found, details.agent(found))


@app.command(
    "list",
    epilog=examples("runstream agent list", "runstream agent list --label team=web --all -o json"),
)
@calling
async def list_agents(  # noqa: PLR0913 — one parameter per option
    client: Client,
    *,
    label: LabelFilter = None,
    tag: TagFilter = None,
    org: OrgFilter = "",
    limit: LimitOption = 50,
    all_: AllOption = False,
    page_token: PageTokenOption = "",
) -> None:
    """List agents, newest first."""
    queries = AgentQueryControllerStub(client.channel)
    labels = pairs.parse(label or (), "--label")

    async def fetch(size: int, token: str) -> tuple[list[Agent], str]:
        request = ListAgentsRequest(page_size=size, page_token=token, tags=tag or (), labels=labels, org=org)
        page = await client.call(queries.List, request)
        return [*page.entries], page.next_page_token

    agents, rest = await collect(fetch, None if all_ else limit, page_token)
    client.output.page(agents, tables.agents(datetime.now(UTC)), rest)


@app.command(epilog=examples("runstream agent delete researcher", "runstream agent delete old --cascade -y"))
@calling
async def delete(
    client: Client,
    agents: AgentsArgument,
    *,
    org: OrgOption = "",
    cascade: CascadeOption = False,
    yes: YesOption = False,
) -> None:
    """Delete agents; those in use only with --cascade."""
    consequence = " with all instances, sessions and executions" if cascade else ""
    resources.confirm(agents, consequence, yes=yes)
    deleted = [await resources.delete(client, AGENT, each, org, cascade=cascade) for each in agents]
    client.output.records(deleted, [resources.done(AGENT, agent.metadata, "deleted") for agent in deleted])
