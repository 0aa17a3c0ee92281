"""Workers who call a server with a mixed load, and lose it to kill -9 again and again; what they were told is kept."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from itertools import count
from typing import TYPE_CHECKING

import grpc
from grpc import aio

from tests.care.folders import findings_of
from tests.end_to_end.folder_check import check_folder
from tests.end_to_end.load import KEY_LABEL, Worker
from tests.making import an_agent, execution

if TYPE_CHECKING:
    from tests.end_to_end.folder_check import Contents
    from tests.process import ServerProcess
    from tests.serving import Client

WORKERS = 12
SHARED = 3


class Siege:
    """The workers, and the server that they lose again and again."""

    def __init__(self, server: ServerProcess, seeded: random.Random) -> None:
        self._server = server
        self._agents: list[str] = []
        self._shared: list[str] = []
        self._acknowledged = 0
        self._limit = 0
        self._struck = False
        self._numbers = count()
        self._workers = [
            Worker(f"w{number}", random.Random(seeded.random()), self._agents, self._shared, self._acknowledge)
            for number in range(WORKERS)
        ]

    async def prepare(self) -> None:
        """Make what all workers share."""
        async with self._server.client() as client:
            self._agents.append(await an_agent(client, "first"))
            for _ in range(SHARED):
                made = await client.executions.Create(execution(agent_id=self._agents[0], labels={KEY_LABEL: "shared"}))
                self._shared.append(made.metadata.id)

    async def strike_at(self, acknowledged: int) -> Contents:
        """Let all workers work, kill at the so manieth acknowledgement, and check the folder against the ledger."""
        self._acknowledged, self._limit, self._struck = 0, acknowledged, False
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(self._server.client()) for _ in self._workers]
            # New agents have no instance yet, and the workers will be at them all at once.
            self._agents[:] = [await an_agent(clients[0], f"agent {next(self._numbers)}") for _ in range(3)]
            if acknowledged == 0:
                self._strike()
            async with asyncio.TaskGroup() as group:
                for worker, client in zip(self._workers, clients, strict=True):
                    group.create_task(self._until_struck(worker, client))
        await self._server.kill9()
        contents = check_folder(self._server.data)
        assert findings_of(self._server.data) == []
        self._check_against_ledgers(contents)
        return contents

    async def make_peace(self) -> None:
        """Let the workers send again what is in doubt, end the server as an operator does, and find no doubt left."""
        async with self._server.client() as client, asyncio.TaskGroup() as group:
            for worker in self._workers:
                group.create_task(worker.settle(client))
        assert await self._server.terminate() == 0
        assert not any(worker.doubt or worker.doubted_creation or worker.doubted_text for worker in self._workers)
        self._check_against_ledgers(check_folder(self._server.data))

    def _acknowledge(self) -> None:
        self._acknowledged += 1
        if self._acknowledged == self._limit:
            self._strike()

    def _strike(self) -> None:
        self._struck = True
        self._server.strike()

    async def _until_struck(self, worker: Worker, client: Client) -> None:
        try:
            await worker.run(client)
        except aio.AioRpcError as error:
            if not self._struck or error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise

    def _check_against_ledgers(self, contents: Contents) -> None:
        for worker in self._workers:
            worker.check(contents)
        self._check_creations(contents)
        self._check_orphans(contents)

    def _check_creations(self, contents: Contents) -> None:
        """No Create has made two executions, and there is none that nobody asked for."""
        keys = [state.metadata.labels[KEY_LABEL] for state in contents.executions.values()]
        keys = [key for key in keys if key != "shared"]
        assert len(keys) == len(set(keys))
        asked = {creation.key for worker in self._workers for creation in worker.created}
        asked |= {worker.doubted_creation.key for worker in self._workers if worker.doubted_creation}
        assert set(keys) <= asked

    def _check_orphans(self, contents: Contents) -> None:
        """Instances and sessions came with a Create, so each has what it was made for."""
        assert {agent.status.default_instance_id for agent in contents.agents.values()} - {""} == set(
            contents.instances
        )
        used = {state.spec.session_id for state in contents.executions.values()}
        used |= {known.session_id for worker in self._workers for known in worker.known.values()}
        assert contents.sessions.keys() <= used
