"""What a crash has torn at the end of the log is dropped; a commit that is damaged is never passed over."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import plyvel
import pytest

from runstream.storage.log_end import first_damage, open_leveldb

if TYPE_CHECKING:
    from pathlib import Path

COMMITS = 300
#: Commits of all sizes, one of them over several blocks of the log, and dies without closing.
CHILD = f"""
import os, random, sys
import plyvel
seeded = random.Random(7)
database = plyvel.DB(sys.argv[1], create_if_missing=True)
for number in range({COMMITS}):
    with database.write_batch(transaction=True, sync=True) as batch:
        size = 100_000 if number == {COMMITS // 2} else seeded.randrange(1, 1500)
        batch.put(b"%05d" % number, seeded.randbytes(size))
os._exit(9)
"""


@pytest.fixture(scope="module")
def struck(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A database whose process has died, and its log."""
    folder = tmp_path_factory.mktemp("struck") / "leveldb"
    child = subprocess.run([sys.executable, "-c", CHILD, str(folder)], check=False)
    assert child.returncode == 9
    (log,) = folder.glob("*.log")
    return log, log.read_bytes()


def spoilt(tmp_path: Path, struck: tuple[Path, bytes], log: bytes) -> Path:
    """Copy the database with another log; return its folder."""
    folder = tmp_path / "leveldb"
    folder.mkdir()
    for file in struck[0].parent.iterdir():
        (folder / file.name).write_bytes(log if file == struck[0] else file.read_bytes())
    return folder


def commits_in(folder: Path) -> list[int]:
    """Open the database; return the commits that it holds."""
    database = open_leveldb(folder)
    try:
        return [int(key) for key, _ in database.iterator()]
    finally:
        database.close()


@pytest.mark.parametrize("seed", range(20))
def test_a_log_cut_anywhere_loses_its_last_commits_and_no_others(
    tmp_path: Path, struck: tuple[Path, bytes], seed: int
) -> None:
    """What is left is everything up to some commit: none in the middle is missing."""
    log = struck[1]
    at = random.Random(seed).randrange(len(log) + 1)
    found = commits_in(spoilt(tmp_path, struck, log[:at]))
    assert found == list(range(len(found)))
    assert (at == len(log)) <= (len(found) == COMMITS)


@pytest.mark.parametrize("kind", ["zeros", "noise", "half a record", "a record without its sum"])
@pytest.mark.parametrize("seed", range(5))
def test_what_a_crash_leaves_behind_the_last_commit_is_dropped(
    tmp_path: Path, struck: tuple[Path, bytes], kind: str, seed: int
) -> None:
    """Whatever part of a batch that nobody acknowledged has reached the disk, every commit before it is there."""
    seeded, log = random.Random(f"{kind} {seed}"), struck[1]
    record = log[: 7 + int.from_bytes(log[4:6], "little")]
    torn = {
        "zeros": bytes(seeded.randrange(1, 9_000)),
        "noise": seeded.randbytes(seeded.randrange(1, 9_000)),
        "half a record": record[: seeded.randrange(1, len(record))],
        "a record without its sum": b"\xa5" * 4 + record[4:],
    }[kind]
    assert commits_in(spoilt(tmp_path, struck, log + torn)) == list(range(COMMITS))


@pytest.mark.parametrize("kind", ["flipped", "zeroed"])
@pytest.mark.parametrize("seed", range(12))
def test_a_commit_that_is_damaged_with_others_behind_it_is_refused(
    tmp_path: Path, struck: tuple[Path, bytes], kind: str, seed: int
) -> None:
    """Neither a hole in the middle nor later commits in its place: the database is not opened, and stays as it was."""
    seeded, log = random.Random(f"{kind} {seed}"), bytearray(struck[1])
    at = seeded.randrange(len(log) - 70_000)
    log[at : at + 1] = bytes([log[at] ^ 0xFF])
    if kind == "zeroed":
        page = at - at % 4096
        log[page : page + 4096] = bytes(4096)
    folder = spoilt(tmp_path, struck, bytes(log))
    for _ in range(2):
        with pytest.raises(plyvel.CorruptionError, match="damaged at byte"):
            open_leveldb(folder)
    assert (folder / struck[0].name).read_bytes() == bytes(log)


@pytest.mark.parametrize("seed", range(8))
def test_a_database_cut_where_it_says_goes_on_with_the_commits_before(
    tmp_path: Path, struck: tuple[Path, bytes], seed: int
) -> None:
    """The way out that the refusal names works: everything before the damage is there."""
    log = bytearray(struck[1])
    log[random.Random(seed).randrange(len(log) - 70_000)] ^= 0xFF
    damage = first_damage(bytes(log), sums=True)
    assert damage is not None
    folder = spoilt(tmp_path, struck, bytes(log))
    os.truncate(folder / struck[0].name, damage)
    found = commits_in(folder)
    assert found == list(range(len(found)))
