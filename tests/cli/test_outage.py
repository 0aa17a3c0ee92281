from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.running import Runner
from tests.serving import Client

if TYPE_CHECKING:
    from tests.cli.processes import CommandLine, ServerProcess


@pytest.fixture
def own_execution(own_cli: CommandLine) -> str:
    own_cli.ok("agent", "create", "worker")
    return own_cli.ok("run", "worker", "do it", "--detach").out.strip()


async def test_a_watch_goes_on_where_it_was_lost(
    own_cli: CommandLine, own_server: ServerProcess, own_execution: str
) -> None:
    changes = own_cli.start("watch", own_execution, "--changes", "-o", "json")
    lines = own_cli.start("watch", own_execution)
    client = Client(own_server.address)
    await Runner(client, own_execution).speak("m1", "Before")
    changes.wait_for('"revision": "2"')
    lines.wait_for("phase PENDING")
    await client.channel.close()
    own_server.kill()
    changes.wait_for("connection lost, resuming after revision 2…")
    lines.wait_for("connection lost, resuming after revision")
    own_server.restart()
    changes.wait_for("resumed after revision 2")
    lines.wait_for("resumed after revision")
    client = Client(own_server.address)
    runner = Runner(client, own_execution)
    await runner.speak("m1", " and after.")
    await runner.start()
    await runner.complete()
    assert changes.wait() == 0
    assert lines.wait() == 0
    await client.channel.close()
    revisions = [json.loads(line)["revision"] for line in changes.output.splitlines() if line.startswith("{")]
    assert revisions == ["1", "2", "3", "4", "5"]
    assert "agent: Before and after.\n" in lines.output


def test_a_shutdown_is_an_outage_too(own_cli: CommandLine, own_server: ServerProcess, own_execution: str) -> None:
    watch = own_cli.start("watch", own_execution)
    watch.wait_for("phase PENDING")
    assert own_server.stop() == 0
    watch.wait_for("connection lost")
    own_server.restart()
    watch.wait_for("resumed")
    own_cli.ok("terminate", own_execution)
    assert watch.wait() == 5
    assert watch.output.count("connection lost") == watch.output.count("resumed") == 1


def test_patience_runs_out(own_cli: CommandLine, own_server: ServerProcess, own_execution: str) -> None:
    watch = own_cli.start("watch", own_execution, "--retry-for", "0.5")
    watch.wait_for("phase PENDING")
    own_server.kill()
    assert watch.wait() == 6
    assert "connection lost" in watch.output
    assert "runstream serve" in watch.output


def test_a_watched_list_shows_what_changed_meanwhile(
    own_cli: CommandLine, own_server: ServerProcess, own_execution: str
) -> None:
    watch = own_cli.start("list", "--watch")
    watch.wait_for(f"{own_execution}  PENDING")
    own_server.kill()
    watch.wait_for("connection lost")
    own_server.restart()
    watch.wait_for("resumed")
    own_cli.ok("terminate", own_execution)
    watch.wait_for(f"{own_execution}  TERMINATED")
    assert watch.output.count("PENDING") == 1


def test_a_server_that_was_never_there_is_not_waited_for(own_server: ServerProcess, own_cli: CommandLine) -> None:
    own_server.kill()
    for command in ("list", "watch aex_01m7yp1d35nh79685zp4amr7aw", "list --watch", "run x y"):
        result = own_cli(*command.split())
        assert result.code == 6
        assert f"cannot reach {own_server.address}" in result.err
        assert "hint: is the server running? start one with `runstream serve`" in result.err
