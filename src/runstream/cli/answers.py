"""`runstream approve`, `input`: what an execution waits for from a person."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from runstream.cli import asking, documents, waiting, wording
from runstream.cli.arguments import ExecutionArgument
from runstream.cli.calling import calling
from runstream.cli.client import Client, idempotent
from runstream.cli.exit_codes import ExitCode
from runstream.cli.failure import Failure, FieldFault, Misuse
from runstream.cli.phases import phase_name
from runstream.cli.plain_text import clean
from runstream.v1.agent_execution_pb2 import AgentExecution, ApprovalAction, ExecutionPhase, MessageType, ToolCall
from runstream.v1.agent_execution_service_pb2 import (
    GetAgentExecutionRequest,
    SubmitApprovalInput,
    SubmitInputInput,
)
from runstream.v1.resource_pb2 import RESOURCE_VIEW_FULL

#: How much of a tool call's arguments stands in a list of those that wait.
_ARGUMENTS_WIDTH = 200


@calling
async def approve(  # noqa: PLR0913 — one parameter per option
    client: Client,
    execution: ExecutionArgument,
    tool_call: Annotated[
        str,
        typer.Argument(
            metavar="[TOOL_CALL]",
            help="The tool call's id; can be left out when one alone waits.",
            show_default=False,
        ),
    ] = "",
    *,
    skip: Annotated[bool, typer.Option("--skip", help="Do not run it; the agent goes on without its result.")] = False,
    reject: Annotated[
        bool, typer.Option("--reject", help="Do not run it; the agent is told that it was refused.")
    ] = False,
    all_: Annotated[
        bool, typer.Option("--all", help="Run it, and every other call that waits now or asks later.")
    ] = False,
    comment: Annotated[
        str, typer.Option("--comment", "-c", metavar="TEXT", help="What there is to say about it, to the agent too.")
    ] = "",
) -> None:
    """Let a tool call run that waits for approval, or refuse it with --skip or --reject.

    Without TOOL_CALL it is the one that waits; when several do, they are listed.
    """
    action = _action(skip=skip, reject=reject, all_=all_)
    named = tool_call or await _waiting_call(client, execution, any_=all_)
    request = SubmitApprovalInput(agent_execution_id=execution, tool_call_id=named, action=action, comment=comment)
    decided = await client.call(client.commands.SubmitApproval, request)
    which = "all tool calls" if all_ else f"tool call {named}"
    what = f"{which} {waiting.decided(action)}, {phase_name(decided.status.phase)}"
    client.output.done(decided, wording.done(decided, what))


@calling
async def send_input(
    client: Client,
    execution: ExecutionArgument,
    message: Annotated[
        str,
        typer.Argument(
            metavar="[MESSAGE]",
            help="What to answer; `-` takes it from the standard input. Asked for on a terminal when left out.",
            show_default=False,
        ),
    ] = "",
    *,
    idempotency_key: Annotated[
        str,
        typer.Option("--idempotency-key", metavar="KEY", help="A repeat of the last answer with its key is no answer."),
    ] = "",
) -> None:
    """Answer an execution that is WAITING_FOR_INPUT."""
    metadata = idempotent(idempotency_key)
    if message == "-":
        message = documents.read_text(Path("-"))
    elif not message:
        message = await _asked(client, execution)
    if not message:
        raise Misuse("the standard input is empty: there is nothing to answer with")
    request = SubmitInputInput(execution_id=execution, message=message)
    answered = await client.call(client.commands.SubmitInput, request, metadata)
    client.output.done(answered, wording.done(answered, f"answered, {phase_name(answered.status.phase)}"))


def _action(*, skip: bool, reject: bool, all_: bool) -> ApprovalAction.ValueType:
    if skip + reject + all_ > 1:
        raise Misuse("give one of --skip, --reject and --all")
    if skip:
        return ApprovalAction.APPROVAL_SKIP
    if reject:
        return ApprovalAction.APPROVAL_REJECT
    return ApprovalAction.APPROVAL_APPROVE_ALL if all_ else ApprovalAction.APPROVAL_APPROVE


async def _waiting_call(client: Client, execution_id: str, *, any_: bool) -> str:
    """Return the id of the tool call that waits; of several, `any_`. Raises `Failure`, which lists them."""
    execution = await _get(client, execution_id)
    found = waiting.calls(execution.status)
    if not found:
        raise _not_waiting(execution, "approval")
    if len(found) > 1 and not any_:
        raise _several(found)
    return found[0].id


def _several(found: Sequence[ToolCall]) -> Failure:
    return Failure(
        f"{len(found)} tool calls wait for approval",
        code="USAGE",
        fields=[
            FieldFault(clean(call.id), clean(f"{call.name} {wording.arguments(call.args, _ARGUMENTS_WIDTH)}".strip()))
            for call in found
        ],
        hint="say which one, by its id; or --all",
        exit_code=ExitCode.USAGE,
    )


async def _asked(client: Client, execution_id: str) -> str:
    """Ask the person at the terminal, after what the agent said last. Raises `Failure`, `Misuse`."""
    if not asking.is_possible():
        raise Misuse("MESSAGE is missing: what to answer; `-` takes it from the standard input")
    execution = await _get(client, execution_id)
    if execution.status.phase != ExecutionPhase.EXECUTION_WAITING_FOR_INPUT:
        raise _not_waiting(execution, "input")
    said = [each for each in execution.status.messages if each.type != MessageType.MESSAGE_HUMAN and each.content]
    if said:
        owner = wording.owner_name(execution.status, said[-1].owner_id)
        client.output.errors.print(wording.spoken(said[-1].type, owner, said[-1].content), soft_wrap=True)
    return await asking.ask("you:")


def _not_waiting(execution: AgentExecution, what: str) -> Failure:
    return Failure(
        f"execution {execution.metadata.id} does not wait for {what}: it is {phase_name(execution.status.phase)}",
        code="FAILED_PRECONDITION",
    )


async def _get(client: Client, execution_id: str) -> AgentExecution:
    request = GetAgentExecutionRequest(value=execution_id, view=RESOURCE_VIEW_FULL)
    return await client.call(client.queries.Get, request)
