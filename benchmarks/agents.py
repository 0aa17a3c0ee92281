"""The agents that the benchmarks execute, and the process that serves them."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING

from runstream.runner import Agent, Runner

if TYPE_CHECKING:
    from runstream.runner import Invocation

CAPACITY = 256


async def trivial(invocation: Invocation) -> str:
    """Answer at once."""
    return f"done: {invocation.message}"


async def patient(invocation: Invocation) -> None:
    """Report something, then wait until it is cancelled."""
    await invocation.report.todos(["wait"])  # text would be held back for 50 ms, to be joined with more
    await asyncio.Event().wait()


AGENTS = {
    "trivial": Agent(trivial, max_attempts=100),
    "patient": Agent(patient, max_attempts=100),
}


def main() -> None:
    """Serve them until told to end."""
    logging.basicConfig(level=logging.ERROR)
    Runner(sys.argv[1], agents=AGENTS, capacity=CAPACITY, drain_timeout=1).run()


if __name__ == "__main__":
    main()
