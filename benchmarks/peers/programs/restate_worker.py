"""Restate's worker: a service that does nothing, and a workflow whose state is what it has emitted.

Restate has no stream. A workflow's state is durable with each `set`, and its other handlers can read it while it runs:
that is what a reader is served from here, as many events at a time as there are.
"""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from typing import TypedDict

import restate
from hypercorn.asyncio import serve
from hypercorn.config import Config
from restate import Context, Service, Workflow, WorkflowContext, WorkflowSharedContext

_MOST_AT_ONCE = 100


class Counted(TypedDict):
    """What a workflow is to emit."""

    events: int
    pause: float


trivial = Service("trivial")
counting = Workflow("counting")


@trivial.handler("run")
async def answer(ctx: Context) -> str:
    """Do nothing."""
    del ctx
    return "done"


@counting.main()
async def run(ctx: WorkflowContext, asked: Counted) -> str:
    """Emit numbers: each is an entry of the journal."""
    for number in range(asked["events"]):
        ctx.set(f"event-{number}", number)
        if asked["pause"]:
            await ctx.sleep(timedelta(seconds=asked["pause"]))
    return "done"


@counting.handler()
async def events(ctx: WorkflowSharedContext, after: int) -> list[int]:
    """Return the numbers after the first `after`, as far as they are there."""
    found: list[int] = []
    for number in range(after, after + _MOST_AT_ONCE):
        value = await ctx.get(f"event-{number}", type_hint=int)
        if value is None:
            break
        found.append(value)
    return found


if __name__ == "__main__":
    config = Config()
    config.bind = [os.environ["PEER_WORKER"]]
    config.loglevel = "ERROR"
    asyncio.run(serve(restate.app([trivial, counting]), config))
