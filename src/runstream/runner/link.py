"""Link: keeps a runner attached to the server and its lease alive, whatever becomes of the connection.

The stream brings work and commands; when it breaks, the runner attaches again, for ever, and names what it holds. The
lease is kept alive apart from it, by heartbeats, whose answers repeat the commands that are still to be obeyed.

A runner whose heartbeats have failed for longer than its lease has to assume that the lease is lost, and that others
work on what it holds. It works on nevertheless: it cannot tell this from a server that was down, and then nothing is
lost. The data need no protection by the runner, for they have the fence: what was requeued has a new attempt, and the
server takes nothing from an earlier one. The runner learns of it as soon as it reaches the server, stops the agent and
drops the execution. Only what the agent does outside of Runstream can happen twice; each tool begins only after the
server has confirmed that it does.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import grpc

from runstream.model.times import to_seconds
from runstream.runner.backoff import Backoff
from runstream.runner.errors import RunnerRefused
from runstream.runner.refusals import refusal, retry_after
from runstream.v1.runner_pb2 import AttachRequest, DetachRequest, HeartbeatRequest
from runstream.v1.runner_pb2_grpc import RunnerControllerStub

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grpc.aio import Channel

    from runstream.runner.bell import Bell
    from runstream.runner.held import Held
    from runstream.v1.runner_pb2 import Hello, RunnerCommand

_LOG = logging.getLogger(__name__)

#: How long the first command may take to come.
_FIRST_SECONDS: Final = 15.0
#: How many heartbeat intervals without any command mean that the stream is dead: the server pings once in each.
_SILENT_INTERVALS: Final = 4
_INTERVAL_SECONDS: Final = 5.0
_DETACH_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Who attaches, and for what."""

    runner_id: str
    capacity: int
    agents: Sequence[str]
    labels: Mapping[str, str] = field(default_factory=dict)
    org: str = ""


class Link:
    """A runner's tie to the server: `attach` and `beat` keep it, until they are cancelled."""

    def __init__(self, channel: Channel, identity: Identity, held: Held, attached: asyncio.Event, nudge: Bell) -> None:
        """Attach as `identity` over `channel`, for what is `held`; set `attached` once the server has said hello.

        When `nudge` rings, the server is told at once what is held.
        """
        self._server = RunnerControllerStub(channel)
        self._identity = identity
        self._held = held
        self._interval = _INTERVAL_SECONDS
        self._capacity = identity.capacity
        self._away = False
        self._attached = attached
        self._nudge = nudge

    async def attach(self) -> None:
        """Stay attached, until cancelled. Raises `RunnerRefused` when the server never let the runner attach."""
        backoff = Backoff()
        while True:
            asked = 0.0
            try:
                await self._follow(backoff)
                self._note_outage("the stream has ended")
            except TimeoutError:
                self._note_outage("the stream is silent")
            except grpc.aio.AioRpcError as error:
                self._check_refusal(error)
                self._note_outage(f"{error.code().name}: {error.details()}")
                asked = retry_after(error)
            await asyncio.sleep(asked + backoff.next())

    def take_no_more(self) -> None:
        """From the next `attach` on, get no more work."""
        self._capacity = 0

    async def beat(self) -> None:
        """Renew the lease, until cancelled."""
        await self._attached.wait()
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._interval
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._nudge.wait()
            late = loop.time() - due
            if late > self._interval:
                _LOG.warning("an agent has kept the loop from running for %.1f s, heartbeats too; use a thread", late)
            await self._heartbeat()

    async def detach(self) -> None:
        """Give back what is held, at once; if the server cannot be told, the lease's end does it."""
        try:
            await self._server.Detach(DetachRequest(runner_id=self._identity.runner_id), timeout=_DETACH_SECONDS)
        except grpc.aio.AioRpcError as error:
            _LOG.warning("could not detach; what is held is given back when the lease ends: %s", error.details())

    async def _follow(self, backoff: Backoff) -> None:
        """Attach, and obey the stream until it ends. TimeoutError when it is dead."""
        identity, loop = self._identity, asyncio.get_running_loop()
        request = AttachRequest(
            runner_id=identity.runner_id,
            capacity=self._capacity,
            agents=identity.agents,
            labels=identity.labels,
            org=identity.org,
            held=self._held.named(),
        )
        async with asyncio.timeout(_FIRST_SECONDS) as patience:
            async for command in self._server.Attach(request):
                backoff.reset()
                self._obey(command)
                patience.reschedule(loop.time() + self._interval * _SILENT_INTERVALS)

    async def _heartbeat(self) -> bool:
        """Renew the lease once; tell whether it worked."""
        request = HeartbeatRequest(runner_id=self._identity.runner_id, held=self._held.named())
        try:
            response = await self._server.Heartbeat(request, timeout=self._interval)
        except grpc.aio.AioRpcError as error:
            _LOG.debug("a heartbeat failed: %s: %s", error.code().name, error.details())
            return False
        for command in response.commands:
            self._obey(command)
        return True

    def _obey(self, command: RunnerCommand) -> None:
        kind = command.WhichOneof("command")
        if kind == "hello":
            self._greet(command.hello)
        elif kind == "drain":
            _LOG.info("the server is about to end: %s", command.drain.reason)
        else:
            self._held.obey(command)

    def _greet(self, hello: Hello) -> None:
        self._interval = to_seconds(hello.heartbeat_interval) or _INTERVAL_SECONDS
        if self._away or not self._attached.is_set():
            _LOG.info("attached as %s", self._identity.runner_id)
        self._away = False
        self._attached.set()

    def _check_refusal(self, error: grpc.aio.AioRpcError) -> None:
        """Give up on a server that has never let the runner attach, and never will."""
        refused = refusal(error)
        if refused is not None and not self._attached.is_set():
            raise RunnerRefused(str(refused)) from error

    def _note_outage(self, why: str) -> None:
        """Log the beginning of an outage, and no more of it."""
        if not self._away:
            _LOG.warning("not attached, trying again: %s", why)
        self._away = True
