"""A real runner in a process of its own, which a test can kill, stop, and let go on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, create_subprocess_exec
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator

_ROOT = Path(__file__).parents[2]
# The wall clock is set wrong before anybody else has had a look at it; the monotonic one runs on as it should. gRPC
# alone keeps the right one: it takes a deadline from Python's clock and compares it with that of C, which cannot be set
# here. With two clocks that contradict each other, as no machine has them, every call would be too late.
_RUN = """
import datetime, json, sys, time, types

from tests.lifeline import end_with_parent

end_with_parent()
options = json.loads(sys.argv[1])
off = options.pop("clock_off")
if off:
    seconds, nanoseconds, right = time.time, time.time_ns, datetime.datetime

    class Wrong(right):
        @classmethod
        def now(cls, tz=None):
            return right.now(tz) + datetime.timedelta(seconds=off)

        @classmethod
        def utcnow(cls):
            return right.utcnow() + datetime.timedelta(seconds=off)

    import grpc.aio._utils

    grpc.aio._utils.time = types.SimpleNamespace(time=seconds)
    time.time, time.time_ns = lambda: seconds() + off, lambda: nanoseconds() + off * 10**9
    datetime.datetime = Wrong

from tests.end_to_end.numbered_runner import main

main(**options)
"""
_PATIENCE_SECONDS = 60
#: What a runner writes when the server has let it attach, and when an execution is its no longer.
ATTACHED, LOST = "attached as", "is no longer this runner's"


class RunnerProcess:
    """A runner of numbered work. Every process has a name of its own, which stands in all that it writes."""

    def __init__(self, server: str, name: str, *, clock_off: int = 0, **options: Any) -> None:  # noqa: ANN401
        """Take the server's address, and how many seconds the wall clock is off; the options are those of `main`."""
        self.name = name
        #: What it wrote to standard error.
        self.log: list[str] = []
        self._options = {"server": server, "name": name, "clock_off": clock_off, **options}
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._grown = asyncio.Event()

    async def start(self) -> None:
        """Start it; it attaches when it has loaded."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RUNSTREAM_")}
        self._process = await create_subprocess_exec(
            sys.executable,
            *("-c", _RUN, json.dumps(self._options)),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=PIPE,
            env=environment,
            cwd=_ROOT,
        )
        self._reading = asyncio.create_task(self._read(self._process))

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def has_written(self, text: str, times: int = 1) -> None:
        """Return once so many lines that it wrote hold this text."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while self.count(text) < times:
                assert self.running, "\n".join(self.log)
                self._grown.clear()
                await self._grown.wait()

    def count(self, text: str) -> int:
        """How many lines that it wrote hold this text."""
        return sum(text in line for line in self.log)

    def strike(self) -> None:
        """Kill it this instant; `stop` must follow."""
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it do nothing at all until it is thawed; its connections stay open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on as if nothing had been."""
        self._signal(signal.SIGCONT)

    async def terminate(self) -> int:
        """Ask it to end, as an operator does; return the exit code when it has."""
        self._signal(signal.SIGTERM)
        return await self._gone()

    async def stop(self) -> None:
        """See that nothing of it is left, however the test went."""
        if self._process is not None:
            self.strike()
            await self._gone()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def _gone(self) -> int:
        assert self._process is not None
        assert self._reading is not None
        async with asyncio.timeout(_PATIENCE_SECONDS):
            code = await self._process.wait()
            await asyncio.wait({self._reading})
        return code

    async def _read(self, process: Process) -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            self.log.append(line.decode(errors="replace").rstrip())
            self._grown.set()
        self._grown.set()


@asynccontextmanager
async def runner_process(server: str, name: str, **options: Any) -> AsyncIterator[RunnerProcess]:  # noqa: ANN401
    """Run a runner in a process of its own for the length of the block; it is attached when the block begins."""
    runner = RunnerProcess(server, name, **options)
    try:
        await runner.start()
        await runner.has_written(ATTACHED)
        yield runner
    finally:
        await runner.stop()
