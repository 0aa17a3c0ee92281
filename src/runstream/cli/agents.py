"""`runstream agent`: writes agents down, shows and deletes them."""

from pathlib import Path
from typing import Annotated

import typer

from runstream.cli import details, documents, pairs, tables
from runstream.cli.arguments import (
    AllOption,
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
)
from runstream.cli.client import Client
from runstream.cli.failure import Misuse
from runstream.cli.kind_app import KindApp, new_metadata
from runstream.cli.kinds import AGENT
from runstream.v1.agent_pb2 import Agent, AgentSpec
from runstream.v1.agent_service_pb2 import ListAgentsRequest
from runstream.v1.agent_service_pb2_grpc import AgentQueryControllerStub

_kind = KindApp(AGENT, details.agent, tables.agents)
app = _kind.app


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

    async def one() -> Agent:
        spec = AgentSpec(description=description, instructions=instructions)
        if instructions_file:
            spec.instructions = documents.read_text(instructions_file)
        return Agent(metadata=new_metadata(name, org, label, tag), spec=spec)

    await _kind.create(client, file, one, idempotency_key)


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

    await _kind.show_page(client, fetch, None if all_ else limit, page_token)


_kind.add_apply("Create agents, or update those whose slugs exist.", "apply -f agents.yaml")
_kind.command(create, 'create researcher --instructions "Find out, then answer."', "create -f agent.yaml")
_kind.add_get("Show an agent.", "get researcher", "get agt_… -o yaml")
_kind.command(list_agents, "list", "list --label team=web --all -o json", name="list")
_kind.add_delete(
    "Delete agents; those in use only with --cascade.",
    "instances, sessions and executions",
    *("delete researcher", "delete old --cascade -y"),
)
