from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from runstream.storage.leveldb import LevelDBStore
from runstream.storage.recent import LogEnds, RecentRecords
from runstream.storage.records import AGENT, AGENT_EXECUTION
from runstream.storage.store import Transaction
from runstream.v1.agent_execution_pb2 import ExecutionChange
from runstream.v1.agent_pb2 import Agent
from tests.storage.samples import make_id

if TYPE_CHECKING:
    from pathlib import Path

    from runstream.storage.records import AnyKind


def agent(size: int) -> Agent:
    """An agent of about so many bytes."""
    made = Agent()
    made.spec.description = "x" * size
    return made


def keep(recent: RecentRecords, key: tuple[AnyKind, str], record: Agent) -> None:
    """Keep a record as the store does, which knows its size."""
    recent.put(key, record, record.ByteSize())


def test_the_least_recently_used_records_leave_first() -> None:
    """What was read lately stays, however long ago it was written."""
    recent = RecentRecords(max_bytes=350)
    for name in ("a", "b", "c"):
        keep(recent, (AGENT, name), agent(100))
    assert recent.get((AGENT, "a")) is not None
    keep(recent, (AGENT, "d"), agent(100))
    assert [name for name in ("a", "b", "c", "d") if recent.get((AGENT, name)) is not None] == ["a", "c", "d"]


def test_a_large_record_is_not_kept() -> None:
    """One that would drive out a hundred others is read again each time, and is not mistaken for its elder."""
    recent = RecentRecords()
    keep(recent, (AGENT, "a"), agent(10))
    keep(recent, (AGENT, "a"), agent(1 << 20))
    assert recent.get((AGENT, "a")) is None


@given(st.lists(st.tuples(st.sampled_from(["put", "get", "drop"]), st.integers(0, 9), st.integers(0, 200))))
def test_what_is_kept_is_what_was_put_last_and_is_bounded(steps: list[tuple[str, int, int]]) -> None:
    """Whatever happens in whatever order, no record is stale, and all together are within the bound."""
    recent, newest = RecentRecords(max_bytes=500), {}
    for step, number, size in steps:
        key = (AGENT, str(number))
        if step == "put":
            newest[key] = agent(size)
            keep(recent, key, newest[key])
        elif step == "drop":
            newest.pop(key, None)
            recent.drop(key)
        kept = {key: held for key in newest if (held := recent.get(key)) is not None}
        assert all(held is newest[key] for key, held in kept.items())
        assert sum(held.ByteSize() for held in kept.values()) <= 500
        assert recent.get((AGENT, str(number))) in (None, newest.get(key))


def test_the_ends_of_few_logs_are_remembered() -> None:
    """Those that were written to last."""
    ends = LogEnds(most=2)
    for execution_id, revision in (("a", 1), ("b", 1), ("a", 2), ("c", 1)):
        transaction = Transaction()
        transaction.append(ExecutionChange(execution_id=execution_id, revision=revision))
        ends.note(transaction)
    assert [ends.get(name) for name in ("a", "b", "c")] == [2, None, 1]
    ends.forget("a")
    assert ends.get("a") is None


async def test_a_log_that_was_purged_may_begin_anew(tmp_path: Path) -> None:
    """Nothing is left of the end that the old one had, as when an execution is deleted and taken in again."""
    store = LevelDBStore.open(tmp_path / "data", owner={})
    execution_id = make_id(1)
    try:
        for _ in range(2):
            for revision in (1, 2, 3):
                transaction = Transaction()
                transaction.append(ExecutionChange(execution_id=execution_id, revision=revision))
                await store.commit(transaction)
            while await store.purge_changes(execution_id, limit=2):
                pass
    finally:
        await store.close()


async def test_a_record_that_is_got_may_be_changed_by_who_got_it(tmp_path: Path) -> None:
    """Only what is shared is shared: others do not see what somebody does to a copy."""
    store = LevelDBStore.open(tmp_path / "data", owner={})
    try:
        transaction = Transaction()
        transaction.put(AGENT, "a", agent(5))
        await store.commit(transaction)
        for reader in (store.durable, store.pending):
            got = await reader.get(AGENT, "a")
            assert got is not None
            got.spec.description = "changed"
            assert await reader.get(AGENT, "a") == agent(5)
            assert await reader.shared(AGENT, "a") is await reader.shared(AGENT, "a")
        assert await store.durable.shared(AGENT_EXECUTION, "a") is None
    finally:
        await store.close()
