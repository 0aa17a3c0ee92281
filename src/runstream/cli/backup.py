"""`runstream backup`: all that a server keeps, or a data folder without one, in one file."""

import asyncio
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from grpc.aio import AioRpcError

from runstream.cli.calling import end
from runstream.cli.connection import (
    CaOption,
    CertOption,
    Connection,
    KeyOption,
    OutputOption,
    ServerOption,
    TlsOption,
)
from runstream.cli.exit_codes import ExitCode
from runstream.cli.failure import Failure, Misuse, is_lost_connection, of_call, retry_after
from runstream.cli.folders import failures, mib, opened
from runstream.cli.output import Output
from runstream.cli.progress_bar import progress_bar
from runstream.model.times import to_datetime, to_rfc3339
from runstream.v1.backup_pb2 import BackupRequest, BackupTotals
from runstream.v1.backup_pb2_grpc import BackupControllerStub

if TYPE_CHECKING:
    from runstream.care.archive import ArchiveHead
    from runstream.care.backup import Incoming
    from runstream.care.examination import Progress

DataArgument = Annotated[
    Path | None,
    typer.Argument(metavar="DATA", help="A data folder that no server runs on; without it, a server is asked."),
]
FileArgument = Annotated[Path | None, typer.Argument(metavar="FILE", help="The file to write; there must be none.")]

#: The options of the connection that are of no use without a server.
_OF_A_SERVER: Final = ("server", "tls", "ca", "cert", "key")
_WAYS: Final = (
    "`runstream backup --server HOST:PORT FILE` writes what a server keeps,"
    " `runstream backup DATA FILE` a data folder that no server runs on"
)


def backup(  # noqa: PLR0913 — one parameter per option
    context: typer.Context,
    data: DataArgument = None,
    file: FileArgument = None,
    *,
    server: ServerOption = None,
    tls: TlsOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    output: OutputOption = None,
) -> None:
    """Write all that a server keeps into one file, compressed and with check sums, while it goes on.

    With DATA it is a data folder instead, and no server may run on that. The file is one state: all that was
    acknowledged before, and of every command all or nothing. It holds everything, secrets included; only its owner can
    read it. It appears whole or not at all.
    """
    given = Connection(server, tls, ca, cert, key, output)
    connection = given.under(context.obj)

    def body() -> None:
        folder, target = _places(data, file)
        if folder is not None:
            _check_no_server(given.under(_of_program(context)))
        shown = Output(connection.format)
        with progress_bar(shown) as progress:
            if folder is None:
                head = asyncio.run(_receive(connection, target, progress))
            else:
                head = _read(folder, target, progress)
        size = target.stat().st_size
        told = f"wrote {head.keys} keys, {mib(head.bytes)}, into {target}, {mib(size)}"
        shown.value({"file": str(target), "keys": head.keys, "bytes": head.bytes, "file_bytes": size}, told)

    end(connection, body)


def _places(first: Path | None, second: Path | None) -> tuple[Path | None, Path]:
    """Return the folder to read, None for what a server keeps, and the file to write, which one path alone is."""
    if first is None:
        raise Misuse(f"the file to write is missing: {_WAYS}")
    if second is not None:
        return first, second
    if first.is_dir():
        raise Misuse(f"{first} is a folder, and the file to write is missing: {_WAYS}")
    return None, first


def _of_program(context: typer.Context) -> Connection:
    """Return the options before the command's name, without what the environment says."""
    said = context.find_root().params
    return Connection(**{name: said.get(name) for name in _OF_A_SERVER})


def _check_no_server(asked: Connection) -> None:
    for name in _OF_A_SERVER:
        if getattr(asked, name) is not None:
            raise Misuse(f"--{name} and DATA do not go together: {_WAYS}")


def _read(data: Path, file: Path, progress: "Progress") -> "ArchiveHead":
    """Back up a folder."""
    from runstream.care.backup import backup as write  # noqa: PLC0415 — as in `failures`

    def while_served(address: str) -> str:
        command = shlex.join(["runstream", "backup", "--server", address, str(file)])
        return f"while it runs, `{command}` backs up what it keeps"

    with opened(data, "backup", while_served) as folder:
        return write(folder, file, datetime.now(UTC), progress)


async def _receive(connection: Connection, file: Path, progress: "Progress") -> "ArchiveHead":
    """Back up what a server keeps."""
    from runstream.care.backup import Incoming, new_file  # noqa: PLC0415 — as in `failures`

    async with connection.open() as channel:
        with failures(), new_file(file) as target:
            incoming = Incoming(target)
            try:
                head = await _take(incoming, BackupControllerStub(channel), progress, connection.seconds)
            except AioRpcError as error:
                raise _broken_off(error, connection, incoming.keys) from None
            incoming.finish(head)
    return head


def _broken_off(error: AioRpcError, connection: Connection, keys: int) -> Failure:
    """Return why the stream has ended before its end."""
    told = of_call(error, connection)
    if told.reason or not keys or not is_lost_connection(error):
        return told
    message = f"the connection to {connection.address} was lost after {keys} keys; nothing was written"
    return Failure(message, code=told.code, hint="begin again", exit_code=ExitCode.UNREACHABLE)


async def _take(
    incoming: "Incoming", stub: BackupControllerStub, progress: "Progress", seconds: float
) -> "ArchiveHead":
    """Take a backup; ask again for `seconds` while the server is at a limit and says when to try."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        try:
            return await _fill(incoming, stub, progress)
        except AioRpcError as error:
            delay = retry_after(error)  # said before anything is sent, so nothing has come in
            if delay is None or loop.time() + delay >= end:
                raise
        await asyncio.sleep(delay)


async def _fill(incoming: "Incoming", stub: BackupControllerStub, progress: "Progress") -> "ArchiveHead":
    """Take in all that the server sends; return what it says that this was."""
    from runstream.care.archive import ArchiveHead, DamagedArchive  # noqa: PLC0415 — as in `failures`

    totals: BackupTotals | None = None
    async for chunk in stub.Backup(BackupRequest()):
        if totals is not None:
            raise DamagedArchive("the server has sent something behind its end")
        incoming.add(chunk.keys, chunk.values)
        progress("receiving", incoming.keys, None)
        totals = chunk.totals if chunk.HasField("totals") else None
    if totals is None:
        raise DamagedArchive("the server has not sent its end")
    created = to_rfc3339(to_datetime(totals.create_time))
    return ArchiveHead(created=created, keys=totals.entries, bytes=totals.bytes, format=totals.format)
