"""A backup of a server under load is a folder that is sound and has all that was acknowledged before; or it is none."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from asyncio.subprocess import DEVNULL, PIPE, create_subprocess_exec
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from runstream.care.backup import restore
from runstream.v1.agent_execution_pb2 import EXECUTION_COMPLETED, ExecutionChange
from runstream.v1.agent_execution_service_pb2 import WatchAgentExecutionRequest
from runstream.v1.backup_pb2 import BackupRequest
from tests.care.folders import findings_of
from tests.end_to_end.blocked import path_to
from tests.end_to_end.folder_check import Contents, bits, check_folder
from tests.end_to_end.load import KEY_LABEL, Worker
from tests.making import a_running_execution, an_agent, delta, execution
from tests.process import ROUNDS, server_process

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.end_to_end.load import Known
    from tests.process import ServerProcess
    from tests.serving import Client

MIB = 1 << 20
CHANGE_BYTES = 256 << 10
WORKERS = 8
BOUND_SECONDS = 110
NARROW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 << 10))


async def backing_up(address: str, file: Path) -> Process:
    """Start the command that backs up a server."""
    return await create_subprocess_exec(
        *(sys.executable, "-m", "runstream.cli.main", "backup", "--server", address, str(file)),
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("RUNSTREAM_")},
    )


async def a_long_execution(client: Client, name: str, size: int, seeded: random.Random) -> str:
    """Create an execution that ends with a log of about `size` bytes, hard to compress; return its id."""
    execution_id = await a_running_execution(client, agent=name)
    for number in range(size // CHANGE_BYTES):
        request = delta(execution_id)
        request.status.tool_calls.add(id=str(number % 3), result=seeded.randbytes(CHANGE_BYTES // 2).hex())
        await client.executions.UpdateStatus(request)
    await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED))
    return execution_id


async def log_of(client: Client, execution_id: str) -> list[ExecutionChange]:
    """The log of an execution that has ended."""
    return [change async for change in client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id))]


class Load:
    """Workers that create, report, relabel, end and delete until they are stopped."""

    def __init__(self, agents: list[str], shared: list[str], seeded: random.Random) -> None:
        self.acknowledged = 0
        self.workers = [
            Worker(f"w{number}", random.Random(seeded.random()), agents, shared, self._acknowledge)
            for number in range(WORKERS)
        ]
        self._grown = asyncio.Event()

    @asynccontextmanager
    async def working(self, server: ServerProcess) -> AsyncIterator[None]:
        """Have them work for the length of the block."""
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(server.client()) for _ in self.workers]
            pairs = zip(self.workers, clients, strict=True)
            tasks = [asyncio.create_task(worker.run(client)) for worker, client in pairs]
            yield
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends

    async def reach(self, acknowledged: int) -> None:
        """Return when so many commands were acknowledged."""
        while self.acknowledged < acknowledged:
            self._grown.clear()
            await self._grown.wait()

    def ledger(self) -> dict[str, Known]:
        """What was acknowledged until now, by execution."""
        return {known.id: known for worker in self.workers for known in worker.known.values()}

    def _acknowledge(self) -> None:
        self.acknowledged += 1
        self._grown.set()


def check_ledger(before: dict[str, Known], restored: Contents, final: Contents) -> None:
    """All that was acknowledged is there with its log: not less than was known, and the beginning of what it became."""
    for execution_id, known in before.items():
        if known.deleted:
            assert execution_id not in restored.executions
        elif execution_id in restored.executions:
            log = restored.logs[execution_id]
            assert len(log) >= known.revision
            if execution_id in final.logs:
                assert log == final.logs[execution_id][: len(log)]
        else:
            assert execution_id not in final.executions  # deleted after the ledger was read


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_a_backup_under_load_restores_to_a_sound_folder_with_all_that_was_acknowledged(
    tmp_path: Path, seed: int
) -> None:
    """The doctor finds nothing in it, what had ended has its exact log, and the server never stopped to answer."""
    seeded = random.Random(seed)
    ledgers, logs = [], {}
    async with asyncio.timeout(BOUND_SECONDS), server_process(tmp_path / "data", cancel_grace=3600) as server:
        async with server.client() as client:
            for number in range(4):
                ended = await a_long_execution(client, f"long {number}", 5 * MIB, seeded)
                logs[ended] = await log_of(client, ended)
            agents = [await an_agent(client, f"agent {number}") for number in range(3)]
            shared = await client.executions.Create(execution(agent_id=agents[0], labels={KEY_LABEL: "shared"}))
        load = Load(agents, [shared.metadata.id], seeded)
        async with load.working(server):
            for number in range(3):
                await load.reach(load.acknowledged + 200)
                ledgers.append(load.ledger())
                begun = load.acknowledged
                command = await backing_up(server.address, tmp_path / f"{number}.backup")
                _, told = await command.communicate()
                assert command.returncode == 0, told
                assert load.acknowledged > begun + 20
        assert await server.terminate() == 0
    final = check_folder(tmp_path / "data")
    for number, before in enumerate(ledgers):
        data = tmp_path / f"restored {number}"
        restore(tmp_path / f"{number}.backup", data)
        assert findings_of(data) == []
        restored = check_folder(data)
        check_ledger(before, restored, final)
        for ended, log in logs.items():
            assert [bits(change) for change in restored.logs[ended]] == [bits(change) for change in log]


async def test_a_restored_backup_is_served(tmp_path: Path) -> None:
    """A server goes on with it where the other was."""
    async with asyncio.timeout(BOUND_SECONDS), server_process(tmp_path / "data") as server:
        async with server.client() as client:
            execution_id = await a_long_execution(client, "long", MIB, random.Random(1))
            log = await log_of(client, execution_id)
        command = await backing_up(server.address, tmp_path / "file")
        _, told = await command.communicate()
        assert command.returncode == 0, told
    restore(tmp_path / "file", tmp_path / "again")
    async with server_process(tmp_path / "again") as server, server.client() as client:
        assert await log_of(client, execution_id) == log
        assert await an_agent(client, "new")


@pytest.mark.parametrize("end", ["kill -9 of the command", "kill -9 of the server", "end of the server", "cut"])
async def test_a_backup_that_is_broken_off_leaves_no_file(tmp_path: Path, end: str) -> None:
    """However it ends before its time, nothing has the name; and while the command could clean up, nothing is left."""
    folder = tmp_path / "backups"
    folder.mkdir()
    async with asyncio.timeout(BOUND_SECONDS), AsyncExitStack() as stack:
        server = await stack.enter_async_context(server_process(tmp_path / "data", drain_timeout=1))
        async with server.client() as client:
            await a_long_execution(client, "long", 24 * MIB, random.Random(2))
        path = await stack.enter_async_context(path_to(server.address))
        path.to_runner.block_after(12 * MIB)
        command = await backing_up(path.address, folder / "file")
        await path.to_runner.full.wait()
        if end == "kill -9 of the command":
            command.kill()
        elif end == "kill -9 of the server":
            await server.kill9()
        elif end == "end of the server":
            assert await server.terminate() == 0
        if end == "cut":
            path.cut()
        elif end != "kill -9 of the command":
            path.free()
        _, told = await command.communicate()
        if end == "kill -9 of the command":
            assert command.returncode == -9
        else:
            assert (command.returncode, b"lost" in told or b"SHUTTING_DOWN" in told) == (6, True), told
        left = [file.name for file in folder.iterdir()]
        assert "file" not in left
        assert left == [] or (end == "kill -9 of the command" and left[0].startswith(".file."))


async def test_a_client_that_does_not_read_costs_the_server_no_memory(tmp_path: Path) -> None:
    """In front of a backup of 64 MiB that stands still, the server grows by a few chunks."""
    async with asyncio.timeout(BOUND_SECONDS), server_process(tmp_path / "data") as server, server.client() as client:
        await a_long_execution(client, "long", 64 * MIB, random.Random(3))
        entries = 0
        async with server.client(*NARROW) as other:
            call: Any = other.backups.Backup(BackupRequest())
            before = server.rss
            entries += len((await call.read()).keys)
            for number in range(50):
                await an_agent(client, f"agent {number}")
            grown = server.rss - before
            assert grown < 24 * MIB, f"it has grown by {grown / MIB:.0f} MiB"
            while not (chunk := await call.read()).HasField("totals"):
                entries += len(chunk.keys)
            assert server.rss - before < 24 * MIB
        assert chunk.totals.entries == entries
