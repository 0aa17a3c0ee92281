"""The command line of `runstream serve` alone: a server does not wait for commands that it has no use for."""

from __future__ import annotations

import typer

from runstream.cli.help_texts import add_command
from runstream.cli.serve import serve


def add_serve(app: typer.Typer, *, panel: str) -> None:
    """Add the command to a command line."""
    add_command(
        app,
        serve,
        "runstream serve",
        "runstream serve --listen 127.0.0.1:0 --data /var/lib/runstream/data",
        "runstream serve --listen 0.0.0.0:7400 --tls-cert server.pem --tls-key server.key --tls-client-ca ca.pem",
        panel=panel,
    )


app = typer.Typer(
    name="runstream",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
add_serve(app, panel="Server and runners")


@app.callback()
def _several_commands() -> None:
    """Keep the name of the command a part of the line, though it is the only one here."""
