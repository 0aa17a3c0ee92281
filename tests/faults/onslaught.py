"""Sends what is hostile to every method, and takes no answer but a clear one."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final

import grpc
from grpc import aio

from tests.raw import every_method

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

    from tests.faults.hostile import HostileMessages

#: What a client hears when the server does not know what has happened, or does not answer.
UNCLEAR: Final = frozenset(
    {
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.DATA_LOSS,
    }
)
#: Beyond this a call counts as one that hangs.
_PATIENCE_SECONDS: Final = 30
#: How long a stream may be open before it is left: those that are answered at all have been by then.
_LISTENING_SECONDS: Final = 0.05
_AT_ONCE: Final = 16


class Onslaught:
    """A client that sends hostile messages, and counts what it is told."""

    def __init__(self, channel: aio.Channel, messages: HostileMessages) -> None:
        self._channel = channel
        self._messages = messages
        #: How often each kind was sent, and each code was told.
        self.sent: Counter[str] = Counter()
        self.told: Counter[str] = Counter()

    async def run(self, each: int) -> None:
        """Send so many messages to each method. AssertionError for an answer that is none."""
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def send(method: MethodDescriptor) -> None:
            async with at_once:
                await self.send(method)

        async with asyncio.TaskGroup() as group:
            for method in every_method() * each:
                group.create_task(send(method))

    async def send(self, method: MethodDescriptor) -> None:
        """Send one message to a method."""
        kind, payload = self._messages.payload(method)
        metadata = self._messages.metadata()
        self.sent[kind] += 1
        told = await self._told(method, payload, metadata)
        self.told[told.name] += 1
        assert told not in UNCLEAR, (
            f"{method.full_name} answers {told.name} to {kind}: {payload[:2000].hex()} {metadata}"
        )

    async def _told(
        self, method: MethodDescriptor, payload: bytes, metadata: tuple[tuple[str, str], ...]
    ) -> grpc.StatusCode:
        path = f"/{method.containing_service.full_name}/{method.name}"
        try:
            if method.server_streaming:
                await self._listen(path, payload, metadata)
            else:
                unary: aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(path)
                await unary(payload, metadata=metadata, timeout=_PATIENCE_SECONDS)
        except aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    async def _listen(self, path: str, payload: bytes, metadata: tuple[tuple[str, str], ...]) -> None:
        """Read for a moment; a stream that stays open is no answer that is missing."""
        multi: aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(path)
        stream = multi(payload, metadata=metadata, timeout=_PATIENCE_SECONDS)
        try:
            async with asyncio.timeout(_LISTENING_SECONDS):
                async for _ in stream:
                    pass
        except TimeoutError:
            return
        finally:
            stream.cancel()
