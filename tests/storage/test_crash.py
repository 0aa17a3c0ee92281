"""A process that is killed at any moment loses nothing it has confirmed, and leaves no half of a commit."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from runstream.storage.leveldb import LevelDBStore
from runstream.storage.records import EXECUTION_HEAD
from runstream.storage.store import Query, Term, Unique
from tests.storage.samples import make_id

if TYPE_CHECKING:
    from pathlib import Path

#: Commits on eight executions at once, each commit in several kinds of keys; prints what is confirmed.
CHILD = """
import asyncio, sys
from pathlib import Path
from runstream.storage.leveldb import LevelDBStore
from runstream.storage.records import EXECUTION_HEAD
from runstream.storage.store import Term, Unique
from tests.storage.samples import make_id, step

async def work(store, number):
    execution_id = make_id(number)
    head = await store.durable.get(EXECUTION_HEAD, execution_id)
    revision = head.revision if head else 0
    while True:
        revision += 1
        transaction = step(execution_id, revision, "x" * (revision * 37 % 5000))
        transaction.index(
            EXECUTION_HEAD,
            execution_id,
            before=[Term("revision", str(revision - 1))],
            after=[Term("revision", str(revision))],
        )
        transaction.claim(Unique("revision", execution_id, str(revision)), execution_id)
        await store.commit(transaction)
        print(number, revision, flush=True)

async def main():
    store = LevelDBStore.open(Path(sys.argv[1]), owner={})
    await asyncio.gather(*(work(store, number) for number in range(8)))

asyncio.run(main())
"""


@pytest.mark.parametrize("seed", range(4))
async def test_what_was_confirmed_survives_a_kill(tmp_path: Path, seed: int) -> None:
    """After kill -9 at a random moment, all that was confirmed is there, in whole transactions."""
    seeded = random.Random(seed)
    confirmed: Counter[int] = Counter()
    for _ in range(2):
        _run_and_kill(tmp_path / "data", confirmed, lines=seeded.randrange(1, 1500))
        store = LevelDBStore.open(tmp_path / "data", owner={})
        for number in range(8):
            await _check(store, number, confirmed[number])
        await store.close()


def _run_and_kill(folder: Path, confirmed: Counter[int], lines: int) -> None:
    """Let a child commit until it has confirmed so many, kill it, and take down what it confirmed."""
    with subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for count, line in enumerate(child.stdout):
            if count == lines:
                child.kill()
            if line.endswith("\n"):
                number, revision = map(int, line.split())
                confirmed[number] = max(confirmed[number], revision)


async def _check(store: LevelDBStore, number: int, confirmed: int) -> None:
    """Everything of an execution agrees with its head, which is not behind what was confirmed."""
    execution_id = make_id(number)
    head = await store.durable.get(EXECUTION_HEAD, execution_id)
    revision = 0 if head is None else head.revision
    assert revision >= confirmed
    changes = await store.changes(execution_id, after=0, limit=99999, max_bytes=1 << 30)
    assert [change.revision for change in changes] == list(range(1, revision + 1))
    for at in range(1, revision + 2):
        holder = await store.durable.holder(Unique("revision", execution_id, str(at)))
        assert holder == (execution_id if at <= revision else None)
        found = await store.scan(Query(EXECUTION_HEAD, ((Term("revision", str(at)),),)), limit=9)
        assert (execution_id in found) == (at == revision)
