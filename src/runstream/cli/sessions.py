"""`runstream session`: writes sessions down, shows and deletes them."""

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
    TagFilter,
    TagsOption,
)
from runstream.cli.client import Client
from runstream.cli.failure import Failure, Misuse
from runstream.cli.kind_app import KindApp, new_metadata
from runstream.cli.kinds import AGENT, SESSION
from runstream.v1.session_pb2 import Session, SessionSpec
from runstream.v1.session_service_pb2 import ListSessionsByAgentRequest, ListSessionsRequest
from runstream.v1.session_service_pb2_grpc import SessionQueryControllerStub

_kind = KindApp(SESSION, details.session, tables.sessions)
app = _kind.app


async def create(  # noqa: PLR0913 — one parameter per option
    client: Client,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="The session's name.")] = "",
    *,
    file: OptionalFilesOption = None,
    instance: Annotated[str, typer.Option(metavar="INSTANCE", help="The slug or id of the instance it talks to.")] = "",
    agent: Annotated[str, typer.Option(metavar="AGENT", help="The agent whose default instance it talks to.")] = "",
    subject: Annotated[str, typer.Option(metavar="TEXT", help="What it is about.")] = "",
    org: OrgOption = "",
    label: LabelsOption = None,
    tag: TagsOption = None,
    idempotency_key: IdempotencyKeyOption = "",
) -> None:
    """Create sessions: one on an instance, or those of a file."""
    if sum(map(bool, (file, instance, agent))) != 1:
        raise Misuse("give one of --instance, --agent, and -f FILE")

    async def one() -> Session:
        instance_id = instance or await _default_instance(client, agent, org)
        spec = SessionSpec(agent_instance_id=instance_id, subject=subject)
        return Session(metadata=new_metadata(name, org, label, tag), spec=spec)

    await _kind.create(client, file, one, idempotency_key)


async def list_sessions(  # noqa: PLR0913 — one parameter per option
    client: Client,
    *,
    agent: Annotated[str, typer.Option(metavar="AGENT", help="Only those of this agent, a slug or an id.")] = "",
    tag: TagFilter = None,
    org: Annotated[str, typer.Option("--org", metavar="ORG", help="The agent's organization.")] = "",
    limit: LimitOption = 50,
    all_: AllOption = False,
    page_token: PageTokenOption = "",
) -> None:
    """List sessions, newest first: all, those with tags, or those of an agent."""
    if agent and tag:
        raise Misuse("--agent does not go with --tag")
    queries = SessionQueryControllerStub(client.channel)
    agent_id = await resources.identify(client, AGENT, agent, org) if agent else ""

    async def fetch(size: int, token: str) -> tuple[list[Session], str]:
        if agent_id:
            of_agent = ListSessionsByAgentRequest(agent_id=agent_id, page_size=size, page_token=token)
            page = await client.call(queries.ListByAgent, of_agent)
        else:
            of_all = ListSessionsRequest(page_size=size, page_token=token, tags=tag or ())
            page = await client.call(queries.List, of_all)
        return [*page.entries], page.next_page_token

    await _kind.show_page(client, fetch, None if all_ else limit, page_token)


async def _default_instance(client: Client, agent: str, org: str) -> str:
    """Return the id of an agent's default instance. Raises `Failure`."""
    found = await resources.find(client, AGENT, agent, org)
    if not found.status.default_instance_id:
        raise Failure(
            f"agent {agent} has no default instance yet; create one with"
            f" `runstream instance create NAME --agent {agent}`",
            code="FAILED_PRECONDITION",
        )
    return found.status.default_instance_id


_kind.add_apply(
    "Create sessions, or update those that exist; `spec.agent_instance_id` may be a slug.", "apply -f sessions.yaml"
)
_kind.command(
    create,
    "create --instance staging --subject 'The quarterly report'",
    "create --agent researcher",
    "create -f session.yaml",
)
_kind.add_get("Show a session.", "get ses_…")
_kind.command(list_sessions, "list", "list --agent researcher --all", name="list")
_kind.add_delete("Delete sessions; those with executions only with --cascade.", "executions", "delete ses_… --cascade")
