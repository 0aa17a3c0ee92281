"""A store and a plain dictionary, told the same things, must say the same things."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from runstream.storage.leveldb import LevelDBStore
from runstream.storage.records import AGENT_EXECUTION, EXECUTION_HEAD
from runstream.storage.store import ANY_REVISION, Conflict, Query, Range, Term, Transaction, Unique
from runstream.stored.v1.stored_pb2 import ExecutionHead
from tests.storage.samples import make_change, make_id

if TYPE_CHECKING:
    from collections.abc import Coroutine

TIMES = (0, 1, 1000, 1001, 1002, (1 << 48) - 1)
IDS = [make_id(time_ms, entropy) for time_ms in TIMES for entropy in (0, (1 << 80) - 1)]
TERMS = [Term(index, value) for index in ("a", "a\0") for value in ("", "x", "\0\1")]
NAMES = [Unique("slug", scope, value) for scope in ("", "o") for value in ("x", "o")]
LARGE = 1 << 30

ids = st.sampled_from(IDS)
terms = st.sampled_from(TERMS)
groups = st.lists(st.lists(terms, min_size=1, max_size=3).map(tuple), max_size=3).map(tuple)
ends = st.none() | st.sampled_from([*TIMES, 500, 1 << 48])
operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), ids),
        st.tuples(st.just("delete"), ids),
        st.tuples(st.just("index"), ids, st.frozensets(terms, max_size=3)),
        st.tuples(st.just("claim"), st.sampled_from(NAMES), ids),
        st.tuples(st.just("release"), st.sampled_from(NAMES)),
        st.tuples(st.just("append"), ids, st.integers(0, 40)),
    ),
    max_size=8,
)
expectations = st.none() | st.tuples(ids, st.none() | st.integers(ANY_REVISION, 3))


class Model:
    """What a store should hold, in the plainest form."""

    def __init__(self) -> None:
        self.heads: dict[str, int] = {}
        self.terms: dict[str, frozenset[Term]] = {}
        self.names: dict[Unique, str] = {}
        self.logs: dict[str, list[int]] = {}

    def copy(self) -> Model:
        """Return the same, apart."""
        other = Model()
        other.heads, other.terms = dict(self.heads), dict(self.terms)
        other.names = dict(self.names)
        other.logs = {key: list(log) for key, log in self.logs.items()}
        return other

    def holds(self, expectation: tuple[str, int | None] | None) -> bool:
        """Tell whether an expectation holds."""
        if expectation is None:
            return True
        record_id, revision = expectation
        if revision is None:
            return record_id not in self.heads
        return record_id in self.heads and revision in (ANY_REVISION, self.heads[record_id])

    def apply(self, operation: tuple[Any, ...], transaction: Transaction) -> None:
        """Do one operation here and stage it there."""
        getattr(self, f"_{operation[0]}")(transaction, *operation[1:])

    def allows(self, transaction: Transaction) -> bool:
        """Tell whether all names that a transaction takes are free, or released by it."""
        return all(name in transaction.releases or name not in self.names for name in transaction.claims)

    def _put(self, transaction: Transaction, record_id: str) -> None:
        revision = self.heads.get(record_id, 0) + 1
        self.heads[record_id] = revision
        transaction.put(EXECUTION_HEAD, record_id, ExecutionHead(revision=revision))

    def _delete(self, transaction: Transaction, record_id: str) -> None:
        self.heads.pop(record_id, None)
        transaction.delete(EXECUTION_HEAD, record_id)

    def _index(self, transaction: Transaction, record_id: str, after: frozenset[Term]) -> None:
        before = self.terms.get(record_id, frozenset())
        transaction.index(AGENT_EXECUTION, record_id, before=before, after=after)
        self.terms[record_id] = after

    def _claim(self, transaction: Transaction, name: Unique, record_id: str) -> None:
        self.names[name] = record_id
        transaction.claim(name, record_id)

    def _release(self, transaction: Transaction, name: Unique) -> None:
        self.names.pop(name, None)
        transaction.release(name)

    def _append(self, transaction: Transaction, execution_id: str, size: int) -> None:
        log = self.logs.setdefault(execution_id, [])
        log.append(size)
        transaction.append(make_change(execution_id, len(log), "x" * size))

    def scan(self, query: Query) -> list[str]:
        """Return what a scan should find."""
        every = self.terms if query.all_of else {}
        start, stop = query.range.start or 0, query.range.stop
        return sorted(
            (
                record_id
                for record_id, its in every.items()
                if all(its & set(group) for group in query.all_of)
                and record_id[:14] >= make_id(start)[:14]
                and (stop is None or stop >= 1 << 48 or record_id[:14] < make_id(stop)[:14])
            ),
            reverse=True,
        )


class StoreMachine(RuleBasedStateMachine):
    """Does to a store and to a model the same, in any order, and compares."""

    @initialize()
    def begin(self) -> None:
        """Open an empty store."""
        self.folder = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.model = Model()
        self.store = self.run(self._open())

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401
        """Run a coroutine on the store's loop."""
        return self.runner.run(coroutine)

    async def _open(self) -> LevelDBStore:
        return LevelDBStore.open(self.folder / "data", owner={})

    def teardown(self) -> None:
        """Close the store."""
        if hasattr(self, "store"):
            self.run(self.store.close())
            self.runner.close()
            shutil.rmtree(self.folder)

    def _stage(
        self, model: Model, steps: list[tuple[Any, ...]], expected: tuple[str, int | None] | None
    ) -> tuple[Model, Transaction, bool]:
        after, transaction = model.copy(), Transaction()
        allowed = after.holds(expected)
        if expected is not None:
            transaction.expect(EXECUTION_HEAD, *expected)
        for operation in steps:
            after.apply(operation, transaction)
        return after, transaction, allowed and model.allows(transaction)

    @rule(commits=st.lists(st.tuples(operations, expectations), min_size=1, max_size=4))
    def commit_together(self, commits: list[tuple[list[tuple[Any, ...]], tuple[str, int | None] | None]]) -> None:
        """Commit several transactions in flight together, each decided on those before."""
        staged: list[tuple[Transaction, bool]] = []
        for steps, expected in commits:
            after, transaction, allowed = self._stage(self.model, steps, expected)
            staged.append((transaction, allowed))
            if allowed:
                self.model = after

        async def commit_all() -> list[BaseException | None]:
            commits = (self.store.commit(transaction) for transaction, _ in staged)
            results: list[BaseException | None]
            results = await asyncio.gather(*commits, return_exceptions=True)
            return results

        results = self.run(commit_all())
        assert [isinstance(r, Conflict) for r in results] == [not allowed for _, allowed in staged]
        assert all(r is None or isinstance(r, Conflict) for r in results)

    @rule()
    def reopen(self) -> None:
        """Close the store and open it again."""
        self.run(self.store.close())
        self.store = self.run(self._open())

    @rule(groups=groups, start=ends, stop=ends, after=st.none() | ids, limit=st.integers(1, 5))
    def scan(
        self,
        groups: tuple[tuple[Term, ...], ...],
        start: int | None,
        stop: int | None,
        after: str | None,
        limit: int,
    ) -> None:
        """Read all pages behind an id."""
        if not groups:
            return
        query = Query(AGENT_EXECUTION, groups, Range(start, stop))
        expected = [i for i in self.model.scan(query) if after is None or i < after]
        found: list[str] = []
        while page := self.run(self.store.scan(query, after=after, limit=limit)):
            assert len(page) <= limit
            found += page
            after = page[-1]
        if start is None or start < 1 << 48:
            assert found == expected
        else:
            assert found == []

    @rule(term=terms, limit=st.integers(0, 20))
    def count(self, term: Term, limit: int) -> None:
        """Count the records under a term."""
        expected = sum(term in its for its in self.model.terms.values())
        counted = self.run(self.store.count(AGENT_EXECUTION, term, limit=limit))
        assert counted == min(limit, expected)

    @rule(execution_id=ids, after=st.integers(0, 10), limit=st.integers(1, 5))
    def changes(self, execution_id: str, after: int, limit: int) -> None:
        """Read a part of a log."""
        log = self.model.logs.get(execution_id, [])
        expected = [
            make_change(execution_id, revision, "x" * size)
            for revision, size in enumerate(log, 1)
            if after < revision <= after + limit
        ]
        read = self.store.changes(execution_id, after=after, limit=limit, max_bytes=LARGE)
        assert self.run(read) == expected

    @invariant()
    def same(self) -> None:
        """Every record and name is the same, for both readers."""
        if not hasattr(self, "store"):
            return

        async def compare() -> None:
            for reader in (self.store.durable, self.store.pending):
                for record_id in IDS:
                    head = await reader.get(EXECUTION_HEAD, record_id)
                    revision = None if head is None else head.revision
                    assert revision == self.model.heads.get(record_id)
                for name in NAMES:
                    assert await reader.holder(name) == self.model.names.get(name)
            listed = await self.store.scan(Query(EXECUTION_HEAD), limit=99)
            assert listed == sorted(self.model.heads, reverse=True)

        self.run(compare())


StoreMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None, print_blob=True)
TestStoreModel = StoreMachine.TestCase
