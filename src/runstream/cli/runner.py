"""`runstream runner`: serves agents, which are functions of a person's own module."""

import logging
from typing import Annotated

import typer

from runstream.cli import importing, pairs
from runstream.cli.arguments import OrgOption
from runstream.cli.calling import end
from runstream.cli.connection import (
    CaOption,
    CertOption,
    Connection,
    KeyOption,
    ServerOption,
    TlsOption,
)
from runstream.cli.failure import Failure, Misuse


def runner(  # noqa: PLR0913 — one parameter per option
    context: typer.Context,
    *,
    paths: Annotated[
        list[str],
        typer.Option(
            "--import",
            metavar="MODULE:ATTRIBUTE",
            help="What to serve: a dict of agents, functions by their names, or one function; can be repeated. The"
            " module is looked for in the current folder first.",
        ),
    ],
    agent: Annotated[
        list[str] | None,
        typer.Option(
            "--agent",
            metavar="NAME",
            help="Serve this one alone; can be repeated. Of one function: its agent's name, else it is the function's"
            " own.",
        ),
    ] = None,
    capacity: Annotated[
        int, typer.Option(min=1, max=10_000, metavar="N", help="How many executions to work on at a time.")
    ] = 8,
    drain_timeout: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="How long to wait for what is running when asked to stop."),
    ] = 30.0,
    register: Annotated[
        bool, typer.Option("--register/--no-register", help="Create the agents that the server does not know.")
    ] = True,
    org: OrgOption = "",
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", metavar="KEY=VALUE", help="What people should know of it; can be repeated."),
    ] = None,
    server: ServerOption = None,
    tls: TlsOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
) -> None:
    """Serve agents: work on their executions as the server assigns them.

    SIGTERM or Ctrl-C lets what is running end, up to --drain-timeout; a second one gives it back to the server at
    once. When the server is away, it goes on and reports once it is back.
    """
    connection = Connection(server, tls, ca, cert, key).under(context.obj)

    def serve() -> None:
        connection.check()
        agents = importing.agents_of_all(paths, agent or ())
        labels = pairs.parse(label or (), "--label")
        # An agent's machinery is loaded here, and only here.
        from runstream.runner import Runner, RunnerRefused  # noqa: PLC0415

        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        try:
            made = Runner(
                connection.address,
                agents,
                capacity=capacity,
                drain_timeout=drain_timeout,
                register=register,
                org=org,
                labels=labels,
                credentials=connection.credentials(),
            )
        except ValueError as error:
            raise Misuse(f"--import {' '.join(paths)}: {error}") from None
        try:
            made.run()
        except RunnerRefused as refused:
            raise Failure(str(refused), code="REFUSED") from None

    end(connection, serve)
