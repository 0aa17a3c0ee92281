"""`runstream cancel`, `terminate`, `pause`, `resume`, `recover`: what a person may ask of an execution."""

from typing import Final

from runstream.cli import wording
from runstream.cli.arguments import ExecutionArgument, ReasonOption
from runstream.cli.calling import calling
from runstream.cli.client import Client
from runstream.cli.phases import phase_name
from runstream.v1.agent_execution_pb2 import AgentExecution, ControlAction
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    PauseAgentExecutionInput,
    RecoverAgentExecutionInput,
    ResumeAgentExecutionInput,
    TerminateAgentExecutionInput,
)

_ASKED: Final = {ControlAction.CONTROL_CANCEL: "asked to cancel", ControlAction.CONTROL_PAUSE: "asked to pause"}


@calling
async def cancel(client: Client, execution: ExecutionArgument, *, reason: ReasonOption = "") -> None:
    """Ask an execution to end; it is CANCELLED when its runner gives up, or after a grace period.

    One that is not at work yet is CANCELLED at once.
    """
    request = CancelAgentExecutionInput(id=execution, reason=reason)
    _tell(client, await client.call(client.commands.Cancel, request))


@calling
async def terminate(client: Client, execution: ExecutionArgument, *, reason: ReasonOption = "") -> None:
    """End an execution at once, without asking its runner: TERMINATED."""
    request = TerminateAgentExecutionInput(id=execution, reason=reason)
    _tell(client, await client.call(client.commands.Terminate, request))


@calling
async def pause(client: Client, execution: ExecutionArgument, *, reason: ReasonOption = "") -> None:
    """Ask an execution to halt; it is PAUSED when its runner has come to a safe point.

    One that no runner works on is PAUSED at once. `runstream resume` lets it go on.
    """
    request = PauseAgentExecutionInput(id=execution, reason=reason)
    _tell(client, await client.call(client.commands.Pause, request))


@calling
async def resume(client: Client, execution: ExecutionArgument, *, reason: ReasonOption = "") -> None:
    """Let a paused execution go on: it waits for a runner again, which continues from what is there.

    A pause that its runner has not complied with yet is taken back.
    """
    request = ResumeAgentExecutionInput(id=execution, reason=reason)
    _tell(client, await client.call(client.commands.Resume, request))


@calling
async def recover(client: Client, execution: ExecutionArgument, *, reason: ReasonOption = "") -> None:
    """Let a FAILED execution go on, with all its work and as much time as it had at first.

    It waits for a runner again, as a new attempt.
    """
    request = RecoverAgentExecutionInput(id=execution, reason=reason)
    _tell(client, await client.call(client.commands.Recover, request))


def _tell(client: Client, execution: AgentExecution) -> None:
    """Write what came of it: what is asked of the runner now, or else the phase."""
    asked = _ASKED.get(execution.status.control.action)
    client.output.done(execution, wording.done(execution, asked or phase_name(execution.status.phase)))
