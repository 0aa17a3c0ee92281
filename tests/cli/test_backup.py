from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.care.folders import findings_of, pairs_of
from tests.cli.processes import CommandLine, ServerProcess

if TYPE_CHECKING:
    from pathlib import Path


def test_a_server_is_backed_up_while_it_runs(own_cli: CommandLine, own_server: ServerProcess, tmp_path: Path) -> None:
    own_cli.ok("agent", "create", "keeper")
    file, again, offline = (tmp_path / name for name in ("file", "again", "offline"))
    made = own_cli.json("backup", "--server", own_server.address, str(file))
    assert made["file_bytes"] == file.stat().st_size
    told = own_cli.ok("backup", str(tmp_path / "from environment")).out
    assert told.startswith(f"wrote {made['keys']} keys, 0.0 MiB, into ")
    assert own_server.stop() == 0
    own_cli.ok("restore", str(file), str(again))
    assert pairs_of(again) == pairs_of(tmp_path / "data")
    assert made["keys"] == len(pairs_of(again))
    assert findings_of(again) == []
    own_cli.ok("backup", str(tmp_path / "data"), str(offline))
    assert offline.stat().st_size == file.stat().st_size
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_folder_that_is_served_is_refused_with_what_to_type(
    own_cli: CommandLine, own_server: ServerProcess, tmp_path: Path
) -> None:
    file = str(tmp_path / "its backup")
    held = own_cli("backup", str(tmp_path / "data"), file)
    assert (held.code, "FOLDER_IN_USE" in held.err) == (1, True)
    assert f"`runstream backup --server {own_server.address} '{file}'` backs up what it keeps" in held.err


def test_what_is_meant_must_be_clear(cli: CommandLine, tmp_path: Path) -> None:
    data, file = str(tmp_path), str(tmp_path / "file")
    for arguments, told in (
        (["backup", "--server", cli.address, data, file], "--server and DATA do not go together"),
        (["--server", cli.address, "backup", data, file], "--server and DATA do not go together"),
        (["backup", "--tls", data, file], "--tls and DATA do not go together"),
        (["backup"], "the file to write is missing"),
        (["backup", data], "is a folder, and the file to write is missing"),
        (["backup", data, file, file], "unexpected extra argument"),
    ):
        refused = cli(*arguments)
        assert (refused.code, told in refused.err) == (2, True), refused.err
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_gives_none_is_told(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data", "--no-backups")
    try:
        refused = CommandLine(server.address)("backup", str(tmp_path / "file"), "-o", "json")
        assert (refused.code, json.loads(refused.err)["reason"]) == (1, "BACKUPS_OFF")
    finally:
        server.end()
    assert not (tmp_path / "file").exists()


def test_a_file_that_is_there_is_left(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    refused = cli("backup", str(tmp_path / "file"), "-o", "json")
    assert (refused.code, json.loads(refused.err)["reason"]) == (1, "TARGET_TAKEN")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_server_that_does_not_answer_leaves_nothing(cli: CommandLine, tmp_path: Path) -> None:
    refused = cli("backup", "--server", "127.0.0.1:1", str(tmp_path / "file"))
    assert (refused.code, "cannot reach 127.0.0.1:1" in refused.err) == (6, True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_is_told(cli: CommandLine, tmp_path: Path) -> None:
    refused = cli("backup", str(tmp_path / "nowhere" / "file"))
    assert (refused.code, "No such file or directory" in refused.err) == (1, True)
