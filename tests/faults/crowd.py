"""Connections that do nothing good: silent, half-open, talking nonsense, asking and never reading."""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_INITIAL_WINDOW_SIZE: Final = 4
_SERVICE: Final = "/runstream.v1.AgentExecutionQueryController"
_CONNECT_AT_ONCE: Final = 64
#: The kinds of connections.
KINDS: Final = ("silent", "half a preface", "no requests", "nonsense", "half a frame", "half closed", "never reads")


def most_connections(wanted: int) -> int:
    """Return how many connections this process may open: no more than a third of its files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(wanted, soft // 3)


def words_of(kind: str, execution_id: str) -> bytes:
    """What a connection of a kind has to say; after that it says nothing more."""
    settings = _frame(_SETTINGS, 0, 0, b"")
    return {
        "silent": b"",
        "half a preface": _PREFACE[:11],
        "no requests": _PREFACE + settings,
        "nonsense": b"GET /\xff\xfe HTTP/0.7\r\n\r\n" * 20,
        "half a frame": _PREFACE + settings + b"\x00\x40\x00\x00\x00\x00\x00\x00\x01half",
        "half closed": _PREFACE + settings,
        "never reads": _PREFACE + _watch_that_takes_nothing(execution_id),
    }[kind]


def _watch_that_takes_nothing(execution_id: str) -> bytes:
    """A Watch whose stream has no window: whatever the server has to say, it must keep to itself."""
    no_window = _frame(_SETTINGS, 0, 0, struct.pack("!HI", _INITIAL_WINDOW_SIZE, 0))
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"{_SERVICE}/Watch",
        ":authority": "127.0.0.1",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(b"\0" + _string(name) + _string(value) for name, value in headers.items())
    message = b"\x0a" + _string(execution_id)
    request = b"\0" + struct.pack("!I", len(message)) + message
    return no_window + _frame(_HEADERS, _END_HEADERS, 1, block) + _frame(_DATA, _END_STREAM, 1, request)


def window_of(size: int) -> bytes:
    """What a connection says that never read, when it takes so many bytes on each of its streams after all."""
    return _frame(_SETTINGS, 0, 0, struct.pack("!HI", _INITIAL_WINDOW_SIZE, size))


def _string(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


@asynccontextmanager
async def crowd(address: str, number: int, random: Random, execution_id: str) -> AsyncIterator[int]:
    """Keep so many connections open for the length of the block; gives how many there are. Some are reset at its end.

    The server may hang up on those that talk nonsense.
    """
    host, _, port = address.rpartition(":")
    at_once, loop = asyncio.Semaphore(_CONNECT_AT_ONCE), asyncio.get_running_loop()
    connections: list[socket.socket] = []

    async def connect() -> None:
        kind = random.choice(KINDS)
        made = socket.socket()
        made.setblocking(False)  # noqa: FBT003  # it takes nothing else
        connections.append(made)
        with suppress(ConnectionError):
            async with at_once:
                await loop.sock_connect(made, (host, int(port)))
                await loop.sock_sendall(made, words_of(kind, execution_id))
            if kind == "half closed":
                made.shutdown(socket.SHUT_WR)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(most_connections(number)):
                group.create_task(connect())
        yield len(connections)
    finally:
        for connection in connections:
            if random.random() < 0.5:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
