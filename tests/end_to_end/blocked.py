"""A path to the server of which either direction can be blocked: what is sent waits, and nobody is told.

To block is not to cut: both ends keep their connections, as behind a router that drops packets. What was sent meanwhile
arrives when the path is free again, unless it is cut before.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_CHUNK = 1 << 16


class Direction:
    """One way along the path, free or blocked, of all its connections."""

    def __init__(self) -> None:
        self._free = asyncio.Event()
        self._free.set()
        self._left: int | None = None
        #: Set once `block_after` has blocked it.
        self.full = asyncio.Event()

    def block(self) -> None:
        """Let nothing pass from now on."""
        self._free.clear()

    def block_after(self, size: int) -> None:
        """Let nothing pass after about so many bytes more."""
        self._left = size

    def free(self) -> None:
        """Let everything pass, first what has waited."""
        self._free.set()

    async def passable(self, size: int) -> None:
        """Return when it is free for so many bytes."""
        if self._left is not None:
            self._left -= size
            if self._left < 0:
                self._left = None
                self.block()
                self.full.set()
        await self._free.wait()


class BlockedPath:
    """A proxy in front of the server: `address` is where to call."""

    def __init__(self, server: str) -> None:
        host, _, port = server.rpartition(":")
        self._server = (host, int(port))
        self._writers: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.Task[None]] = set()
        self.address = ""
        self.to_server, self.to_runner = Direction(), Direction()

    def block(self) -> None:
        """Let nothing pass in either direction."""
        self.to_server.block()
        self.to_runner.block()

    def free(self) -> None:
        """Let everything pass in both directions."""
        self.to_server.free()
        self.to_runner.free()

    def cut(self) -> None:
        """Break every connection, with what is on its way."""
        for writer in self._writers:
            writer.transport.abort()
        for task in self._carrying:
            task.cancel()

    async def close(self) -> None:
        """Cut it for good."""
        self.cut()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._server)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, server_writer}
        self._writers |= pair
        ways = {
            asyncio.create_task(_carry(reader, server_writer, self.to_server)),
            asyncio.create_task(_carry(server_reader, writer, self.to_runner)),
        }
        self._carrying |= ways
        await asyncio.wait(ways)
        self._writers -= pair
        self._carrying -= ways


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Direction) -> None:
    """Carry one direction to its end, and end the other one's connection with it."""
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            await way.passable(len(data))
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


@asynccontextmanager
async def path_to(server: str) -> AsyncIterator[BlockedPath]:
    """Make a path to the server for the length of the block."""
    path = BlockedPath(server)
    listening = await asyncio.start_server(path.connect, "127.0.0.1", 0)
    path.address = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield path
    finally:
        listening.close()
        await path.close()
