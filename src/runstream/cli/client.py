"""The client: calls with the connection's deadline, and what every command does with them."""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from grpc.aio import AioRpcError

from runstream.cli.failure import Misuse, retry_after
from runstream.cli.output import Output
from runstream.v1.agent_execution_service_pb2_grpc import (
    AgentExecutionCommandControllerStub,
    AgentExecutionQueryControllerStub,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from grpc.aio import Channel, UnaryUnaryMultiCallable

    from runstream.cli.connection import Connection

Q = TypeVar("Q")
A = TypeVar("A")

#: The most that one page of a list may hold.
MAX_PAGE = 1000


class Client:
    """One command's connection to the server, and its output."""

    def __init__(self, connection: Connection, channel: Channel) -> None:
        """Call over `channel`, which `connection` opened."""
        self.connection = connection
        self.channel = channel
        self.output = Output(connection.format)

    @cached_property
    def commands(self) -> AgentExecutionCommandControllerStub:
        """The commands of executions."""
        return AgentExecutionCommandControllerStub(self.channel)

    @cached_property
    def queries(self) -> AgentExecutionQueryControllerStub:
        """The queries of executions."""
        return AgentExecutionQueryControllerStub(self.channel)

    async def call(
        self,
        method: UnaryUnaryMultiCallable[Q, A],
        request: Q,
        metadata: Mapping[str, str] | None = None,
        seconds: float | None = None,
    ) -> A:
        """Call `method` once; again when the server has not begun it and asks to try later, as long as there is time.

        That is `seconds`, else those of the connection. Raises `grpc.aio.AioRpcError`.
        """
        pairs, loop = tuple((metadata or {}).items()), asyncio.get_running_loop()
        end = loop.time() + (self.connection.seconds if seconds is None else seconds)
        while True:
            try:
                return await method(request, timeout=end - loop.time(), metadata=pairs)
            except AioRpcError as error:
                delay = retry_after(error)
                if delay is None or loop.time() + delay >= end:
                    raise
            await asyncio.sleep(delay)


def idempotent(key: str) -> Mapping[str, str]:
    """Return the metadata that makes a repeated Create harmless; none for an empty key. Raises `Misuse`."""
    if not (key.isascii() and (key.isprintable() or not key)):
        raise Misuse("--idempotency-key takes printable ASCII characters")
    return {"idempotency-key": key} if key else {}


async def collect(
    fetch: Callable[[int, str], Awaitable[tuple[list[A], str]]], limit: int | None, page_token: str
) -> tuple[list[A], str]:
    """Return up to `limit` entries, all without one, and the token of what comes after them.

    `fetch` returns the page of a size after a token, and the token of the next.
    """
    entries: list[A] = []
    token = page_token
    while True:
        size = MAX_PAGE if limit is None else min(limit - len(entries), MAX_PAGE)
        page, token = await fetch(size, token)
        entries += page
        if not token or (limit is not None and len(entries) >= limit):
            return entries, token
