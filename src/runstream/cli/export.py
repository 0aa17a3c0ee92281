"""`runstream export`: writes executions with their whole logs into a file that `import` takes."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import IO, Annotated, Final

import grpc
import typer
from grpc.aio import AioRpcError

from runstream.cli.arguments import (
    AgentFilter,
    CreatedAfterFilter,
    CreatedBeforeFilter,
    LabelFilter,
    OrgFilter,
    PhaseFilter,
    RetryForOption,
    SessionFilter,
    TagFilter,
)
from runstream.cli.calling import calling
from runstream.cli.client import Client
from runstream.cli.exit_codes import ExitCode
from runstream.cli.failure import Failure, Misuse
from runstream.cli.filters import Filter
from runstream.cli.follow import Follower
from runstream.cli.kinds import AGENT, INSTANCE, SESSION, Kind, R
from runstream.cli.listing import list_pages
from runstream.cli.phases import phase_name
from runstream.cli.progress_bar import progress_bar
from runstream.cli.transfer import FORMAT, HEADER, TransferWriter, line_of, plain
from runstream.v1.agent_execution_pb2 import AgentExecution, ExecutionChange
from runstream.v1.agent_execution_service_pb2 import GetAgentExecutionRequest, ListAgentExecutionsRequest
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC, ResourceId

#: What the server says of one execution alone; anything else ends the export.
_OF_ONE: Final = frozenset({grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS})
#: How much of a log is held in memory before it goes into a temporary file.
_IN_MEMORY: Final = 8 << 20


@partial(calling, without=frozenset({"output"}))
async def export(  # noqa: PLR0913 — one parameter per option
    client: Client,
    executions: Annotated[
        list[str] | None, typer.Argument(metavar="[ID…]", help="The executions' ids; all that match without any.")
    ] = None,
    *,
    phase: PhaseFilter = None,
    agent: AgentFilter = "",
    session: SessionFilter = "",
    label: LabelFilter = None,
    tag: TagFilter = None,
    created_after: CreatedAfterFilter = "",
    created_before: CreatedBeforeFilter = "",
    org: OrgFilter = "",
    file: Annotated[
        str, typer.Option("--out", "-o", metavar="FILE", help="The file to write; `-` is the standard output.")
    ] = "-",
    retry_for: RetryForOption = 60.0,
) -> ExitCode:
    """Write executions, with everything that happened to them, as lines of JSON that `runstream import` takes.

    Agents, instances and sessions that they refer to are in the file too. Values of secrets are not: the server shows
    them to nobody. An execution that goes on is exported up to what it is now. A file appears whole or not at all.
    """
    wanted = Filter(phase, agent, session, label, tag, created_after, created_before, org)
    if executions and not wanted.is_empty:
        raise Misuse("give ids or filters, not both")
    now = datetime.now(UTC)
    request = await wanted.request(client, now)
    ids = sorted(set(executions)) if executions else await _matching(client, request)
    header: dict[str, object] = {
        "format": FORMAT,
        "version": installed_version("runstream"),
        "server": client.connection.address,
        "time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    header |= {"ids": ids} if executions else {"filter": plain(request)}
    with progress_bar(client.output) as progress, _target(file) as target:
        writer = TransferWriter(target)
        writer.write(line_of({HEADER: header}))
        exporter = Exporter(client, writer, retry_for)
        for number, execution_id in enumerate(ids, start=1):
            await exporter.export(execution_id)
            progress("executions", number, len(ids))
        writer.end()
    counts = writer.counts
    client.output.note(f"exported {counts['execution']} executions with {counts['change']} changes")
    if exporter.left_out:
        client.output.note(f"left out {exporter.left_out}, as told above")
    return ExitCode.CALL_FAILED if exporter.left_out else ExitCode.DONE


class Exporter:
    """Writes executions, each after what it refers to."""

    def __init__(self, client: Client, writer: TransferWriter, retry_for: float) -> None:
        """Call through `client`; a lost connection is resumed for `retry_for` seconds."""
        self._client = client
        self._writer = writer
        self._retry_for = retry_for
        self._written: set[str] = set()
        #: How many executions could not be exported.
        self.left_out = 0

    async def export(self, execution_id: str) -> None:
        """Write one execution; one that is gone or cannot be read is told and left out."""
        try:
            await self._export(execution_id)
        except AioRpcError as error:
            if error.code() not in _OF_ONE:
                raise
            self.left_out += 1
            self._client.output.note(f"{execution_id} is left out: {error.details()}")

    async def _export(self, execution_id: str) -> None:
        found = await self._get(execution_id)
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as log:
            await self._read_log(execution_id, found.metadata.revision, log.write)
            described = {
                "id": execution_id,
                "revision": found.metadata.revision,
                "phase": phase_name(found.status.phase),
                "parent_deleted": await self._parent_is_deleted(found),
            }
            for kind, line in await self._resources(found):
                self._writer.write(line, kind)
            self._writer.write(line_of({"execution": described}), "execution")
            log.seek(0)
            for line in log:
                self._writer.write(line, "change")
        self._written.add(execution_id)

    async def _get(self, execution_id: str) -> AgentExecution:
        request = GetAgentExecutionRequest(value=execution_id, view=RESOURCE_VIEW_BASIC)
        return await self._client.call(self._client.queries.Get, request)

    async def _read_log(self, execution_id: str, last: int, take: Callable[[bytes], object]) -> None:
        """Follow the log up to a revision: one that has not ended would be followed for ever."""
        follower = Follower(self._client, execution_id, 0, from_snapshot=False, retry_for=self._retry_for)
        async with aclosing(follower.happenings()) as happenings:
            async for happening in happenings:
                if isinstance(happening, ExecutionChange):
                    take(line_of({"change": plain(happening)}))
                    if happening.revision >= last:
                        return

    async def _parent_is_deleted(self, execution: AgentExecution) -> bool:
        parent_id = execution.spec.context.parent_execution_id
        if not parent_id or parent_id in self._written:
            return False
        try:
            await self._get(parent_id)
        except AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return True
        return False

    async def _resources(self, execution: AgentExecution) -> list[tuple[str, bytes]]:
        """Return the lines of what an execution refers to that is not written yet."""
        lines: list[tuple[str, bytes]] = []
        spec = execution.spec
        if spec.agent_id not in self._written:
            lines.append(await self._agent(spec.agent_id))
        if spec.session_id and spec.session_id not in self._written:
            session = await self._named(SESSION, spec.session_id)
            if session.spec.agent_instance_id not in self._written:
                instance = await self._named(INSTANCE, session.spec.agent_instance_id)
                lines.append(("agent_instance", line_of({"agent_instance": plain(instance)})))
            lines.append(("session", line_of({"session": plain(session)})))
        return lines

    async def _agent(self, agent_id: str) -> tuple[str, bytes]:
        """Return the line of an agent and its default instance: each names the other, so they belong together."""
        agent = await self._named(AGENT, agent_id)
        value = {"agent": plain(agent)}
        if agent.status.default_instance_id:
            value["default_instance"] = plain(await self._named(INSTANCE, agent.status.default_instance_id))
        return "agent", line_of(value)

    async def _named(self, kind: Kind[R], resource_id: str) -> R:
        """Return a resource that is about to be written."""
        found = await self._client.call(kind.queries(self._client.channel).Get, ResourceId(value=resource_id))
        self._written.add(resource_id)
        return found


async def _matching(client: Client, request: ListAgentExecutionsRequest) -> list[str]:
    """Return the ids of what matches, oldest first: a parent is older than its sub-executions."""
    request.view = RESOURCE_VIEW_BASIC
    found, token = [], ""
    while True:
        page, token = await list_pages(client, request, 1_000, token)
        found += [entry.metadata.id for entry in page]
        if not token:
            request.ClearField("view")
            return found[::-1]


@contextmanager
def _target(file: str) -> Iterator[IO[bytes]]:
    """Open what is written to; a file gets its name when all of it is on disk, and none is written over."""
    if file == "-":
        yield sys.stdout.buffer
        return
    path = Path(file)
    if path.exists():
        raise Failure(f"{path} exists, and is not written over", reason="TARGET_TAKEN")
    partial_path = path.with_name(f".{path.name}.{os.getpid()}.exporting")
    try:
        # What agents were told and said is its owner's alone to read.
        with open(os.open(partial_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:  # noqa: PTH123
            yield target
            target.flush()
            os.fsync(target.fileno())
        os.link(partial_path, path)
    except FileExistsError:
        raise Failure(f"{path} exists, and is not written over", reason="TARGET_TAKEN") from None
    finally:
        partial_path.unlink(missing_ok=True)
