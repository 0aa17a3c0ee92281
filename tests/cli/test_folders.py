from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.care.folders import pairs_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.processes import CommandLine, ServerProcess


def test_a_folder_is_backed_up_and_restored(own_cli: CommandLine, own_server: ServerProcess, tmp_path: Path) -> None:
    own_cli.ok("agent", "create", "keeper")
    data, file, again = (str(tmp_path / name) for name in ("data", "file", "again"))
    held = own_cli("backup", data, file)
    assert (held.code, "FOLDER_IN_USE" in held.err) == (1, True)
    assert own_server.stop() == 0
    made = own_cli.json("backup", data, file)
    assert made["keys"] == len(pairs_of(tmp_path / "data"))
    assert own_cli.ok("restore", file, again).out.startswith(f"made {again} out of the backup of 2")
    assert pairs_of(tmp_path / "again") == pairs_of(tmp_path / "data")


def test_what_is_there_is_not_written_over(own_cli: CommandLine, own_server: ServerProcess, tmp_path: Path) -> None:
    assert own_server.stop() == 0
    data, file = str(tmp_path / "data"), str(tmp_path / "file")
    own_cli.ok("backup", data, file)
    for command in (["backup", data, file], ["restore", file, data]):
        refused = own_cli(*command, "-o", "json")
        assert refused.code == 1
        assert json.loads(refused.err)["reason"] == "TARGET_TAKEN"


def test_a_torn_file_is_refused(own_cli: CommandLine, own_server: ServerProcess, tmp_path: Path) -> None:
    assert own_server.stop() == 0
    file = tmp_path / "file"
    own_cli.ok("backup", str(tmp_path / "data"), str(file))
    file.write_bytes(file.read_bytes()[:-5])
    refused = own_cli("restore", str(file), str(tmp_path / "again"))
    assert refused.code == 1
    assert "torn off at byte" in refused.err
    assert not (tmp_path / "again").exists()
    missing = own_cli("restore", str(tmp_path / "missing"), str(tmp_path / "again"))
    assert (missing.code, "No such file" in missing.err) == (1, True)


def test_compact_tells_both_sizes(own_cli: CommandLine, own_server: ServerProcess, tmp_path: Path) -> None:
    own_cli.ok("agent", "create", "keeper")
    assert own_server.stop() == 0
    before = pairs_of(tmp_path / "data")
    told = own_cli.json("compact", str(tmp_path / "data"))
    assert told["bytes_before"] > 0
    assert told["bytes_after"] > 0
    assert " before, " in own_cli.ok("compact", str(tmp_path / "data")).out
    assert pairs_of(tmp_path / "data") == before
