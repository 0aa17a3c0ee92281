"""Transfers between real servers, by the command line's own parts: what one has exported, another one takes in."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from runstream.cli.client import Client as CommandClient
from runstream.cli.connection import Connection
from runstream.cli.export import Exporter
from runstream.cli.intake import Intake
from runstream.cli.transfer import FORMAT, HEADER, TransferWriter, line_of
from runstream.v1.agent_execution_service_pb2 import ListAgentExecutionsRequest
from runstream.v1.transfer_pb2 import LIVE_IMPORT_UNSPECIFIED, ImportExecutionRequest
from runstream.v1.transfer_pb2_grpc import TransferControllerStub
from tests.asking import changes

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from runstream.v1.agent_execution_pb2 import ExecutionChange
    from runstream.v1.transfer_pb2 import LiveImport
    from tests.serving import Client


def command_client(client: Client) -> CommandClient:
    """The command line's client on the channel of a test's."""
    return CommandClient(Connection(), client.channel)


async def everything(client: Client) -> list[str]:
    """The ids of all executions, oldest first."""
    listed = await client.queries.List(ListAgentExecutionsRequest(page_size=1000))
    assert not listed.next_page_token
    return [entry.metadata.id for entry in listed.entries][::-1]


async def exported(client: Client, ids: Sequence[str] | None = None) -> bytes:
    """Export executions, all without ids; the header is the same for all servers."""
    file = io.BytesIO()
    writer = TransferWriter(file)
    writer.write(line_of({HEADER: {"format": FORMAT}}))
    exporter = Exporter(command_client(client), writer, 0.0)
    for execution_id in await everything(client) if ids is None else ids:
        await exporter.export(execution_id)
    assert exporter.left_out == 0
    writer.end()
    return file.getvalue()


async def imported(
    client: Client,
    data: bytes,
    live: LiveImport.ValueType = LIVE_IMPORT_UNSPECIFIED,
    *,
    keep: bool = False,
    retry_for: float = 0.0,
) -> Counter[str]:
    """Import what was exported; return the counts."""
    intake = Intake(command_client(client), io.BytesIO(data), "test", live, retry_for, keep=keep)
    async for _ in intake.take_all():
        pass
    return intake.counts


def stub(client: Client) -> TransferControllerStub:
    """The stub of the transfer service."""
    return TransferControllerStub(client.channel)


async def log_of(client: Client, execution_id: str) -> list[ExecutionChange]:
    """The whole log of an execution."""
    return await changes(client, execution_id)


def piece(
    log: Sequence[ExecutionChange],
    after: int = 0,
    *,
    last: bool = True,
    live: LiveImport.ValueType = LIVE_IMPORT_UNSPECIFIED,
) -> ImportExecutionRequest:
    """A request with changes of a log that stand behind a revision."""
    return ImportExecutionRequest(
        execution_id=log[0].execution_id,
        after_revision=after,
        changes=[change.SerializeToString() for change in log],
        last=last,
        live=live,
    )
