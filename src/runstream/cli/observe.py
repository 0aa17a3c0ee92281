"""Observing: follows an execution to its end and shows it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from runstream.cli import exit_codes
from runstream.cli.follow import Lost, Resumed
from runstream.v1.agent_execution_pb2 import ExecutionPhase
from runstream.v1.agent_execution_service_pb2 import GetAgentExecutionRequest
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC

if TYPE_CHECKING:
    from runstream.cli.exit_codes import ExitCode
    from runstream.cli.fold import Fold
    from runstream.cli.follow import Follower
    from runstream.cli.views import View
    from runstream.v1.agent_execution_pb2 import ExecutionChange


async def observe(follower: Follower, view: View, fold: Fold | None = None) -> ExitCode:
    """Show an execution until its end and return the exit code of its phase.

    The fold takes every change before the view does. Interrupted, it says how to go on.
    """
    try:
        async with view.shown():
            phase = await _follow(follower, view, fold)
    except asyncio.CancelledError:
        follower.client.output.note(
            f"detached; the execution goes on. Follow it again with `runstream watch {follower.execution_id}`"
        )
        raise
    view.end()
    return exit_codes.of_phase(phase or await _phase(follower))


async def _follow(follower: Follower, view: View, fold: Fold | None) -> ExecutionPhase.ValueType:
    phase = ExecutionPhase.EXECUTION_PHASE_UNSPECIFIED
    async with aclosing(follower.happenings()) as happenings:
        async for happening in happenings:
            if isinstance(happening, Lost):
                if happening.first:
                    view.lost(happening.after)
            elif isinstance(happening, Resumed):
                view.resumed(happening.after)
            else:
                if fold is not None:
                    fold.take(happening)
                view.take(happening)
                phase = _phase_after(happening) or phase
    return phase


def _phase_after(change: ExecutionChange) -> ExecutionPhase.ValueType:
    """Return the phase that a change says, unspecified when it says none."""
    kind = change.WhichOneof("kind")
    if kind == "snapshot":
        return change.snapshot.status.phase
    return change.created.status.phase if kind == "created" else change.status.phase


async def _phase(follower: Follower) -> ExecutionPhase.ValueType:
    """Return the phase of an execution that had nothing to show after the cursor."""
    client = follower.client
    request = GetAgentExecutionRequest(value=follower.execution_id, view=RESOURCE_VIEW_BASIC)
    execution = await client.call(client.queries.Get, request)
    return execution.status.phase
