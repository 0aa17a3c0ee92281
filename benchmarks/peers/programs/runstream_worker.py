"""Runstream's worker: the SDK's runner, with an agent that does nothing and two that count."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

from runstream.runner import Agent, Runner
from runstream.v1.agent_execution_pb2 import MESSAGE_AI, AgentMessage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runstream.runner import Invocation

_CAPACITY = 256


async def trivial(invocation: Invocation) -> str:
    """Answer at once."""
    return f"done: {invocation.message}"


async def counting(invocation: Invocation) -> AsyncIterator[AgentMessage]:
    """Emit numbers, each a change of its own; a resumed attempt goes on after what the one before has reported."""
    events, pause = invocation.message.split()
    said = "".join(message.content for message in invocation.execution.status.messages if message.id == "count")
    for number in range(len(said.split()), int(events)):
        yield AgentMessage(id="count", type=MESSAGE_AI, content_append=f"{number} ")
        if float(pause):
            await asyncio.sleep(float(pause))


async def joining(invocation: Invocation) -> AsyncIterator[str]:
    """Emit numbers as text, which the SDK gathers for 50 ms or 4 KiB."""
    for number in range(int(invocation.message.split()[0])):
        yield f"{number} "


AGENTS = {
    "trivial": Agent(trivial),
    "counting": Agent(counting, resume_attempts=True),
    "joining": Agent(joining),
}

if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    Runner(os.environ["PEER_SERVER"], agents=AGENTS, capacity=_CAPACITY, drain_timeout=1).run()
