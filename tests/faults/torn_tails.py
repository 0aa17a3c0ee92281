"""The end of a log that was torn or garbled after a kill: in what nobody was told of, or in what somebody was."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from grpc import aio

from tests.care.folders import findings_of
from tests.end_to_end.folder_check import bits, check_folder
from tests.making import a_running_execution, token

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable
    from random import Random

    from tests.end_to_end.folder_check import Contents
    from tests.process import ServerProcess

_EXECUTIONS = 4
_COMMANDS = 40


class TornTails:
    """One server that is killed again and again, each time with the end of its log torn."""

    def __init__(self, server: ServerProcess, random: Random, tally: Counter[str]) -> None:
        self._server = server
        self._random = random
        self._tally = tally
        self._rounds = 0

    async def tear_what_nobody_was_told(self) -> None:
        """Spoil the log behind everything that was acknowledged: all of that must be there."""
        told, size = await self._work_and_kill()
        log = self._newest_log()
        with log.open("r+b") as file:
            spoilt = bytearray(log.read_bytes()[size:])
            file.truncate(size)
            file.seek(size)
            file.write(self._spoil(spoilt, log.read_bytes()[:size]))
        self._tally["torn tails"] += 1
        contents = await asyncio.to_thread(self._check)
        self._check_told(contents, told)

    async def cut_what_somebody_was_told(self) -> None:
        """Cut the log anywhere, as no crash does: what is left is all up to some commit, and nothing behind it."""
        _, size = await self._work_and_kill()
        whole = await asyncio.to_thread(self._copy_check)
        os.truncate(self._newest_log(), self._random.randrange(size))
        self._tally["logs cut"] += 1
        contents = await asyncio.to_thread(self._check)
        self._check_prefix(contents, whole)

    async def damage_a_commit(self) -> Path:
        """Garble a byte in the middle of what was acknowledged; return the log."""
        _, size = await self._work_and_kill()
        log = self._newest_log()
        spoilt = bytearray(log.read_bytes())
        spoilt[size // 2] ^= 0xFF
        log.write_bytes(spoilt)
        return log

    async def _work_and_kill(self) -> tuple[dict[str, int], int]:
        """Send commands one by one, then some at once, and kill; return what was told, and the size of the log then."""
        self._rounds += 1
        await self._server.start()
        async with self._server.client() as client:
            names = [await a_running_execution(client, agent=f"{self._rounds} {n}") for n in range(_EXECUTIONS)]
            told = {}
            for number in range(_COMMANDS):
                name = names[number % _EXECUTIONS]
                answer = await client.executions.UpdateStatus(token(name, "x" * self._random.randrange(2_000)))
                told[name] = answer.metadata.revision
            size = self._newest_log().stat().st_size
            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(_lost(client.executions.UpdateStatus(token(name, "y" * 9_000))))
                await asyncio.sleep(0)
                self._server.strike()
            await self._server.kill9()
        return told, size

    def _spoil(self, tail: bytearray, before: bytes) -> bytes:
        """What a crash may leave of what was on its way: a part of it, garbled or not, or something that never was."""
        if not tail:
            tail = bytearray(before[: self._random.randrange(1, 200)])
        kind = self._random.randrange(4)
        if kind == 0:
            return bytes(tail[: self._random.randrange(len(tail) + 1)])
        if kind == 1:
            return bytes(len(tail))
        if kind == 2:
            return self._random.randbytes(self._random.randrange(1, 5_000))
        return bytes(tail[: self._random.randrange(1, 8)]) + self._random.randbytes(40)

    def _newest_log(self) -> Path:
        return max((self._server.data / "leveldb").glob("*.log"), key=lambda file: int(file.stem))

    def _check(self) -> Contents:
        assert findings_of(self._server.data) == []
        return check_folder(self._server.data)

    def _copy_check(self) -> Contents:
        """What the folder holds, read from a copy: to open a database is to write its log anew."""
        with tempfile.TemporaryDirectory() as place:
            copy = Path(place) / "data"
            shutil.copytree(self._server.data, copy)
            return check_folder(copy)

    def _check_told(self, contents: Contents, told: dict[str, int]) -> None:
        for name, revision in told.items():
            assert len(contents.logs[name]) >= revision, f"{name} had {revision} and has {len(contents.logs[name])}"

    def _check_prefix(self, contents: Contents, whole: Contents) -> None:
        """Every log is the beginning of what it was; of commands sent in turn, no later one is there alone."""
        left = {name: len(log) for name, log in contents.logs.items()}
        for name, log in contents.logs.items():
            assert list(map(bits, log)) == list(map(bits, whole.logs[name][: len(log)]))
        newest = [left.get(name, 0) for name in list(whole.logs)[-_EXECUTIONS:]]
        if min(newest) > 2:  # all were there, and then took turns
            assert max(newest) - min(newest) <= 2, newest


async def _lost(call: Awaitable[object]) -> None:
    with suppress(aio.AioRpcError):
        await call
