"""`runstream get`, `delete`, `status`: single executions."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from rich.text import Text

from runstream.cli import asking, details, documents, wording
from runstream.cli.arguments import ExecutionArgument, YesOption
from runstream.cli.calling import calling
from runstream.cli.client import Client
from runstream.cli.failure import Misuse
from runstream.cli.fold import Fold
from runstream.cli.phases import PhaseName, phase_name, phase_text
from runstream.cli.transcript import Transcript
from runstream.model.merge import REPLACEABLE_FIELDS
from runstream.v1.agent_execution_pb2 import AgentExecution, AgentExecutionStatus, ExecutionChange
from runstream.v1.agent_execution_service_pb2 import (
    AgentExecutionUpdateStatusInput,
    GetAgentExecutionRequest,
)
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC, RESOURCE_VIEW_FULL, ResourceId

#: How wide a line is at most where the width of a terminal says nothing.
_WIDTH = 200


@calling
async def get(
    client: Client,
    execution: ExecutionArgument,
    *,
    basic: Annotated[
        bool, typer.Option("--basic", help="Without messages, tool calls, sub-agents, todos and usage.")
    ] = False,
) -> None:
    """Show an execution: what was asked, what was said and done, how it stands."""
    view = RESOURCE_VIEW_BASIC if basic else RESOURCE_VIEW_FULL
    found = await client.call(client.queries.Get, GetAgentExecutionRequest(value=execution, view=view))
    if client.output.for_people:
        _print(client, found)
    else:
        client.output.record(found, "")


@calling
async def delete(
    client: Client,
    executions: Annotated[list[str], typer.Argument(metavar="ID…", help="The executions' ids.")],
    *,
    yes: YesOption = False,
) -> None:
    """Delete executions in any phase; what they said and did is gone."""
    await asking.confirm_deletion(executions, "", yes=yes)
    await client.output.report((await _delete(client, each) for each in executions), many=len(executions) > 1)


@calling
async def status(  # noqa: PLR0913 — one parameter per option
    client: Client,
    execution: ExecutionArgument,
    *,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", metavar="FILE", help="The delta, YAML or JSON; `-` is the standard input."),
    ] = None,
    data: Annotated[str, typer.Option("--data", metavar="JSON", help="The delta as JSON.")] = "",
    phase: Annotated[
        PhaseName | None,
        typer.Option(
            metavar="PHASE", case_sensitive=False, help=f"The phase, over that of the delta: {', '.join(PhaseName)}."
        ),
    ] = None,
    attempt: Annotated[
        int, typer.Option(min=0, metavar="N", help="The attempt it is for, once a runner has leased it.")
    ] = 0,
    sequence: Annotated[
        int, typer.Option(min=0, metavar="N", help="Its number, growing from 1: a repeat changes nothing.")
    ] = 0,
    replace: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help="A field that the delta replaces whole; can be repeated."),
    ] = None,
) -> None:
    """Merge a delta into an execution's status, as its runner does.

    The delta is an AgentExecutionStatus that holds only what is new.
    """
    if file and data:
        raise Misuse("give one of -f FILE and --data JSON")
    delta = _delta(file, data)
    if phase:
        delta.phase = phase.phase
    _check_replaced(replace or ())
    request = AgentExecutionUpdateStatusInput(
        execution_id=execution,
        status=delta,
        attempt=attempt,
        sequence=sequence,
        replace_mask=FieldMask(paths=replace) if replace else None,
        view=RESOURCE_VIEW_BASIC,
    )
    updated = await client.call(client.commands.UpdateStatus, request)
    what = f"{phase_name(updated.status.phase)}, revision {updated.metadata.revision}"
    client.output.done(updated, wording.done(updated, what))


async def _delete(client: Client, execution_id: str) -> tuple[AgentExecution, str]:
    deleted = await client.call(client.commands.Delete, ResourceId(value=execution_id))
    return deleted, wording.done(deleted, "deleted")


def _print(client: Client, execution: AgentExecution) -> None:
    spec, state = execution.spec, execution.status
    rows = [
        *details.metadata(execution.metadata, state.audit.spec_audit),
        ("phase", phase_text(state.phase)),
        ("asked for", wording.control(state.control) if state.HasField("control") else ""),
        ("agent", spec.agent_id),
        ("session", spec.session_id),
        ("model", spec.execution_config.model_name),
        ("environment", ", ".join(sorted(spec.runtime_env))),
        ("parent", spec.context.parent_execution_id),
        ("attempt", str(state.attempt or "")),
        ("started", state.started_at),
        ("completed", state.completed_at),
    ]
    client.output.console.print(details.table(rows))
    client.output.say("")
    for line in _transcript(execution, client.output.console.width):
        client.output.say(line)


def _transcript(execution: AgentExecution, width: int) -> Iterator[Text]:
    """Yield the whole account of an execution, also of what is not finished."""
    now = datetime.now(UTC)
    fold = Fold()
    change = ExecutionChange(revision=execution.metadata.revision, snapshot=execution)
    fold.take(change)
    transcript = Transcript(fold, lambda: now, width=min(width, _WIDTH), every_step=True)
    yield from transcript.after(change)
    yield from transcript.rest()
    yield from wording.ending(execution, now)


def _delta(file: Path | None, data: str) -> AgentExecutionStatus:
    """Return the delta of a file or of `--data`, empty without both. Raises `Misuse`."""
    if file:
        found = documents.read([file])
    elif data:
        found = documents.parse_text(data, "--data")
    else:
        return AgentExecutionStatus()
    if len(found) != 1:
        raise Misuse(f"one document is needed, not {len(found)}")
    return found[0].parse_whole(AgentExecutionStatus())


def _check_replaced(names: Sequence[str]) -> None:
    unknown = sorted(set(names) - REPLACEABLE_FIELDS)
    if unknown:
        known = ", ".join(sorted(REPLACEABLE_FIELDS))
        raise Misuse(f"--replace {unknown[0]}: cannot be replaced; there are {known}")
