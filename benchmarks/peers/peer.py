"""Peer: what all of them are to the benchmark; and how one is made of processes on loopback."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from benchmarks.machine import cores
from benchmarks.peers.environments import REPOSITORY
from benchmarks.peers.program import Answer, Command, NotPossible, Program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_START_SECONDS = 60.0
_GRACE_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a reader of the figures must know."""

    title: str
    what: str
    versions: str
    durable: str
    """What is on disk when a start is acknowledged, and with which sync."""
    streamed: str
    """What is on disk when an event is seen."""
    resumes: str
    """By what a reader goes on after a dropped connection."""
    placed: str
    """What runs on which core."""
    tuned: str = "nothing"


class Peer(Protocol):
    """A system that does the job. Every call raises `NotPossible`, with the reason, when it cannot be done."""

    facts: Facts

    def install(self) -> None:
        """Install what it needs, once."""
        ...

    async def start(self, folder: Path) -> None:
        """Start it on an empty folder, with a client."""
        ...

    async def create(self, count: int, limit: float) -> Answer:
        """Start trivial runs, one at a time."""
        ...

    async def run(self, count: int, in_flight: int, limit: float) -> Answer:
        """Start trivial runs and see each one's result."""
        ...

    async def within(self, count: int, in_flight: int, limit: float) -> Answer | None:
        """Do the same in the peer's own process, for one that is a library; None for one that is not."""
        ...

    async def stream(self, events: int, limit: float, *, joined: bool) -> Answer | None:
        """Let one run emit and one reader read; None if `joined` and the peer does not join by itself."""
        ...

    async def resume(self, events: int, places: Sequence[int], limit: float) -> Answer:
        """The same with a reader that drops its connection at these places."""
        ...

    async def kill(self, events: int, seen: int, limit: float, *, workers: bool) -> Answer:
        """Kill the server (and the workers) when so many events were seen; start it again, and tell what became."""
        ...

    async def stop(self) -> None:
        """End everything that was started."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A process of a peer: what it is started with, where it listens, and whether a kill is meant for it."""

    command: Command
    address: str = ""
    role: str = "server"  # or worker, or store


@dataclass(slots=True)
class Layout:
    """The processes of a peer, in the order in which they start, and its client."""

    parts: list[Part]
    client: Command
    logs: Path
    running: dict[str, Program] = field(default_factory=dict)


class Hosted:
    """A peer made of processes. A subclass says of which."""

    facts: Facts
    joins = False
    """Whether it sends several events at once, by itself."""
    server_is_worker = False
    """Whether the work is done in the server's process, so that there is only one kill."""

    def __init__(self) -> None:
        self._layout: Layout | None = None
        self._client: Program | None = None

    def install(self) -> None:
        """Nothing, unless a subclass needs something."""

    def layout(self, folder: Path) -> Layout:
        """Tell of which processes it is made, with their data in `folder`."""
        raise NotImplementedError(folder)

    async def start(self, folder: Path) -> None:
        """Start all parts, then the client."""
        self._layout = self.layout(folder)
        await self._start_parts()
        self._client = await Program.start(self._layout.client, self._layout.logs)
        await self._client.ask("connect", _START_SECONDS)

    async def create(self, count: int, limit: float) -> Answer:
        """Start trivial runs, one at a time."""
        return await self._asked.ask("create", limit + _GRACE_SECONDS, count=count, limit=limit)

    async def run(self, count: int, in_flight: int, limit: float) -> Answer:
        """Start trivial runs and see each one's result."""
        patience = limit + _GRACE_SECONDS
        return await self._asked.ask("run", patience, count=count, in_flight=in_flight, limit=limit)

    async def within(self, count: int, in_flight: int, limit: float) -> Answer | None:
        """Return None: it is no library."""
        del count, in_flight, limit
        return None

    async def stream(self, events: int, limit: float, *, joined: bool) -> Answer | None:
        """Let one run emit and one reader read."""
        if joined and not self.joins:
            return None
        return await self._asked.ask("stream", limit + _GRACE_SECONDS, events=events, limit=limit, joined=joined)

    async def resume(self, events: int, places: Sequence[int], limit: float) -> Answer:
        """Let the reader drop its connection at these places."""
        patience = limit + _GRACE_SECONDS
        return await self._asked.ask("resume", patience, events=events, places=list(places), limit=limit)

    async def kill(self, events: int, seen: int, limit: float, *, workers: bool) -> Answer:
        """Kill, start again, and tell what became of the run."""
        if workers and self.server_is_worker:
            raise NotPossible("as above: the server is the worker")
        await self._asked.ask("follow", limit, events=events, pause=0.002, seen=seen, limit=limit)
        roles = {"server", "worker"} if workers else {"server"}
        since = time.monotonic()
        await self._kill_parts(roles)
        before = await self._asked.ask("killed", _GRACE_SECONDS)
        await self._start_parts()
        after = await self._asked.ask("after", limit + _GRACE_SECONDS, events=events, since=since, limit=limit)
        return after | {"seen_before": before["seen"]}

    async def stop(self) -> None:
        """End the client, then the parts, the last first."""
        programs = list(self._layout.running.values()) if self._layout else []
        for program in [*([self._client] if self._client else []), *reversed(programs)]:
            await program.stop()
        self._layout = self._client = None

    @property
    def _asked(self) -> Program:
        if self._client is None:
            raise NotPossible("not started")
        return self._client

    def program(self, name: str) -> Program:
        """Return a part that runs."""
        if self._layout is None:
            raise NotPossible("not started")
        return self._layout.running[name]

    async def ready(self, name: str) -> None:
        """Do what a part needs once it has started. Nothing, unless a subclass says so."""
        del name

    async def _start_parts(self) -> None:
        layout = self._layout
        for part in layout.parts if layout else []:
            name = part.command.name
            if layout is None or (name in layout.running and layout.running[name].running):
                continue
            layout.running[name] = await Program.start(part.command, layout.logs)
            await _listening(layout.running[name], part.address)
            await self.ready(name)

    async def _kill_parts(self, roles: set[str]) -> None:
        layout = self._layout
        for part in layout.parts if layout else []:
            if layout is not None and part.role in roles:
                await layout.running[part.command.name].kill()


async def _listening(program: Program, address: str) -> None:
    """Wait until somebody listens there; with no address, do not wait."""
    host, _, port = address.partition(":")
    begun = time.monotonic()
    while address:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
            return
        if not program.running or time.monotonic() - begun > _START_SECONDS:
            raise NotPossible(f"{program.command.name} did not start: {program.last_words()}")
        await asyncio.sleep(0.05)


def free_address() -> str:
    """Return an address of loopback that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


def talking(name: str, python: str, module: str, environment: Mapping[str, str], *, core: int) -> Command:
    """Return the command of one of our programs, run by a peer's interpreter, that answers questions."""
    told = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'src'}", "PEER_TALKS": "1", **environment}
    return quiet(name, python, module, told, core=core)


def quiet(name: str, python: str, module: str, environment: Mapping[str, str], *, core: int) -> Command:
    """Return the command of one of our programs that only works."""
    told = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'src'}", **environment}
    line = [python, "-m", f"benchmarks.peers.programs.{module}"]
    return Command(name=name, line=line, cores=cores()[core], environment=told)
