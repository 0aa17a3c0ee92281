"""Every command of the API at once, to a server that is killed in the middle of them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from grpc import aio

from runstream.v1.agent_execution_service_pb2 import WatchAgentExecutionRequest
from tests.care.folders import findings_of
from tests.end_to_end.folder_check import bits, check_folder
from tests.faults.commands import COMMANDS, Command
from tests.serving import UNAVAILABLE

if TYPE_CHECKING:
    from collections import Counter
    from random import Random

    from runstream.v1.agent_execution_pb2 import ExecutionChange
    from tests.process import ServerProcess
    from tests.serving import Client

#: How long after the first one it may take until the last command is through, in seconds.
_LONGEST = 0.25


class Barrage:
    """Fires all commands, kills the server, and judges what has become of each."""

    def __init__(self, server: ServerProcess, random: Random, tally: Counter[str]) -> None:
        self._server = server
        self._random = random
        self._tally = tally
        #: By how much each command changes the revision of what it is for, and what that is afterwards when it is new.
        self._effects: dict[str, int | None] = {}
        self._rounds = 0

    async def learn(self) -> None:
        """See what each command does when nobody is killed."""
        async with self._server.client() as client:
            for name, command in (await self._prepare(client)).items():
                await command.run(client)
                self._effects[name] = await command.look(client)
                await command.repeat(client)
                assert await command.look(client) == self._effects[name], f"{name} has an effect when it is repeated"

    async def fire(self) -> None:
        """Send all of them, kill the server at any moment, start it again, and check them one by one."""
        seen: dict[str, list[ExecutionChange]] = {}
        async with self._server.client() as client:
            commands = await self._prepare(client)
            async with asyncio.TaskGroup() as group:
                for command in commands.values():
                    group.create_task(self._run(client, command))
                    if command.execution_id:
                        group.create_task(self._watch(client, command.execution_id, seen))
                await asyncio.sleep(self._random.random() ** 2 * _LONGEST)
                self._server.strike()
            await self._server.kill9()
        self._tally["server kills"] += 1
        await asyncio.to_thread(self._check_folder, seen)
        await self._server.start()
        async with self._server.client() as client:
            for name, command in commands.items():
                await self._judge(client, name, command)

    async def _prepare(self, client: Client) -> dict[str, Command]:
        self._rounds += 1
        order = list(COMMANDS)
        self._random.shuffle(order)
        commands = {}
        for number, name in enumerate(order):
            commands[name] = made = await COMMANDS[name](client, f"round-{self._rounds}-{number}")
            made.before = await made.look(client)
        return commands

    async def _run(self, client: Client, command: Command) -> None:
        try:
            await command.run(client)
        except aio.AioRpcError as error:
            if error.code() is not UNAVAILABLE:
                raise

    async def _watch(self, client: Client, execution_id: str, seen: dict[str, list[ExecutionChange]]) -> None:
        """Follow until the server is gone; a deleted execution ends it before."""
        seen[execution_id] = []
        with suppress(aio.AioRpcError):
            async for change in client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id)):
                seen[execution_id].append(change)

    def _check_folder(self, seen: dict[str, list[ExecutionChange]]) -> None:
        """The folder is whole, and what anybody has seen is in it."""
        contents = check_folder(self._server.data)
        assert findings_of(self._server.data) == []
        for execution_id, changes in seen.items():
            log = contents.logs.get(execution_id)
            if log is not None:
                assert list(map(bits, changes)) == list(map(bits, log[: len(changes)])), "seen and not stored"

    async def _judge(self, client: Client, name: str, command: Command) -> None:
        """What was acknowledged is there; what was not is there whole or not at all; a repeat makes it so, once."""
        after, found = self._effects[name], await command.look(client)
        told = f"{name}: revision {command.before} before, {found} after the kill, {after} expected"
        possible = {after} if command.acknowledged else {command.before, after}
        if command.in_parts and not command.acknowledged and command.before is not None:
            possible.add(command.before + 1)
        assert found in possible, told
        await command.repeat(client)
        assert await command.look(client) == after, told
        self._tally["commands acknowledged"] += command.acknowledged
        self._tally["commands in doubt and repeated"] += not command.acknowledged
