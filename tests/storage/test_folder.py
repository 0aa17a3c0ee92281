from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from runstream.storage.folder import (
    DataFolder,
    FolderInUse,
    FolderUnusable,
    ForeignFolder,
    UnknownFormat,
    read_owner,
)
from runstream.storage.leveldb import LevelDBStore

if TYPE_CHECKING:
    from pathlib import Path


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything in a folder: names, modes, bytes."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mode,
            b"" if path.is_dir() else path.read_bytes(),
        )
        for path in sorted(folder.rglob("*"))
    }


def test_a_missing_folder_is_made_for_its_owner_only(tmp_path: Path) -> None:
    """A new data folder can be entered by its owner only, and says its format."""
    held = DataFolder.hold(tmp_path / "deep" / "data", {})
    assert stat.S_IMODE((tmp_path / "deep" / "data").stat().st_mode) == 0o700
    assert (tmp_path / "deep" / "data" / "FORMAT").read_text() == "runstream 1\n"
    held.release()


@pytest.mark.parametrize("left", [[], ["lock"], ["lock", "FORMAT.tmp"], ["lost+found"]])
def test_an_empty_folder_is_filled(tmp_path: Path, left: list[str]) -> None:
    """An empty folder is taken, also one that a crash left half made or that is a new disk."""
    for name in left:
        (tmp_path / name).touch()
    held = DataFolder.hold(tmp_path, {})
    assert (tmp_path / "FORMAT").read_text() == "runstream 1\n"
    held.release()


@pytest.mark.parametrize("also", ["lock", "notes", "z/deep"])
async def test_a_foreign_folder_is_left_as_it_is(tmp_path: Path, also: str) -> None:
    """A folder with something else in it is refused by name and not touched."""
    (tmp_path / also).mkdir(parents=True)
    (tmp_path / "a.tex").write_text("dear reader")
    before = contents(tmp_path)
    with pytest.raises(ForeignFolder, match=r"a\.tex"):
        LevelDBStore.open(tmp_path, owner={})
    assert contents(tmp_path) == before


@pytest.mark.parametrize("line", ["runstream 2\n", "runstream 999\n", "", "other 1\n", "\0\xff"])
async def test_an_unknown_format_is_left_as_it_is(tmp_path: Path, line: str) -> None:
    """A folder of another format is refused and not touched."""
    folder = tmp_path / "data"
    await LevelDBStore.open(folder, owner={}).close()
    (folder / "FORMAT").write_text(line)
    before = contents(folder)
    with pytest.raises(UnknownFormat, match="left as it was"):
        LevelDBStore.open(folder, owner={})
    assert contents(folder) == before


def test_the_owner_is_written_down_while_the_lock_is_held(tmp_path: Path) -> None:
    """Who is kept out is told by whom; after the release nobody is named and the folder is free."""
    held = DataFolder.hold(tmp_path, {"address": "here:1"})
    assert read_owner(tmp_path) == {"pid": str(os.getpid()), "address": "here:1"}
    with pytest.raises(FolderInUse, match=f"pid {os.getpid()}, address here:1") as caught:
        DataFolder.hold(tmp_path, {})
    assert caught.value.owner == {"pid": str(os.getpid()), "address": "here:1"}
    held.release()
    held.release()
    assert read_owner(tmp_path) == {}
    DataFolder.hold(tmp_path, {}).release()


@pytest.mark.parametrize("said", ["", "{", "[1]", "null"])
def test_an_unreadable_owner_file_is_no_obstacle(tmp_path: Path, said: str) -> None:
    """Only the lock tells who may enter; a damaged owner file names nobody."""
    held = DataFolder.hold(tmp_path, {})
    (tmp_path / "server.json").write_text(said)
    with pytest.raises(FolderInUse, match="has not said"):
        DataFolder.hold(tmp_path, {})
    held.release()


def test_a_left_over_owner_file_is_no_obstacle(tmp_path: Path) -> None:
    """What a crashed server wrote down does not keep the next one out."""
    DataFolder.hold(tmp_path, {}).release()
    (tmp_path / "server.json").write_text(json.dumps({"pid": "1"}))
    DataFolder.hold(tmp_path, {}).release()


def test_what_the_system_refuses_is_told(tmp_path: Path) -> None:
    """A path that cannot be a folder is a typed error with the system's words."""
    (tmp_path / "file").touch()
    with pytest.raises(FolderUnusable, match="cannot be used"):
        DataFolder.hold(tmp_path / "file" / "data", {})
    with pytest.raises(FolderUnusable, match="cannot be used"):
        DataFolder.hold(tmp_path / "file", {})


async def test_a_damaged_database_is_told(tmp_path: Path) -> None:
    """A database that LevelDB refuses is a typed error, and the folder is let go."""
    folder = tmp_path / "data"
    await LevelDBStore.open(folder, owner={}).close()
    (folder / "leveldb" / "CURRENT").write_text("nonsense\n")
    with pytest.raises(FolderUnusable, match="cannot be opened"):
        LevelDBStore.open(folder, owner={})
    DataFolder.hold(folder, {}).release()


def test_a_probe_leaves_nothing(tmp_path: Path) -> None:
    """Asking whether the disk takes writes leaves the folder as it was."""
    held = DataFolder.hold(tmp_path, {})
    before = contents(tmp_path)
    held.probe(3 << 20)
    assert contents(tmp_path) == before
    held.release()
