"""The runner of numbered work, as a program of its own: `tests.end_to_end.runner_process` starts it."""

from __future__ import annotations

import asyncio
import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from runstream.runner import Agent, AgentFailure, Approval, Runner
from tests.end_to_end.numbered import (
    ASKS,
    FAILS,
    GOES_ON,
    HANGS,
    IN_HASTE,
    PLANNED,
    STARTS_OVER,
    WANTS_APPROVAL,
    Mark,
    Plan,
    marks,
)

if TYPE_CHECKING:
    from runstream.runner import Invocation

#: Which kind of report carries the mark of a step, in turn.
_KINDS = ("text", "text", "tool", "text", "todo", "usage")
_APPROVALS = {WANTS_APPROVAL: Approval(), IN_HASTE: Approval(timeout=0.2, default="approve")}


def main(*, server: str, name: str, pace: float = 0.005, capacity: int = 8, drain_timeout: float = 0.5) -> None:
    """Serve both agents of numbered work, `pace` seconds per step, until a signal."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    work = partial(_work, name, pace)
    agents: dict[str, Any] = {
        STARTS_OVER: Agent(work, max_attempts=100),
        GOES_ON: Agent(work, max_attempts=100, resume_attempts=True),
    }
    Runner(server, agents, capacity=capacity, drain_timeout=drain_timeout, register=False).run()


async def _work(name: str, pace: float, invocation: Invocation) -> None:
    plan = Plan.of(invocation.message)
    done = max((mark.step for mark in marks(invocation.execution.status)), default=0) if invocation.resumed else 0
    for step in range(done + 1, plan.steps + 1):
        if plan.end == ASKS and step == plan.steps // 2:
            await invocation.report.needs_input("Shall I go on?", id="question")
        await _step(invocation, Mark(step, invocation.attempt, name), pace, _APPROVALS.get(plan.end))
    if plan.end == FAILS:
        raise AgentFailure(PLANNED, "as was planned")
    if plan.end == HANGS:
        await asyncio.Event().wait()


async def _step(invocation: Invocation, mark: Mark, pace: float, approval: Approval | None) -> None:
    report, kind = invocation.report, _KINDS[mark.step % len(_KINDS)]
    if kind == "tool":
        async with report.tool("count", {"step": mark.step}, id=f"step-{mark.step}", approval=approval) as call:
            await asyncio.sleep(pace)
            call.result = str(mark)
    elif kind == "todo":
        await report.todo(f"step-{mark.step}", "completed", str(mark))
    else:
        if kind == "usage":
            await report.usage(id=f"{mark.step}-{mark.attempt}", input_tokens=mark.step)
        await report.text(str(mark))
    await asyncio.sleep(pace)
    await invocation.safe_point()
