"""A server whose disk is full, or refuses to take more: what it says meanwhile, and how it goes on with room again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from grpc import aio

from tests.care.folders import findings_of
from tests.end_to_end.folder_check import check_folder
from tests.end_to_end.load import text_of
from tests.making import a_running_execution, stored, token
from tests.serving import UNAVAILABLE, Refusal

if TYPE_CHECKING:
    from collections import Counter
    from random import Random

    from tests.faults.faulty_server import FaultyServer
    from tests.faults.small_disk import SmallDisk
    from tests.serving import Client

_WRITERS: Final = 6
#: What a client is told of a disk that refuses, with UNAVAILABLE.
_REASON: Final = "STORE_UNAVAILABLE"


class FullDisk:
    """Writers who write until the disk refuses, and go on when it does not; each keeps what was acknowledged."""

    def __init__(self, server: FaultyServer, disk: SmallDisk | None, random: Random, tally: Counter[str]) -> None:
        """Take the server, and the disk that it is on; without one, files are kept from growing."""
        self._server = server
        self._disk = disk
        self._random = random
        self._tally = tally
        self._texts: dict[str, str] = {}
        #: What was in doubt when it was refused: it may be there or not.
        self._doubts: dict[str, str] = {}

    async def prepare(self) -> None:
        """Start the server, and make what is written to."""
        await self._server.start()
        async with self._server.client() as client:
            for number in range(_WRITERS):
                self._texts[await a_running_execution(client, agent=f"writer {number}")] = ""

    async def fill_and_free(self) -> None:
        """Fill the disk, see that everybody is refused and can read, free it, and see that all goes on."""
        async with self._server.client() as client:
            self._fill()
            await asyncio.gather(*(self._write_until_refused(client, name) for name in self._texts))
            await self._check_read(client)
            self._free()
            await asyncio.gather(*(self._write_on(client, name) for name in self._texts))
        self._tally["full disks"] += 1

    async def kill_while_full(self) -> None:
        """Kill the server on a full disk and start it there: it serves or says why not, and does when there is room."""
        async with self._server.client() as client:
            self._fill()
            await asyncio.gather(*(self._write_until_refused(client, name) for name in self._texts))
        await self._server.kill9()
        self._tally["server kills"] += 1
        if self._disk is not None:
            await self._start_on_full_disk()
        self._free()
        await self._server.start()
        async with self._server.client() as client:
            await self._check_read(client)
            await asyncio.gather(*(self._write_on(client, name) for name in self._texts))
        self._tally["full disks"] += 1

    async def conclude(self) -> None:
        """End the server; the folder is sound and holds every text as it was acknowledged."""
        assert await self._server.terminate() == 0
        assert findings_of(self._server.data) == []
        states = check_folder(self._server.data).executions
        assert {name: text_of(states[name], "m") for name in self._texts} == self._texts

    def _fill(self) -> None:
        room = self._random.randrange(100_000)
        if self._disk is None:
            self._server.refuse_writes(after=room)
        else:
            self._disk.fill(but=room)

    def _free(self) -> None:
        if self._disk is None:
            self._server.take_writes()
        else:
            self._disk.free()

    async def _start_on_full_disk(self) -> None:
        try:
            await self._server.start()
        except RuntimeError as error:
            assert "No space left" in str(error), str(error)  # noqa: PT017  # it may also start
        await self._server.kill9()

    async def _write_until_refused(self, client: Client, name: str) -> None:
        for number in range(100_000):
            text = f"{number} {'.' * self._random.randrange(5_000)} "
            try:
                await client.executions.UpdateStatus(token(name, text))
            except aio.AioRpcError as error:
                told = Refusal(error)
                assert (told.code, told.reason) == (UNAVAILABLE, _REASON), told.message
                self._doubts[name] = text
                return
            self._texts[name] += text
        raise AssertionError("a full disk took everything")

    async def _check_read(self, client: Client) -> None:
        """Everything acknowledged is read; what was refused is there whole or not at all."""
        for name, known in self._texts.items():
            found = text_of(await stored(client, name), "m")
            assert found in (known, known + self._doubts.get(name, "")), "a text is lost or doubled"
            self._texts[name] = found

    async def _write_on(self, client: Client, name: str) -> None:
        """Write once more; until the server has found that there is room, it is refused."""
        self._texts[name] = text_of(await stored(client, name), "m")
        while True:
            try:
                await client.executions.UpdateStatus(token(name, "on "))
            except aio.AioRpcError as error:
                if Refusal(error).reason != _REASON:
                    raise
                await asyncio.sleep(0.02)
            else:
                break
        found = text_of(await stored(client, name), "m")
        assert found in (self._texts[name] + "on ", self._texts[name] + self._doubts.get(name, "") + "on ")
        self._texts[name] = found
        self._doubts.pop(name, None)
