"""A real server in a process of its own, which a test can kill and start again."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, create_subprocess_exec
from collections import deque
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpc import aio

from tests.engines import KEPT
from tests.serving import Client

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator

#: How many times as many seeds as by default are tested: 1 for every commit, 50 for a night.
ROUNDS = max(1, int(os.environ.get("RUNSTREAM_TEST_ROUNDS", "1")))

_ROOT = Path(__file__).parents[1]
_SERVE = """
import json, sys
from tests.lifeline import end_with_parent
end_with_parent()
from runstream.server import serve
from runstream.settings import Settings
serve(Settings(**json.loads(sys.argv[1])))
"""
_LISTENING = re.compile(r"listening on (\S+:\d+)$")
_START_SECONDS = 60
_STOP_SECONDS = 60
_KEPT_LINES = 200
_RSS = re.compile(r"^RssAnon:\s+(\d+) kB$", re.MULTILINE)

#: A client that is back soon after its server is, on a connection that it shares with nobody.
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
]


class ServerProcess:
    """A server on a data folder, started anew as often as a test likes, always on the same port."""

    #: The program: it takes the settings as JSON, and says where it is listening.
    program = _SERVE

    def __init__(self, data: Path, **settings: Any) -> None:  # noqa: ANN401  # a setting of any type
        self.data = data
        #: Set for the server, beside what is set for the test.
        self.environment: dict[str, str] = {}
        self.address = "127.0.0.1:0"
        #: The newest lines that the server wrote to standard error.
        self.log: deque[str] = deque(maxlen=_KEPT_LINES)
        self._settings = settings
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the server; it takes calls when this returns. The first start chooses the port."""
        settings = {"listen": self.address, "data": str(self.data), "log_level": "warning", **self._settings}
        # What the shell has set for its own server is not for this one, but for the engine that is tested.
        environment = {
            name: value for name, value in os.environ.items() if name == KEPT or not name.startswith("RUNSTREAM_")
        }
        self._process = await create_subprocess_exec(
            sys.executable,
            *("-c", self.program, json.dumps(settings)),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=PIPE,
            env=environment | self.environment,
            cwd=_ROOT,
        )
        listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(self._process, listening))
        async with asyncio.timeout(_START_SECONDS):
            self.address = await listening

    async def kill9(self) -> None:
        """Kill it this instant; it is gone when this returns."""
        self.strike()
        await self._gone()

    def strike(self) -> None:
        """Send the kill and do not wait; `kill9` or `stop` must follow."""
        self._signal(signal.SIGKILL)

    async def terminate(self) -> int:
        """Ask it to end, as an operator does; return the exit code when it has."""
        self.ask_to_end()
        return await self._gone()

    def ask_to_end(self) -> None:
        """Send SIGTERM and do not wait; `terminate` or `stop` must follow."""
        self._signal(signal.SIGTERM)

    async def wait(self) -> int:
        """Return the exit code once it has ended."""
        return await self._gone()

    async def stop(self) -> None:
        """See that nothing of it is left, however the test went."""
        if self._process is not None:
            await self.kill9()

    @property
    def rss(self) -> int:
        """How many bytes of memory it has in use, not counting files that it has mapped."""
        assert self._process is not None
        found = _RSS.search(Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii"))
        assert found is not None
        return int(found[1]) << 10

    def channel(self, *options: tuple[str, int]) -> aio.Channel:
        """Make a connection of its own to the server, wherever it was started last."""
        return aio.insecure_channel(self.address, options=[*CHANNEL_OPTIONS, *options])

    @asynccontextmanager
    async def client(self, *options: tuple[str, int]) -> AsyncIterator[Client]:
        """Be a client of the server, over all its restarts, for the length of the block."""
        client = Client(self.address, self.channel(*options))
        try:
            yield client
        finally:
            await client.channel.close()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def _gone(self) -> int:
        """Wait for the end, then for the last line of what it wrote."""
        assert self._process is not None
        assert self._reading is not None
        async with asyncio.timeout(_STOP_SECONDS):
            code = await self._process.wait()
            await self._reading
        return code

    async def _read(self, process: Process, listening: asyncio.Future[str]) -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            self.log.append(line.decode(errors="replace").rstrip())
            found = _LISTENING.search(self.log[-1])
            if found and not listening.done():
                listening.set_result(found[1])
        if not listening.done():
            listening.set_exception(RuntimeError("the server did not start:\n" + "\n".join(self.log)))


@asynccontextmanager
async def server_process(data: Path, *, start: bool = True, **settings: Any) -> AsyncIterator[ServerProcess]:  # noqa: ANN401
    """Run a server in a process of its own, from now on or when the test starts it, until the end of the block."""
    server = ServerProcess(data, **settings)
    try:
        if start:
            await server.start()
        yield server
    finally:
        await server.stop()
