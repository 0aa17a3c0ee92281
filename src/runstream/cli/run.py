"""`runstream run`: creates an execution and follows it."""

from pathlib import Path
from typing import Annotated

import typer

from runstream.cli import documents, pairs, resources
from runstream.cli.arguments import (
    IdempotencyKeyOption,
    LabelsOption,
    OrgOption,
    RetryForOption,
    TagsOption,
)
from runstream.cli.calling import calling
from runstream.cli.client import Client, idempotent
from runstream.cli.exit_codes import ExitCode
from runstream.cli.failure import Misuse
from runstream.cli.kinds import AGENT
from runstream.cli.watch import follow_live
from runstream.v1.agent_execution_pb2 import AgentExecution


@calling
async def run(  # noqa: PLR0913 — one parameter per option
    client: Client,
    agent: Annotated[str, typer.Argument(metavar="[AGENT]", help="The agent's slug or id.", show_default=False)] = "",
    message: Annotated[
        str,
        typer.Argument(
            metavar="[MESSAGE]",
            help="What the agent is to do; `-` takes it from the standard input.",
            show_default=False,
        ),
    ] = "",
    *,
    session: Annotated[
        str, typer.Option(metavar="ID", help="Go on in this session; without it a new one is made.")
    ] = "",
    stateless: Annotated[bool, typer.Option("--stateless", help="Run outside of any session.")] = False,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", metavar="KEY=VALUE", help="A variable; can be repeated."),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            "--secret",
            metavar="KEY[=VALUE]",
            help="A secret variable. Give its KEY alone to take the value from your environment: the command line is"
            " seen by others on this machine. Can be repeated.",
        ),
    ] = None,
    model: Annotated[str, typer.Option(metavar="NAME", help="The model to use.")] = "",
    name: Annotated[str, typer.Option(metavar="NAME", help="Its name; else the first words of the message.")] = "",
    org: OrgOption = "",
    label: LabelsOption = None,
    tag: TagsOption = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="A YAML or JSON document of kind AgentExecution to begin with; arguments and options go over it.",
        ),
    ] = None,
    idempotency_key: IdempotencyKeyOption = "",
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not follow it: print its id and end.")] = False,
    retry_for: RetryForOption = 60.0,
) -> ExitCode | None:
    """Run an agent and follow it until it ends; the exit code says how.

    Ctrl-C detaches; the execution goes on, and `runstream watch` follows it again.
    """
    execution = _base(file)
    execution.metadata.MergeFrom(type(execution.metadata)(name=name, org=org, tags=tag or ()))
    execution.metadata.labels.update(pairs.parse(label or (), "--label"))
    spec = execution.spec
    for key, value in pairs.variables(env or (), secret or ()).items():
        spec.runtime_env[key].CopyFrom(value)
    spec.message = _message(message) or spec.message
    spec.session_id = session or spec.session_id
    spec.execution_config.model_name = model or spec.execution_config.model_name
    spec.context.stateless = stateless or spec.context.stateless
    _check(execution, agent)
    named = agent or spec.agent_id
    if named:
        spec.agent_id = await resources.identify(client, AGENT, named, execution.metadata.org)
    created = await client.call(client.commands.Create, execution, idempotent(idempotency_key))
    if not detach:
        if client.output.for_people:
            client.output.note(f"execution {created.metadata.id}")
        return await follow_live(client, created.metadata.id, retry_for, connected=True)
    client.output.done(created, created.metadata.id)
    if client.output.for_people:
        client.output.note(f"follow it with `runstream watch {created.metadata.id}`")
    return None


def _base(file: Path | None) -> AgentExecution:
    """Return the execution that a file describes; an empty one without a file. Raises `Misuse`."""
    if file is None:
        return AgentExecution()
    found = documents.read([file])
    if len(found) > 1:
        raise Misuse(f"{file}: one document is needed, not {len(found)}")
    if found[0].kind not in {"", "AgentExecution"}:
        raise Misuse(f"{found[0].place}: the kind is {found[0].kind!r}, not 'AgentExecution'")
    return found[0].parse(AgentExecution())


def _message(argument: str) -> str:
    return documents.read_text(Path("-")) if argument == "-" else argument


def _check(execution: AgentExecution, agent: str) -> None:
    """Refuse what says too little. Raises `Misuse`."""
    spec = execution.spec
    if not (agent or spec.agent_id or spec.session_id):
        raise Misuse("AGENT is missing: the slug or id of the agent to run")
    if not spec.message:
        raise Misuse("MESSAGE is missing: what the agent is to do")
