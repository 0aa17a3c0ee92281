"""The whole command line: every command, with its examples, in the panel of the help that it belongs to."""

import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from runstream.cli import agents, answers, control, executions, instances, sessions, tool
from runstream.cli.apply import apply
from runstream.cli.backup import backup
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
from runstream.cli.doctor import doctor
from runstream.cli.exit_codes import MEANINGS
from runstream.cli.export import export
from runstream.cli.folders import compact, restore
from runstream.cli.help_texts import add_command
from runstream.cli.listing import list_executions
from runstream.cli.run import run
from runstream.cli.runner import runner
from runstream.cli.server_app import add_serve
from runstream.cli.take_in import import_
from runstream.cli.watch import watch
from runstream.model.variables import unknown_variables

_EXECUTIONS = "Executions"
_RESOURCES = "Agents, instances and sessions"
_SERVER = "Server and runners"
_FOLDERS = "Data folders"

_SERVER_VARIABLE = "RUNSTREAM_SERVER"

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
    named = os.environ.get(_SERVER_VARIABLE)
    if not (server or named):
        _tell_of_misspelt()
    context.obj = given.under(Connection(server=named or None))


def _tell_of_misspelt() -> None:
    """Warn of a variable that seems to name a server: the one on this machine would be called instead."""
    for variable, meant in unknown_variables(os.environ, [_SERVER_VARIABLE]).items():
        if meant:
            typer.echo(f"warning: {variable} is not read; did you mean {meant}?", err=True)


def _add(panel: str, command: Callable[..., Any], *examples: str, name: str | None = None) -> None:
    add_command(app, command, *(f"runstream {example}" for example in examples), name=name, panel=panel)


_add(
    _EXECUTIONS,
    run,
    'run researcher "What changed in the news today?"',
    'run researcher "And yesterday?" --session ses_…',
    'run deployer "Ship it" --env STAGE=prod --secret TOKEN --detach',
    "run -f execution.yaml -o json",
)
_add(_EXECUTIONS, watch, "watch aex_…", "watch aex_… --changes -o json", "watch aex_… --from-revision 12")
_add(
    _EXECUTIONS,
    list_executions,
    "list",
    "list --phase in-progress --agent researcher --created-after 2h",
    "list --label team=web --all -o json",
    "list --watch",
    name="list",
)
_add(_EXECUTIONS, executions.get, "get aex_…", "get aex_… -o json")
_add(
    _EXECUTIONS,
    answers.approve,
    "approve aex_…",
    'approve aex_… call_7 --reject --comment "not on a Friday"',
    "approve aex_… --all",
)
_add(
    _EXECUTIONS,
    answers.send_input,
    "input aex_…",
    'input aex_… "The blue one"',
    "input aex_… - < it.txt",
    name="input",
)
_add(_EXECUTIONS, control.pause, 'pause aex_… --reason "wait for the release"')
_add(_EXECUTIONS, control.resume, "resume aex_…")
_add(_EXECUTIONS, control.cancel, 'cancel aex_… --reason "no longer needed"')
_add(_EXECUTIONS, control.terminate, 'terminate aex_… --reason "runaway"')
_add(_EXECUTIONS, control.recover, 'recover aex_… --reason "the model is back"')
_add(
    _EXECUTIONS,
    executions.status,
    "status aex_… --phase in-progress",
    """status aex_… --data '{"messages": [{"id": "m1", "content_append": "Hi"}]}'""",
    "status aex_… -f delta.yaml --sequence 7 --replace todos",
)
_add(_EXECUTIONS, executions.delete, "delete aex_…", "delete aex_… aex_… --yes")
_add(
    _EXECUTIONS,
    export,
    "export -o everything.jsonl",
    "export --phase completed --created-before 30d | gzip > old.jsonl.gz",
    "export aex_… aex_… -o two.jsonl",
)
_add(
    _EXECUTIONS,
    import_,
    "import everything.jsonl --server other.example.com:7400",
    "import everything.jsonl --live terminate",
    "import - --keep < everything.jsonl",
    name="import",
)

_add(_RESOURCES, apply, "apply -f agents.yaml", "apply -f agents.yaml -f sessions.yaml", "apply -f - < all.yaml")
app.add_typer(agents.app, name="agent", help="Agents: what can be run.", rich_help_panel=_RESOURCES)
app.add_typer(
    instances.app, name="instance", help="Instances: an agent with its environment.", rich_help_panel=_RESOURCES
)
app.add_typer(
    sessions.app, name="session", help="Sessions: conversations with an instance.", rich_help_panel=_RESOURCES
)

add_serve(app, panel=_SERVER)
_add(
    _SERVER,
    runner,
    "runner --import my_agents:agents",
    "runner --import my_agents:research --agent researcher --capacity 2",
    "runner --import my_agents:agents --server runs.example.com:7400 --tls",
)
app.add_typer(tool.app, name="tool", help="Tools: functions that agents use, tried by hand.", rich_help_panel=_SERVER)

_add(
    _FOLDERS,
    doctor,
    "doctor /var/lib/runstream/data",
    "doctor /var/lib/runstream/data --repair",
    "doctor /var/lib/runstream/data -o json",
)
_add(
    _FOLDERS,
    backup,
    "backup /var/lib/runstream/data runstream.backup",
    "backup --server 127.0.0.1:7400 runstream.backup",
)
_add(_FOLDERS, restore, "restore runstream.backup /var/lib/runstream/data")
_add(_FOLDERS, compact, "compact /var/lib/runstream/data")
