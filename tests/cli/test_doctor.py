from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from runstream.storage import keys
from runstream.storage.records import AGENT
from runstream.storage.store import Unique
from tests.care.folders import write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.processes import CommandLine, ServerProcess


@pytest.fixture
def stopped(own_server: ServerProcess, own_cli: CommandLine, tmp_path: Path) -> str:
    """A data folder with two agents, whose server has ended."""
    own_cli.ok("agent", "create", "one")
    own_cli.ok("agent", "create", "two")
    assert own_server.stop() == 0
    return str(tmp_path / "data")


def test_a_sound_folder_ends_with_0(cli: CommandLine, stopped: str) -> None:
    done = cli.ok("doctor", stopped)
    assert done.out.startswith("sound: 2 agents, 0 instances")
    assert done.err == ""
    told = cli.ok("doctor", stopped, "-o", "json").out.splitlines()
    assert [json.loads(line)["summary"]["sound"] for line in told] == [True]


def test_findings_end_with_1_until_they_are_repaired(cli: CommandLine, stopped: str, tmp_path: Path) -> None:
    write(tmp_path / "data", [(keys.name(Unique("agent_slug", "", "one")), None)])
    found = cli("doctor", stopped)
    assert found.code == 1
    assert "NAME_MISSING" in found.out
    assert "--repair would mend 1 of 1" in found.out
    told = [json.loads(line) for line in cli("doctor", stopped, "-o", "json").out.splitlines()]
    assert told[0]["finding"]["code"] == "NAME_MISSING"
    assert told[1]["summary"]["repairable"] == {"NAME_MISSING": 1}
    mended = cli.ok("doctor", stopped, "--repair")
    assert "mended: 1 NAME_MISSING" in mended.out
    assert cli("doctor", stopped).code == 0


def test_what_cannot_be_repaired_ends_with_1_and_says_so(cli: CommandLine, stopped: str, tmp_path: Path) -> None:
    write(tmp_path / "data", [(keys.record(AGENT, "agt_1"), b"\xff")])
    left = cli("doctor", stopped, "--repair")
    assert left.code == 1
    assert "UNREADABLE" in left.out
    assert "restore a backup" in left.out


def test_a_running_server_is_named(own_cli: CommandLine, own_server: ServerProcess, tmp_path: Path) -> None:
    for command in (["doctor", "--repair"], ["compact"]):
        refused = own_cli(*command, str(tmp_path / "data"))
        assert refused.code == 1
        assert own_server.address in refused.err
        assert "FOLDER_IN_USE" in refused.err


def test_a_missing_folder_is_told_and_not_made(cli: CommandLine, tmp_path: Path) -> None:
    refused = cli("doctor", str(tmp_path / "nowhere"), "-o", "json")
    assert refused.code == 1
    assert json.loads(refused.err)["reason"] == "FOLDER_UNUSABLE"
    assert not (tmp_path / "nowhere").exists()


def test_a_person_sees_how_far_it_is_and_no_bar_is_left(cli: CommandLine, stopped: str) -> None:
    terminal = cli.open("doctor", stopped)
    assert terminal.wait() == 0
    assert "sound: 2 agents" in terminal.text
    assert "names" in terminal.text
    assert terminal.text.splitlines()[-1].startswith("sound: ")
