"""Endings: how an attempt is stopped, and what is reported at its end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from runstream.runner.errors import AgentFailure, Paused
from runstream.runner.text import cut
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_PAUSED,
    AgentExecutionStatus,
)

if TYPE_CHECKING:
    import asyncio

    from runstream.runner.desk import Desk
    from runstream.runner.errors import ReportRefused

_LONGEST_REASON = 1_000


class StopKind(IntEnum):
    """Why an attempt is stopped. Of the first three, the first to come counts; the others outweigh what came before."""

    CANCEL = 1
    DEADLINE = 2
    #: The execution is at its limit, and can take nothing more but its end.
    FULL = 3
    #: The runner ends, and gives the execution back: no end is reported.
    GIVE_BACK = 4
    #: The execution is the runner's no longer: nothing at all is reported.
    LOST = 5


@dataclass(frozen=True, slots=True)
class Stop:
    """What stops an attempt; `reason` is what whoever asked has given, `message` what the server says of a limit."""

    kind: StopKind
    reason: str = ""
    message: str = ""


def ending(agent: asyncio.Task[None], stop: Stop | None, desk: Desk) -> AgentExecutionStatus:
    """Return the last delta of an attempt that was stopped by CANCEL, DEADLINE or FULL, or that ended by itself."""
    if stop is None:
        return _own_ending(agent, desk)
    if stop.kind is StopKind.CANCEL:
        return AgentExecutionStatus(phase=EXECUTION_CANCELLED, reason=stop.reason)
    if stop.kind is StopKind.FULL:
        return _failed(stop.reason, stop.message)
    return _failed("DEADLINE_EXCEEDED", "The deadline was over before the agent had ended.")


def _own_ending(agent: asyncio.Task[None], desk: Desk) -> AgentExecutionStatus:
    if agent.cancelled():
        return _failed("AGENT_ERROR", "The agent has cancelled itself.")
    error = agent.exception()
    if error is None:
        return AgentExecutionStatus(phase=EXECUTION_COMPLETED)
    if is_pause(error):
        return AgentExecutionStatus(phase=EXECUTION_PAUSED)
    failure = sole(error)
    if isinstance(failure, AgentFailure):
        return _failed(desk.told(failure.reason), desk.told(failure.message))
    return _failed("AGENT_ERROR", desk.why(failure))


def refused_ending(last: AgentExecutionStatus, error: ReportRefused) -> AgentExecutionStatus:
    """Return the last delta in place of one that the server has not taken, or not what was reported before it.

    The agent cannot have completed, or be resumed, if not all of it arrived; but cancelled is cancelled.
    """
    if last.phase in (EXECUTION_COMPLETED, EXECUTION_PAUSED):
        return _failed(error.reason, error.message)
    return AgentExecutionStatus(phase=last.phase, reason=last.reason, error=last.error)


def is_pause(error: BaseException) -> bool:
    """Tell whether an agent has ended because it was paused, maybe in one of several tasks."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(Paused) is not None
    return isinstance(error, Paused)


def sole(error: BaseException) -> BaseException:
    """Return the one error in a group of one, however deep; any other as it is."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _failed(reason: str, message: str) -> AgentExecutionStatus:
    return AgentExecutionStatus(phase=EXECUTION_FAILED, reason=cut(reason, _LONGEST_REASON), error=message)
