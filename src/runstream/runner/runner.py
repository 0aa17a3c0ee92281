"""Runner: a process that serves agents."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import uvloop

from runstream.model.slugs import slugify_name
from runstream.runner.agents import Agent
from runstream.runner.bell import Bell
from runstream.runner.calls import look_for, open_channel, until_answered
from runstream.runner.context.secrets import secrets_kept_out_of_logs
from runstream.runner.errors import AgentFailure
from runstream.runner.executions import Executions
from runstream.runner.garbage import sparing_the_collector
from runstream.runner.held import Held
from runstream.runner.link import Identity, Link
from runstream.runner.registration import register
from runstream.runner.run import CLEAN_UP_SECONDS, Run, Service
from runstream.v1.agent_execution_service_pb2_grpc import AgentExecutionCommandControllerStub

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    import grpc
    from grpc.aio import Channel

    from runstream.runner.agents import AgentFunction
    from runstream.runner.invocation import Invocation
    from runstream.v1.runner_pb2 import Assignment

_LOG = logging.getLogger(__name__)

MOST_CAPACITY: Final = 10_000
#: How long runs that are given back may take, to clean up and to report what they have done.
_GIVE_BACK_SECONDS: Final = CLEAN_UP_SECONDS + 1
#: How long tasks that agents have left behind may take to end with the runner.
_CLOSE_SECONDS: Final = 1.0


class Runner:
    """Serves agents: gets executions of them from the server, runs them, and reports what they do.

    It attaches again for ever when the server or the connection breaks, and what its agents report meanwhile arrives
    when they are back, once. `capacity` is how many executions run at a time; those that wait for a person do not
    count. With `register`, agents that the server does not know are created at the start.
    """

    def __init__(  # noqa: PLR0913  # each is an option
        self,
        server: str,
        agents: Mapping[str, AgentFunction | Agent],
        *,
        capacity: int = 8,
        drain_timeout: float = 30.0,
        register: bool = True,
        org: str = "",
        labels: Mapping[str, str] | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """Serve `agents`, by name, for the server at `server`, HOST:PORT. Nothing is done before `run` or `serve`.

        `org` is the agents' organization. With `credentials`, the connection is encrypted. ValueError for an
        address of another form, without agents, for two of one slug, and for a capacity out of 1 to 10,000.
        """
        self._server = _address(server)
        self._agents = _by_slug(agents)
        self._capacity = _checked(capacity)
        self._drain_timeout = drain_timeout
        self._registers = register
        self._org = org
        self._labels = dict(labels or {})
        self._credentials = credentials
        self._served = False
        self._draining = asyncio.Event()
        self._stopping = asyncio.Event()
        self._attached = asyncio.Event()
        self._ended = asyncio.Event()
        #: What the server knows this runner by; no other process has it.
        self.id: str = f"{socket.gethostname()[:200]}-{os.getpid()}-{secrets.token_hex(4)}"

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain; a second signal gives everything back at once.

        For the main thread of a program. Raises `RunnerRefused` when the server does not take the runner.
        """
        loop = uvloop.new_event_loop()
        try:
            with sparing_the_collector():
                _drive(loop, self._run())
        finally:
            _close(loop)

    async def serve(self) -> None:
        """Serve until `drain` or `stop`. Raises `RunnerRefused` when the server does not take the runner.

        A runner serves once. When this is cancelled, everything is given back at once.
        """
        if self._served:
            raise RuntimeError("a runner serves once; make another one")
        self._served = True
        try:
            async with open_channel(self._server, self._credentials) as channel:
                with secrets_kept_out_of_logs():
                    await self._serve(channel)
        finally:
            self._ended.set()

    def drain(self) -> None:
        """Take nothing new; `serve` returns when all that is held has ended, or after `drain_timeout` gives it back."""
        self._draining.set()

    async def stop(self) -> None:
        """Give everything back at once, and return when `serve` has ended."""
        self._stopping.set()
        self._draining.set()
        if self._served:
            await self._ended.wait()

    async def attached(self) -> None:
        """Return when the server has let the runner attach, for the first time."""
        await self._attached.wait()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self._hear, number)
        try:
            await self.serve()
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _hear(self, number: signal.Signals) -> None:
        if self._draining.is_set():
            _LOG.info("%s again: giving everything back", number.name)
            self._stopping.set()
            return
        _LOG.info("%s: draining for up to %g s", number.name, self._drain_timeout)
        self.drain()

    async def _serve(self, channel: Channel) -> None:
        update = partial(until_answered, AgentExecutionCommandControllerStub(channel).UpdateStatus)
        nudge = Bell()
        service = Service(update, Executions(channel), nudge.ring)
        held = Held(lambda assignment: Run(assignment, self._function(assignment), service))
        identity = Identity(self.id, self._capacity, list(self._agents), self._labels, self._org)
        link = Link(channel, identity, held, self._attached, nudge)
        beating = asyncio.create_task(link.beat())
        try:
            await _first(self._draining.wait(), self._attach(channel, link), _broken(beating))
            link.take_no_more()
            await _first(
                self._stopping.wait(), held.emptied(), link.attach(), _broken(beating), seconds=self._drain_timeout
            )
        finally:
            await held.give_back(_GIVE_BACK_SECONDS)
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            await service.executions.settled()
            if self._attached.is_set():
                await link.detach()

    async def _attach(self, channel: Channel, link: Link) -> None:
        await look_for(channel, self._server)
        if self._registers:
            missing = [(slug, agent.resource(name, self._org)) for slug, (name, agent) in self._agents.items()]
            await register(channel, missing)
        await link.attach()

    def _function(self, assignment: Assignment) -> AgentFunction:
        """Return the function of the assigned agent."""
        _, agent = self._agents.get(assignment.agent.metadata.slug, ("", None))
        return _not_served if agent is None else agent.function


def _drive(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, object]) -> None:
    """Run `work` to its end, whatever its agents do.

    A task that raises SystemExit or KeyboardInterrupt takes asyncio's loop down with it. Signals are heard by handlers,
    so either comes of an agent; its own task holds the exception too, and ends by it. The loop only has to go on.
    """
    task = loop.create_task(work)
    while not task.done():
        try:
            loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as error:
            if task.done():
                raise
            _LOG.error("an agent's task raised %r; it ends the agent, not the runner", error, exc_info=error)
    task.result()


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """End the loop as `asyncio.run` does, but wait only a while: an agent may refuse to end."""
    try:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        if tasks := asyncio.all_tasks(loop):
            _drive(loop, asyncio.wait(tasks, timeout=_CLOSE_SECONDS))
        if left := [task.get_name() for task in asyncio.all_tasks(loop)]:
            _LOG.warning("left behind, for they do not end when cancelled: %s", ", ".join(left))
        else:
            loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


async def _first(*work: Coroutine[Any, Any, object], seconds: float | None = None) -> None:
    """Work on all until the first is done, or for as long as this; raise what it raised."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _broken(task: asyncio.Task[None]) -> None:
    """Raise what ends a task that never ends by itself; leave it alone when cancelled."""
    await asyncio.shield(task)


async def _not_served(invocation: Invocation) -> None:
    raise AgentFailure("AGENT_NOT_SERVED", f"The runner has no agent {invocation.agent.metadata.slug!r}.")


def _by_slug(agents: Mapping[str, AgentFunction | Agent]) -> dict[str, tuple[str, Agent]]:
    """Return names and agents by slug."""
    if not agents:
        raise ValueError("a runner needs an agent to serve")
    found: dict[str, tuple[str, Agent]] = {}
    for name, given in agents.items():
        slug = slugify_name(name)
        if not slug:
            raise ValueError(f"the agent's name {name!r} has no letter or digit that a slug can be made of")
        if slug in found:
            raise ValueError(f"the agents {found[slug][0]!r} and {name!r} have the same slug, {slug!r}")
        found[slug] = (name, given if isinstance(given, Agent) else Agent(given))
    return found


def _address(server: str) -> str:
    host, _, port = server.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise ValueError(f"the server is HOST:PORT, as in 127.0.0.1:7400, not {server!r}")
    return server


def _checked(capacity: int) -> int:
    if not 1 <= capacity <= MOST_CAPACITY:
        raise ValueError(f"capacity must be from 1 to {MOST_CAPACITY}, not {capacity}")
    return capacity
