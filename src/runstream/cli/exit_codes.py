"""Exit codes: how a command tells a script what happened."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

from runstream.v1.agent_execution_pb2 import ExecutionPhase

if TYPE_CHECKING:
    from collections.abc import Mapping


class ExitCode(IntEnum):
    """What a command ends with; part of what the command line promises."""

    DONE = 0
    CALL_FAILED = 1
    USAGE = 2
    EXECUTION_FAILED = 3
    EXECUTION_CANCELLED = 4
    EXECUTION_TERMINATED = 5
    UNREACHABLE = 6
    INTERRUPTED = 130


MEANINGS: Final[Mapping[ExitCode, str]] = {
    ExitCode.DONE: "done; of run and watch: the execution COMPLETED",
    ExitCode.CALL_FAILED: "the call failed; of doctor: the data folder is not sound",
    ExitCode.USAGE: "the command was not understood, or a file of -f is wrong",
    ExitCode.EXECUTION_FAILED: "the execution FAILED",
    ExitCode.EXECUTION_CANCELLED: "the execution was CANCELLED",
    ExitCode.EXECUTION_TERMINATED: "the execution was TERMINATED",
    ExitCode.UNREACHABLE: "the server could not be reached, or did not answer",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C",
}

_OF_PHASE: Final = {
    ExecutionPhase.EXECUTION_COMPLETED: ExitCode.DONE,
    ExecutionPhase.EXECUTION_FAILED: ExitCode.EXECUTION_FAILED,
    ExecutionPhase.EXECUTION_CANCELLED: ExitCode.EXECUTION_CANCELLED,
    ExecutionPhase.EXECUTION_TERMINATED: ExitCode.EXECUTION_TERMINATED,
}


def of_phase(phase: ExecutionPhase.ValueType) -> ExitCode:
    """Return the exit code of a command that followed an execution to `phase`."""
    return _OF_PHASE.get(phase, ExitCode.CALL_FAILED)
