"""Calling: makes a command out of a coroutine that takes a client.

The command takes the connection options too, opens the channel, and ends with an exit code, whatever happened.
"""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from dataclasses import fields
from functools import wraps
from typing import Concatenate, NoReturn, ParamSpec

import typer
from grpc.aio import AioRpcError

from runstream.cli.client import Client
from runstream.cli.connection import (
    CaOption,
    CertOption,
    Connection,
    KeyOption,
    OutputOption,
    ServerOption,
    TimeoutOption,
    TlsOption,
)
from runstream.cli.exit_codes import ExitCode
from runstream.cli.failure import Failure, of_call
from runstream.cli.output import Output

P = ParamSpec("P")
Body = Callable[Concatenate[Client, P], Coroutine[None, None, ExitCode | None]]

_NAMES = tuple(field.name for field in fields(Connection))


def connection_options(  # noqa: PLR0913 — one parameter per option
    *,
    server: ServerOption = None,
    tls: TlsOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    output: OutputOption = None,
    timeout: TimeoutOption = None,
) -> Connection:
    """Return what the connection options say; every calling command takes them."""
    return Connection(server, tls, ca, cert, key, output, timeout)


def calling(body: Body[P], *, without: frozenset[str] = frozenset()) -> Callable[..., None]:
    """Make a command of `body`; its first parameter is the client, the others are the command's own.

    It takes no connection option that is named in `without`.
    """

    @wraps(body)
    def command(context: typer.Context, **values: object) -> None:
        own = {name: values.pop(name) for name in _NAMES if name not in without}
        connection = Connection(**own).under(context.obj)  # type: ignore[arg-type]
        end(connection, lambda: asyncio.run(_call(connection, lambda client: body(client, **values))))  # type: ignore[arg-type, call-arg]

    command.__signature__ = _signature(body, without)  # type: ignore[attr-defined]
    return command


def _signature(body: Callable[..., object], without: frozenset[str]) -> inspect.Signature:
    """Return the parameters of the context, of the body but the client, and of the connection."""
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    own = [*inspect.signature(body, eval_str=True).parameters.values()][1:]
    shared = inspect.signature(connection_options, eval_str=True).parameters.values()
    return inspect.Signature([context, *own, *(each for each in shared if each.name not in without)])


def end(connection: Connection, body: Callable[[], ExitCode | None]) -> NoReturn:
    """Do what a command does and end with its exit code; what went wrong is told. Raises `typer.Exit`."""
    try:
        code = body() or ExitCode.DONE
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except Failure as failure:
        code = _fail(connection, failure)
    except AioRpcError as error:
        code = _fail(connection, of_call(error, connection))
    raise typer.Exit(code)


async def _call(
    connection: Connection, body: Callable[[Client], Coroutine[None, None, ExitCode | None]]
) -> ExitCode | None:
    async with connection.open() as channel:
        return await body(Client(connection, channel))


def _fail(connection: Connection, failure: Failure) -> ExitCode:
    Output(connection.format).fail(failure)
    return failure.exit_code
