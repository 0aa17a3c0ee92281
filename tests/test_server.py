"""The server as a whole: what it takes hold of, what it refuses, and what it writes to its log."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
import structlog

from runstream.dispatch.housekeeping import Purger
from runstream.server import Server
from runstream.settings import load_settings
from runstream.storage.folder import FolderInUse, UnknownFormat, read_owner
from tests.making import an_agent
from tests.serving import Client, serving

ROOT = Path(__file__).parents[1]


async def test_the_address_tells_the_port_that_was_chosen(tmp_path: Path) -> None:
    """With port 0 the address names the port that clients can use, in the folder's own file too."""
    async with serving(tmp_path / "data") as running:
        host, _, port = running.server.address.rpartition(":")
        assert (host, int(port)) == ("127.0.0.1", running.server.port)
        assert running.server.port > 0
        owner = read_owner(tmp_path / "data")
        assert (owner["address"], owner["pid"]) == (running.server.address, str(os.getpid()))


async def test_an_ipv6_address_can_be_listened_on(tmp_path: Path) -> None:
    """The address in brackets is taken, and clients reach it as it is told."""
    server = await Server.start(load_settings(None, listen="[::1]:0", data=tmp_path / "data"))
    client = Client(server.address)
    try:
        assert server.address == f"[::1]:{server.port}"
        assert await an_agent(client)
    finally:
        await client.channel.close()
        await server.stop()


async def test_a_second_server_on_the_folder_is_told_who_is_in_the_way(tmp_path: Path) -> None:
    """A folder in use is refused with the process and the address of its holder, which goes on undisturbed."""
    async with serving(tmp_path / "data") as running:
        with pytest.raises(FolderInUse) as refused:
            await Server.start(load_settings(None, listen="127.0.0.1:0", data=tmp_path / "data"))
        assert f"pid {os.getpid()}" in str(refused.value)
        assert f"address {running.server.address}" in str(refused.value)
        assert "since 20" in str(refused.value)
        assert await an_agent(running.client)


async def test_a_second_server_on_the_port_is_refused(tmp_path: Path) -> None:
    """A port in use is an OSError that names it; the other folder is free again, and the first server goes on."""
    async with serving(tmp_path / "first") as running:
        taken = running.server.address
        with pytest.raises(OSError, match=taken):
            await Server.start(load_settings(None, listen=taken, data=tmp_path / "second"))
        assert await an_agent(running.client)
        async with serving(tmp_path / "second") as other:
            assert await an_agent(other.client)


async def test_a_folder_of_an_unknown_format_is_refused_untouched(tmp_path: Path) -> None:
    """What a newer version wrote is left as it is, byte for byte."""
    data = tmp_path / "data"
    async with serving(data):
        pass
    (data / "FORMAT").write_text("runstream 99\n")
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    with pytest.raises(UnknownFormat, match="99"):
        await Server.start(load_settings(None, listen="127.0.0.1:0", data=data))
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


async def test_a_server_leaves_no_task_behind(tmp_path: Path) -> None:
    """After a stop nothing of the server runs any more in the loop."""
    before = asyncio.all_tasks()
    server = await Server.start(load_settings(None, listen="127.0.0.1:0", data=tmp_path / "data"))
    chores = {task.get_name() for task in asyncio.all_tasks() - before}
    assert {"Dispatcher", "Purger", "IdempotencyExpiry"} <= chores
    await server.stop()
    left = {task.get_name() for task in asyncio.all_tasks() - before if not task.done()}
    assert not left & {"Dispatcher", "Purger", "IdempotencyExpiry"}


async def test_a_server_that_cannot_start_leaves_no_task_behind(tmp_path: Path) -> None:
    """A start that fails leaves neither tasks nor a held folder."""
    async with serving(tmp_path / "first") as running:
        before = asyncio.all_tasks()
        with pytest.raises(OSError, match="cannot listen"):
            await Server.start(load_settings(None, listen=running.server.address, data=tmp_path / "second"))
        assert not {task.get_name() for task in asyncio.all_tasks() - before} & {"Dispatcher", "Purger"}


async def test_the_steps_of_commands_are_timed(tmp_path: Path) -> None:
    """A server that is measured knows how often each step of each command ran, and how long it took in all."""
    async with serving(tmp_path / "data", metrics="127.0.0.1:0") as running:
        for name in ("one", "two"):
            await an_agent(running.client, name)
        totals = running.server.step_times.totals()
    assert totals["Agent.Create", "Persist"].runs == 2
    assert totals["Agent.Create", "Persist"].seconds > 0
    assert ("Agent.Update", "Persist") not in totals


async def test_what_nobody_reads_is_not_timed(tmp_path: Path) -> None:
    """Without metrics and without the debug log no step is timed."""
    async with serving(tmp_path / "data") as running:
        await an_agent(running.client)
        assert running.server.step_times.totals() == {}


async def log_of_a_fault(data: Path, log_format: str) -> list[str]:
    """Run a server that fails on a request with a secret; return the lines of its log."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.failing_server", str(data), log_format),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    return stderr.decode().splitlines()


async def test_the_log_for_machines_is_json_and_holds_no_secret(tmp_path: Path) -> None:
    """Every line of the JSON log is an object, those of libraries too; a traceback shows no values of variables."""
    lines = await log_of_a_fault(tmp_path / "data", "json")
    assert not any("hush" in line for line in lines)
    entries = [json.loads(line) for line in lines]
    failed, written = [entry for entry in entries if entry["level"] == "error"]
    assert (failed["event"], failed["request_id"]) == ("failed", "mine")
    assert failed["method"] == "/runstream.v1.AgentExecutionCommandController/Create"
    assert failed["exception"][0]["exc_type"] == "ZeroDivisionError"
    assert written["event"] == "a write to the data folder failed"
    assert written["exception"][0]["exc_value"] == "disk on fire"


async def test_the_log_for_people_holds_no_secret(tmp_path: Path) -> None:
    """The console log shows what failed and where, and no values of variables."""
    text = "\n".join(await log_of_a_fault(tmp_path / "data", "console"))
    assert "hush" not in text
    assert "ZeroDivisionError: fails fails" in text
    assert "request_id=mine" in text
    assert "disk on fire" in text


async def test_a_chore_that_breaks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the server ends unheard: what it promises in time would silently be over."""

    async def breaks(_: Purger) -> None:
        raise ZeroDivisionError("the fault")

    monkeypatch.setattr(Purger, "run", breaks)
    with structlog.testing.capture_logs() as logs:
        async with serving(tmp_path / "data"):
            pass
    assert [entry["chore"] for entry in logs if entry["event"] == "chore_broken"] == ["Purger"]
