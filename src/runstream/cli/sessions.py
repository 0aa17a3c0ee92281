"""`runstream session`: writes sessions down, shows and deletes them."""

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
    TagFilter,
    TagsOption,
    YesOption,
)
from runstream.cli.calling import calling
from runstream.cli.client import Client, collect
from runstream.cli.examples import examples
from runstream.cli.failure import Failure, Misuse
from runstream.cli.kinds import AGENT, INSTANCE, SESSION
from runstream.v1.resource_pb2 import ResourceMetadata
from runstream.v1.session_pb2 import Session, SessionList, SessionSpec
from runstream.v1.session_service_pb2 import ListSessionsByAgentRequest, ListSessionsRequest
from runstream.v1.session_service_pb2_grpc import SessionQueryControllerStub

app = typer.Typer(no_args_is_help=True)

SessionArgument = Annotated[str, typer.Argument(metavar="ID", help="The session's id.")]
SessionsArgument = Annotated[list[str], typer.Argument(metavar="ID…", help="The sessions' ids.")]


@app.command(epilog=examples("runstream session apply -f sessions.yaml"))
@calling
async def apply(client: Client, *, file: FilesOption) -> None:
    """Create sessions, or update those that exist; `spec.agent_instance_id` may be a slug."""
    applied = [await resources.apply(client, SESSION, each) for each in documents.read(file)]
    client.output.records([session for session, _ in applied], [line for _, line in applied])


@app.command(
    epilog=examples(
        "runstream session create --instance staging --subject 'The quarterly report'",
        "runstream session create --agent researcher",
        "runstream session create -f session.yaml",
    )
)
@calling
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
    if file:
        sessions = [await resources.parse(client, SESSION, each) for each in documents.read(file)]
    else:
        instance_id = await _instance(client, instance, agent, org)
        labels = pairs.parse(label or (), "--label")
        metadata = ResourceMetadata(name=name, org=org, labels=labels, tags=tag or ())
        spec = SessionSpec(agent_instance_id=instance_id, subject=subject)
        sessions = [Session(metadata=metadata, spec=spec)]
    if idempotency_key and len(sessions) > 1:
        raise Misuse("--idempotency-key is for one session")
    created = [await resources.create(client, SESSION, each, idempotency_key) for each in sessions]
    client.output.records(created, [resources.done(SESSION, each.metadata, "created") for each in created])


@app.command(epilog=examples("runstream session get ses_…"))
@calling
async def get(client: Client, session: SessionArgument) -> None:
    """Show a session."""
    found = await resources.find(client, SESSION, session)
    client.output.record(found, details.session(found))


@app.command(
    "list",
    epilog=examples("runstream session list", "runstream session list --agent researcher --all"),
)
@calling
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
        page = await _page(
            client, queries, agent_id, ListSessionsRequest(page_size=size, page_token=token, tags=tag or ())
        )
        return [*page.entries], page.next_page_token

    sessions, rest = await collect(fetch, None if all_ else limit, page_token)
    client.output.page(sessions, tables.sessions(datetime.now(UTC)), rest)


@app.command(epilog=examples("runstream session delete ses_… --cascade"))
@calling
async def delete(
    client: Client,
    sessions: SessionsArgument,
    *,
    cascade: CascadeOption = False,
    yes: YesOption = False,
) -> None:
    """Delete sessions; those with executions only with --cascade."""
    resources.confirm(sessions, " with all executions" if cascade else "", yes=yes)
    deleted = [await resources.delete(client, SESSION, each, "", cascade=cascade) for each in sessions]
    client.output.records(deleted, [resources.done(SESSION, each.metadata, "deleted") for each in deleted])


async def _instance(client: Client, instance: str, agent: str, org: str) -> str:
    """Return the id of the instance, or of the agent's default one. Raises `Failure`."""
    if instance:
        return await resources.identify(client, INSTANCE, instance, org)
    found = await resources.find(client, AGENT, agent, org)
    if not found.status.default_instance_id:
        raise Failure(
            f"agent {agent} has no default instance yet; create one with"
            f" `runstream instance create NAME --agent {agent}`",
            code="FAILED_PRECONDITION",
        )
    return found.status.default_instance_id


async def _page(
    client: Client,
    queries: SessionQueryControllerStub,
    agent_id: str,
    request: ListSessionsRequest,
) -> SessionList:
    if not agent_id:
        return await client.call(queries.List, request)
    of_agent = ListSessionsByAgentRequest(agent_id=agent_id, page_size=request.page_size, page_token=request.page_token)
    return await client.call(queries.ListByAgent, of_agent)
