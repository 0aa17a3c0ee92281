"""A runner as it is on the wire: its stream, its heartbeats, and nothing that hides them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from runstream.v1.runner_pb2 import (
    AttachRequest,
    DetachRequest,
    HeartbeatRequest,
    Held,
    RunnerCommand,
)
from runstream.v1.runner_pb2_grpc import RunnerControllerStub
from tests.serving import refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from grpc import aio

    from runstream.v1.runner_pb2 import Assignment, Hello
    from tests.serving import Client, Refusal

#: How long a test waits for a command before it fails; none is ever waited for so long.
SECONDS = 30


class Attached:
    """One open Attach of a runner."""

    def __init__(
        self, client: Client, runner_id: str, stream: aio.UnaryStreamCall[AttachRequest, RunnerCommand], hello: Hello
    ) -> None:
        self.id = runner_id
        self.hello = hello
        self._stub = RunnerControllerStub(client.channel)
        self._stream = stream
        #: Commands read and not asked for yet.
        self._others: list[RunnerCommand] = []

    async def command(self, kind: str) -> RunnerCommand:
        """Return the next command of a kind; others stay for later."""
        for at, known in enumerate(self._others):
            if known.WhichOneof("command") == kind:
                return self._others.pop(at)
        async with asyncio.timeout(SECONDS):
            while isinstance(command := await self._stream.read(), RunnerCommand):
                if command.WhichOneof("command") == kind:
                    return command
                self._others.append(command)
        raise AssertionError(f"the stream ended; before that came {self._others}")

    async def assignment(self) -> Assignment:
        """Return the next assignment."""
        return (await self.command("assign")).assign

    async def heartbeat(self, *held: Held) -> list[RunnerCommand]:
        """Send a heartbeat; return what it was answered with."""
        answer = await self._stub.Heartbeat(HeartbeatRequest(runner_id=self.id, held=held))
        return list(answer.commands)

    async def detach(self) -> None:
        """Give everything back."""
        await self._stub.Detach(DetachRequest(runner_id=self.id))

    async def ended(self) -> Refusal:
        """Read the stream to its end; return what ended it."""
        async with asyncio.timeout(SECONDS):
            return await refusal(self._read_all())

    async def _read_all(self) -> None:
        while isinstance(command := await self._stream.read(), RunnerCommand):
            self._others.append(command)

    def unread(self) -> list[RunnerCommand]:
        """Return what was read and not asked for."""
        return self._others


def held(assignment: Assignment, revision: int = 0) -> Held:
    """Name what was assigned."""
    return Held(execution_id=assignment.execution.metadata.id, attempt=assignment.attempt, revision=revision)


@asynccontextmanager
async def attached(
    client: Client,
    runner_id: str = "runner-1",
    *,
    capacity: int = 8,
    agents: Sequence[str] = (),
    holding: Sequence[Held] = (),
) -> AsyncIterator[Attached]:
    """Attach a runner for the length of the block; the end of the block cuts the stream and nothing more."""
    stream = RunnerControllerStub(client.channel).Attach(
        AttachRequest(runner_id=runner_id, capacity=capacity, agents=agents, held=holding)
    )
    try:
        async with asyncio.timeout(SECONDS):
            first = await stream.read()
        assert isinstance(first, RunnerCommand)
        assert first.WhichOneof("command") == "hello"
        yield Attached(client, runner_id, stream, first.hello)
    finally:
        stream.cancel()
