"""The command line at the limits of a server: it waits as it is asked to, and says what it cannot wait for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from runstream.cli.client import Client as CommandLineClient
from runstream.cli.connection import Connection
from runstream.cli.follow import Follower
from runstream.v1.agent_execution_pb2 import ExecutionChange
from runstream.v1.agent_execution_service_pb2 import ListAgentExecutionsRequest
from tests.cli.processes import PATIENCE, CommandLine, ServerProcess
from tests.making import a_running_execution
from tests.refused import hear_of_refusals
from tests.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def limited(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[CommandLine]:
    """The command line of a server that takes one call at once, and then as many per second as the test says."""
    config = tmp_path / "runstream.toml"
    config.write_text(f"client_rate = {request.param}\nclient_burst = 1\n")
    server = ServerProcess(tmp_path / "data", "--config", str(config))
    command_line = CommandLine(server.address)
    yield command_line
    command_line.end()
    server.end()


@pytest.mark.parametrize("limited", [20], indirect=True)
def test_a_command_is_done_however_seldom_it_may_call(limited: CommandLine) -> None:
    """A call that came too soon is made again when the server has said; nothing is told of it."""
    limited.ok("agent", "create", "worker")
    limited.ok("run", "worker", "do it", "--detach")
    limited.ok("run", "worker", "do it", "--detach")
    execution = limited.ok("run", "worker", "do it", "--detach").out.strip()
    assert len(limited.json("list", "--all")["entries"]) == 3
    watch = limited.start("watch", execution)
    watch.wait_for("phase PENDING")
    limited.ok("terminate", execution)
    assert watch.wait() == 5
    assert "connection lost" not in watch.output


@pytest.mark.parametrize("limited", [20], indirect=True)
def test_executions_are_moved_and_backed_up_however_seldom_one_may_call(limited: CommandLine, tmp_path: Path) -> None:
    """What sends many calls waits as any command does, without beginning a log anew."""
    limited.ok("agent", "create", "worker")
    for name in ("one", "two"):
        limited.ok("terminate", limited.ok("run", "worker", name, "--detach").out.strip())
    file = tmp_path / "all.jsonl"
    limited.ok("export", "-o", str(file))
    limited.ok("delete", "--yes", *(entry["metadata"]["id"] for entry in limited.json("list", "--all")["entries"]))
    assert limited.json("import", str(file)) == {"imported": 2, "unchanged": 0, "kept": 0}
    for number in range(3):
        limited.ok("backup", str(tmp_path / f"backup {number}"))


@pytest.mark.parametrize("limited", [0.001], indirect=True)
def test_what_takes_longer_than_the_timeout_is_refused_at_once(limited: CommandLine) -> None:
    limited.ok("agent", "create", "worker")
    refused = limited("agent", "create", "other")
    assert refused.code == 1
    assert "reason: CLIENT_RATE_EXCEEDED" in refused.err
    assert "calls more than 0.001 times a second" in refused.err


async def test_a_watch_waits_for_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = hear_of_refusals(monkeypatch)
    async with serving(tmp_path / "data", max_streams=1) as served:
        execution_id = await a_running_execution(served.client)
        taken = served.client.queries.WatchList(ListAgentExecutionsRequest())
        await taken.initial_metadata()
        connection = Connection(server=served.server.address)
        async with connection.open() as channel, asyncio.timeout(PATIENCE):
            client = CommandLineClient(connection, channel)
            happenings = Follower(client, execution_id, 0, from_snapshot=False, retry_for=PATIENCE).happenings()
            first = asyncio.ensure_future(anext(happenings))
            await heard.wait()
            taken.cancel()
            change = await first
            assert isinstance(change, ExecutionChange)
            assert change.revision == 1
            await happenings.aclose()


async def test_a_watch_without_patience_says_what_it_would_wait_for(tmp_path: Path) -> None:
    async with serving(tmp_path / "data", max_streams=1) as served:
        execution_id = await a_running_execution(served.client)
        await served.client.queries.WatchList(ListAgentExecutionsRequest()).initial_metadata()
        command_line = CommandLine(served.server.address)
        refused = await asyncio.to_thread(command_line, "watch", execution_id, "--retry-for", "0")
    assert refused.code == 1
    assert "reason: TOO_MANY_STREAMS" in refused.err
