"""A disk that refuses a write costs the waiting commits, and nothing else: tried on disks that really refuse."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: What both children do: commit until the disk refuses, look around, make room, commit on, reopen, compare.
CHILD = """
import asyncio, sys
from pathlib import Path
from runstream.model.errors import Unavailable
from runstream.storage.leveldb import LevelDBStore
from runstream.storage.records import EXECUTION_HEAD
from runstream.storage.store import Conflict, Query, Term, Transaction
from tests.storage.samples import make_id, step

TEXT = "".join(chr(33 + n * n * 7 % 90) for n in range(3000))
FOLDER = Path(sys.argv[1])
revisions = [0] * 8

def stage(number, epoch=None):
    transaction = step(make_id(number), revisions[number] + 1, TEXT)
    transaction.epoch = epoch
    transaction.index(EXECUTION_HEAD, make_id(number), after=[Term("all", "")])
    return transaction

async def commit_until_refused(store, number):
    while True:
        try:
            await store.commit(stage(number))
        except Unavailable as error:
            assert error.reason == "STORE_UNAVAILABLE", error.reason
            return
        revisions[number] += 1

async def same(store):
    for number, revision in enumerate(revisions):
        for reader in (store.durable, store.pending):
            head = await reader.get(EXECUTION_HEAD, make_id(number))
            assert head.revision == revision, (number, head.revision, revision)
            assert await reader.change(make_id(number), revision + 1) is None
        log = await store.changes(make_id(number), after=0, limit=99999, max_bytes=1 << 30)
        assert [change.revision for change in log] == list(range(1, revision + 1))
    query = Query(EXECUTION_HEAD, ((Term("all", ""),),))
    assert len(await store.scan(query, limit=99)) == 8
    assert await store.count(EXECUTION_HEAD, Term("all", ""), limit=99) == 8

async def main():
    store = LevelDBStore.open(FOLDER / "data", owner={})
    heard = []
    store.on_commit(lambda transaction: heard.append(transaction) if transaction.puts else None)
    for number in range(8):
        await store.commit(stage(number))
        revisions[number] += 1
    for rounds in range(3):
        epoch = store.epoch
        refuse()
        await asyncio.gather(*(commit_until_refused(store, number) for number in range(8)))
        assert store.epoch > epoch
        await same(store)
        for again in range(3):
            for number in range(8):
                try:
                    await store.commit(stage(number))
                except Unavailable:
                    pass
                else:
                    raise AssertionError("a full disk took a commit")
            await same(store)
        assert not (FOLDER / "data" / "probe").exists()
        allow()
        try:
            await store.commit(stage(0, epoch))
        except Conflict:
            pass
        else:
            raise AssertionError("a transaction of an older epoch was taken")
        await asyncio.gather(*(store.commit(stage(number)) for number in range(8)))
        for number in range(8):
            revisions[number] += 1
        await same(store)
        assert len(heard) == sum(revisions)
        counts = store.write_counts
        assert counts.commits == sum(revisions)
        assert counts.recoveries == rounds + 1 <= counts.failures
    await store.close()
    store = LevelDBStore.open(FOLDER / "data", owner={})
    await same(store)
    await store.close()
    print("commits", sum(revisions))

# DISK
asyncio.run(main())
"""

#: No file may grow beyond 200 kB, so the log breaks off in the middle of a record.
LIMITED = """
import resource

def refuse():
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))

def allow():
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""

#: The rest of a small disk is filled up but for 300 kB.
FILLED = """
import os

def refuse():
    with (FOLDER / "filler").open("wb") as file:
        space = os.statvfs(FOLDER)
        file.write(bytes(max(0, space.f_bavail * space.f_frsize - 300_000)))

def allow():
    (FOLDER / "filler").unlink()
"""

#: As before, but only 8 MiB come free: much more than is in the log, if less than its write buffer can hold.
SPARSE = FILLED.replace(
    '(FOLDER / "filler").unlink()',
    'os.truncate(FOLDER / "filler", (FOLDER / "filler").stat().st_size - (8 << 20))',
)


def run(folder: Path, disk: str) -> None:
    """Run the child on a folder."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD.replace("# DISK", disk), str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.startswith("commits")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MiB."""
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if mount is None or unmount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    place = tmp_path / "disk"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=40m", "tmpfs", str(place)]
    if subprocess.run([mount, *options], capture_output=True, check=False).returncode:
        pytest.skip("no small file system can be mounted here")
    yield place
    subprocess.run([unmount, str(place)], check=True)


def test_a_file_size_limit_costs_only_the_waiting_commits(tmp_path: Path) -> None:
    """With a log that may not grow, commits fail, reads go on, and all goes on when it may."""
    run(tmp_path, LIMITED)


def test_a_full_disk_costs_only_the_waiting_commits(small_disk: Path) -> None:
    """With no space left, commits fail, reads go on, and all goes on when there is space."""
    run(small_disk, FILLED)


def test_a_disk_with_little_space_takes_commits_again(small_disk: Path) -> None:
    """There must be space for what opening the database anew writes, not for all that it ever might."""
    run(small_disk, SPARSE)
