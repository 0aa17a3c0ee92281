from __future__ import annotations

import hashlib
import json
import stat
from typing import TYPE_CHECKING

import pytest

from tests.cli.processes import CommandLine, ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def other_cli(tmp_path: Path) -> Iterator[CommandLine]:
    """The command line of another server of the test's own."""
    server = ServerProcess(tmp_path / "other")
    command_line = CommandLine(server.address)
    yield command_line
    command_line.end()
    server.end()


@pytest.fixture
def ended(own_cli: CommandLine) -> str:
    """The id of an execution that has ended."""
    own_cli.ok("agent", "create", "keeper")
    execution_id = own_cli.ok("run", "keeper", "x", "--detach", "--tag", "old").out.strip()
    own_cli.ok("terminate", execution_id)
    return execution_id


def test_executions_move_to_another_server(
    own_cli: CommandLine, other_cli: CommandLine, ended: str, tmp_path: Path
) -> None:
    file = tmp_path / "all.jsonl"
    own_cli.ok("export", "-o", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    *lines, last = file.read_bytes().splitlines(keepends=True)
    kinds = [next(iter(sorted(json.loads(line)))) for line in lines]
    assert kinds == ["runstream_export", "agent", "session", "execution", "change", "change"]
    end = json.loads(last)["end"]
    assert end["sha256"] == hashlib.sha256(b"".join(lines)).hexdigest()
    assert (end["executions"], end["changes"], end["agents"], end["sessions"]) == (1, 2, 1, 1)
    assert other_cli.json("import", str(file)) == {"imported": 1, "unchanged": 0, "kept": 0}
    assert "1 were there already" in other_cli.ok("import", "-", stdin=file.read_text()).out
    assert other_cli.json("get", ended) == own_cli.json("get", ended)
    again = other_cli.ok("export").out.splitlines(keepends=True)
    assert [line.encode() for line in again[1:-1]] == lines[1:]


def test_an_export_is_of_what_is_asked_for(own_cli: CommandLine, ended: str) -> None:
    other = own_cli.ok("run", "keeper", "y", "--detach").out.strip()
    for arguments in ([ended], ["--phase", "terminated"], ["--tag", "old", "--agent", "keeper"]):
        out = own_cli.ok("export", *arguments).out
        assert ended in out
        assert other not in out
    header = json.loads(own_cli.ok("export", "--tag", "old").out.splitlines()[0])["runstream_export"]
    assert (header["format"], header["filter"]) == (1, {"tags": ["old"]})
    assert own_cli("export", ended, "--tag", "old").code == 2


def test_what_is_gone_is_told(own_cli: CommandLine, ended: str, tmp_path: Path) -> None:
    gone = "aex_00000000000000000000000000"
    file = tmp_path / "some.jsonl"
    left = own_cli("export", ended, gone, "-o", str(file))
    assert left.code == 1
    assert f"{gone} is left out" in left.err
    assert json.loads(file.read_bytes().splitlines()[-1])["end"]["executions"] == 1


def test_no_file_is_written_over(own_cli: CommandLine, ended: str, tmp_path: Path) -> None:
    file = tmp_path / "there"
    file.write_text("mine")
    refused = own_cli("export", ended, "-o", str(file))
    assert (refused.code, "TARGET_TAKEN" in refused.err) == (1, True)
    assert file.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "there"]


def test_a_file_that_is_not_whole_is_refused(
    own_cli: CommandLine, other_cli: CommandLine, ended: str, tmp_path: Path
) -> None:
    whole = own_cli.ok("export", ended).out.encode()
    lines = whole.splitlines(keepends=True)
    altered = whole.replace(b'"terminal":true', b'"terminal":false')
    broken = {
        "its last line is missing": b"".join(lines[:-1]),
        "is no JSON: the file is torn": whole[:-40],
        "it was altered": altered,
        "something stands behind its last line": whole + b"\n",
        "it was not written by": b"{}\n",
        "of format 2": whole.replace(b'"format":1', b'"format":2'),
    }
    assert altered != whole
    for told, data in broken.items():
        file = tmp_path / "broken.jsonl"
        file.write_bytes(data)
        refused = other_cli("import", str(file), "-o", "json")
        assert refused.code == 1
        failure = json.loads(refused.err)
        assert failure["reason"] == "TRANSFER_UNUSABLE"
        assert told in failure["message"]
    assert other_cli.json("list")["entries"] == []
    assert other_cli("import", str(tmp_path / "missing")).code == 2


def test_what_has_not_ended_needs_a_word(
    own_cli: CommandLine, other_cli: CommandLine, ended: str, tmp_path: Path
) -> None:
    file = tmp_path / "all.jsonl"
    live = own_cli.ok("run", "keeper", "y", "--detach").out.strip()
    own_cli.ok("export", "-o", str(file))
    refused = other_cli("import", str(file))
    assert refused.code == 1
    assert "1 of its 2 executions had not ended" in refused.err
    assert "--live terminate" in refused.err
    assert other_cli.json("list")["entries"] == []
    assert other_cli.json("import", str(file), "--live", "queue")["imported"] == 2
    phases = {entry["metadata"]["id"]: entry["status"]["phase"] for entry in other_cli.json("list")["entries"]}
    assert phases == {ended: "EXECUTION_TERMINATED", live: "EXECUTION_PENDING"}
