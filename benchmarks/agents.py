"""The agents that the benchmarks execute, and the process that serves them: `python -m benchmarks.agents ADDRESS`."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks.machine import cores, pinned
from runstream.runner import Agent, Runner

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@contextmanager
def runner(address: str) -> Iterator[subprocess.Popen[bytes]]:
    """Serve the agents in a process, on the load's cores, for the length of the block."""
    with pinned(cores()[1]):
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.agents", address])
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=60)


def main() -> None:
    """Serve them until told to end."""
    logging.basicConfig(level=logging.ERROR)
    Runner(sys.argv[1], agents=AGENTS, capacity=CAPACITY, drain_timeout=1).run()


if __name__ == "__main__":
    main()
