"""`runstream list`: lists executions, once or as they change."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from runstream.cli import tables
from runstream.cli.arguments import (
    AgentFilter,
    AllOption,
    CreatedAfterFilter,
    CreatedBeforeFilter,
    LabelFilter,
    LimitOption,
    OrgFilter,
    PageTokenOption,
    PhaseFilter,
    RetryForOption,
    SessionFilter,
    TagFilter,
)
from runstream.cli.calling import calling
from runstream.cli.client import Client, collect
from runstream.cli.failure import Misuse
from runstream.cli.filters import Filter
from runstream.cli.list_watch import ListWatch
from runstream.v1.agent_execution_pb2 import AgentExecution
from runstream.v1.agent_execution_service_pb2 import ListAgentExecutionsRequest
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC, RESOURCE_VIEW_FULL


@calling
async def list_executions(  # noqa: PLR0913 — one parameter per option
    client: Client,
    *,
    phase: PhaseFilter = None,
    agent: AgentFilter = "",
    session: SessionFilter = "",
    label: LabelFilter = None,
    tag: TagFilter = None,
    created_after: CreatedAfterFilter = "",
    created_before: CreatedBeforeFilter = "",
    org: OrgFilter = "",
    limit: LimitOption = 50,
    all_: AllOption = False,
    page_token: PageTokenOption = "",
    full: Annotated[
        bool, typer.Option("--full", help="With messages, tool calls, sub-agents and todos, in json and yaml.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", "-w", help="Then print each that changes, a line for each change, until interrupted."),
    ] = False,
    retry_for: RetryForOption = 60.0,
) -> None:
    """List executions, newest first. Whatever is asked for must hold together."""
    if watch and (page_token or full):
        raise Misuse("--watch does not go with --page-token or --full")
    now = datetime.now(UTC)
    wanted = Filter(phase, agent, session, label, tag, created_after, created_before, org)
    request = await wanted.request(client, now)
    request.view = RESOURCE_VIEW_FULL if full else RESOURCE_VIEW_BASIC
    most = None if all_ else limit
    if watch:

        async def fetch() -> list[AgentExecution]:
            return (await list_pages(client, request, most, ""))[0]

        await ListWatch(client, request, fetch, retry_for).run()
        return
    executions, rest = await list_pages(client, request, most, page_token)
    client.output.page(executions, tables.executions(now), rest)


async def list_pages(
    client: Client, request: ListAgentExecutionsRequest, limit: int | None, page_token: str
) -> tuple[list[AgentExecution], str]:
    """Return up to `limit` executions that match, all without one, and the token of the rest."""

    async def fetch(size: int, token: str) -> tuple[list[AgentExecution], str]:
        page_request = ListAgentExecutionsRequest(page_size=size, page_token=token)
        page_request.MergeFrom(request)
        page = await client.call(client.queries.List, page_request)
        return [*page.entries], page.next_page_token

    return await collect(fetch, limit, page_token)
