"""The command `runstream`: everything it can do, and how it ends."""

import os
import sys
from typing import Annotated

import typer

from runstream.cli import agents, executions, instances, sessions
from runstream.cli.apply import apply
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
from runstream.cli.examples import examples
from runstream.cli.exit_codes import MEANINGS, ExitCode
from runstream.cli.listing import list_executions
from runstream.cli.plain_text import clean
from runstream.cli.run import run
from runstream.cli.serve import serve
from runstream.cli.watch import watch

_EXECUTIONS = "Executions"
_RESOURCES = "Agents, instances and sessions"
_SERVER = "Server"

_EXIT_CODES = "\n".join(("[bold]Exit codes[/bold]", *(f"{code.value:>3}  {text}" for code, text in MEANINGS.items())))

app = typer.Typer(
    name="runstream",
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog=_EXIT_CODES,
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 — as typer calls it
    if wanted:
        # Slow to load, and needed here alone.
        from importlib.metadata import version as installed_version  # noqa: PLC0415

        typer.echo(f"runstream {installed_version('runstream')}")
        raise typer.Exit


@app.callback()
def set_connection(  # noqa: PLR0913 — one parameter per option
    context: typer.Context,
    *,
    server: ServerOption = None,
    tls: TlsOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    output: OutputOption = None,
    timeout: TimeoutOption = None,
    version: Annotated[  # noqa: ARG001 — its callback does it all
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Run AI agents: create executions, follow them live, lose nothing."""
    given = Connection(server, tls, ca, cert, key, output, timeout)
    context.obj = given.under(Connection(server=os.environ.get("RUNSTREAM_SERVER") or None))


app.command(
    rich_help_panel=_EXECUTIONS,
    epilog=examples(
        'runstream run researcher "What changed in the news today?"',
        'runstream run researcher "And yesterday?" --session ses_…',
        'runstream run deployer "Ship it" --env STAGE=prod --secret TOKEN --detach',
        "runstream run -f execution.yaml -o json",
    ),
)(run)
app.command(
    rich_help_panel=_EXECUTIONS,
    epilog=examples(
        "runstream watch aex_…",
        "runstream watch aex_… --changes -o json",
        "runstream watch aex_… --from-revision 12",
    ),
)(watch)
app.command(
    "list",
    rich_help_panel=_EXECUTIONS,
    epilog=examples(
        "runstream list",
        "runstream list --phase in-progress --agent researcher --created-after 2h",
        "runstream list --label team=web --all -o json",
        "runstream list --watch",
    ),
)(list_executions)
app.command(rich_help_panel=_EXECUTIONS, epilog=examples("runstream get aex_…", "runstream get aex_… -o json"))(
    executions.get
)
app.command(rich_help_panel=_EXECUTIONS, epilog=examples('runstream cancel aex_… --reason "no longer needed"'))(
    executions.cancel
)
app.command(rich_help_panel=_EXECUTIONS, epilog=examples('runstream terminate aex_… --reason "runaway"'))(
    executions.terminate
)
app.command(
    rich_help_panel=_EXECUTIONS,
    epilog=examples(
        "runstream status aex_… --phase in-progress",
        """runstream status aex_… --data '{"messages": [{"id": "m1", "content_append": "Hi"}]}'""",
        "runstream status aex_… -f delta.yaml --sequence 7 --replace todos",
    ),
)(executions.status)
app.command(
    rich_help_panel=_EXECUTIONS, epilog=examples("runstream delete aex_…", "runstream delete aex_… aex_… --yes")
)(executions.delete)

app.command(
    rich_help_panel=_RESOURCES,
    epilog=examples("runstream apply -f agents.yaml", "cat *.yaml | runstream apply -f -"),
)(apply)
app.add_typer(agents.app, name="agent", help="Agents: what can be run.", rich_help_panel=_RESOURCES)
app.add_typer(
    instances.app, name="instance", help="Instances: an agent with its environment.", rich_help_panel=_RESOURCES
)
app.add_typer(
    sessions.app, name="session", help="Sessions: conversations with an instance.", rich_help_panel=_RESOURCES
)

app.command(
    rich_help_panel=_SERVER,
    epilog=examples(
        "runstream serve",
        "runstream serve --listen 127.0.0.1:0 --data /var/lib/runstream",
        "runstream serve --listen 0.0.0.0:7400 --tls-cert server.pem --tls-key server.key --tls-client-ca ca.pem",
    ),
)(serve)


def main() -> None:
    """Run the command line; never returns."""
    # What the gRPC core logs about lost connections is told by the commands themselves.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if not all(_is_text(argument) for argument in sys.argv):
        typer.echo("error: an argument is not UTF-8 text", err=True)
        sys.exit(ExitCode.USAGE)
    try:
        app(prog_name="runstream")
    except Exception as error:
        if os.environ.get("RUNSTREAM_TRACEBACK"):
            raise
        _report(error)
        sys.exit(ExitCode.CALL_FAILED)


def _is_text(argument: str) -> bool:
    """Tell whether an argument came as UTF-8; Python marks the bytes of one that did not."""
    return not any("\ud800" <= char <= "\udfff" for char in argument)


def _report(error: Exception) -> None:
    """Tell of an error that no command expects: of the system, or in the command line itself."""
    if isinstance(error, OSError):
        typer.echo(f"error: {clean(str(error))}", err=True)
        return
    typer.echo(f"error: unexpected {type(error).__name__}: {clean(str(error))}", err=True)
    typer.echo("  hint: this is a bug; RUNSTREAM_TRACEBACK=1 shows where", err=True)


if __name__ == "__main__":
    main()
