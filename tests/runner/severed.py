"""A path to the server that can be cut, and that cuts itself off in the middle of what it carries."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_CHUNK = 1 << 16


class Path:
    """A proxy in front of the server: `address` is where to call, `cut` breaks every connection."""

    def __init__(self, server: str, breaks: Iterator[int]) -> None:
        """Break each connection after some more bytes in either direction, as many as `breaks` says each time."""
        host, _, port = server.rpartition(":")
        self._server = (host, int(port))
        self._breaks = breaks
        self._left = next(breaks, None)
        self._writers: set[asyncio.StreamWriter] = set()
        self.address = ""
        #: How often it was cut.
        self.cuts = 0
        #: Whether it lets nobody through.
        self.closed = False

    def cut(self) -> None:
        """Break every connection, with what is on its way."""
        self.cuts += 1
        for writer in self._writers:
            writer.transport.abort()

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        if self.closed:
            writer.transport.abort()
            return
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._server)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, server_writer}
        self._writers |= pair
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._carry(reader, server_writer))
            tasks.create_task(self._carry(server_reader, writer))
        self._writers -= pair

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                if self._worn(len(data)):
                    self.cut()
                    return
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    def _worn(self, size: int) -> bool:
        """Whether the path breaks while it carries this."""
        if self._left is None:
            return False
        self._left -= size
        if self._left > 0:
            return False
        self._left = next(self._breaks, None)
        return True


@asynccontextmanager
async def path_to(server: str, breaks: Iterator[int] | None = None) -> AsyncIterator[Path]:
    """Make a path to the server for the length of the block."""
    path = Path(server, breaks or iter(()))
    listening = await asyncio.start_server(path.connect, "127.0.0.1", 0)
    path.address = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield path
    finally:
        listening.close()
        path.cut()
