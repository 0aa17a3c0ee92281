"""What every `Store` promises; each backend runs this suite by naming how it is opened."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import pytest

from runstream.model.errors import Unavailable
from runstream.storage.records import (
    AGENT,
    AGENT_EXECUTION,
    EXECUTION_HEAD,
    EXECUTION_SECRETS,
    IDEMPOTENCY,
    SESSION,
)
from runstream.storage.store import ANY_REVISION, Conflict, Query, Range, Term, Transaction, Unique
from runstream.stored.v1.stored_pb2 import ExecutionHead, ExecutionSecrets, IdempotencyRecord
from runstream.v1.agent_pb2 import Agent
from tests.storage.samples import make_change, make_execution, make_id, put_execution, step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from runstream.storage.store import Store

A, B = make_id(1000, 1), make_id(2000, 2)
SLUG = Unique("agent_slug", "acme", "survey")
RED, ROUND = Term("colour", "red"), Term("shape", "round")
#: More than a backend writes in an instant: what is accepted behind it stays pending for a while.
MUCH = 48 << 20
HOSTILE = ["", "\0", "a", "a\0", "a\0\x01b", "\x01", "\xff", "a\xff", "ab", "é" * 300, "\U0010ffff"]


class StoreConformance(ABC):
    """The suite; a subclass opens its backend."""

    @abstractmethod
    async def open(self, place: Path) -> Store:
        """Open the store kept at `place`, again after it was closed."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        """An empty store."""
        store = await self.open(tmp_path / "data")
        yield store
        await store.close()

    # Records

    async def test_both_readers_return_what_was_committed(self, store: Store) -> None:
        """After a commit, durable and pending return the record, and each its own message."""
        await store.commit(put_execution(A, "survey"))
        for reader in (store.durable, store.pending):
            found = await reader.get(AGENT_EXECUTION, A)
            assert found == make_execution(A, name="survey")
            assert found is not await reader.get(AGENT_EXECUTION, A)

    async def test_kinds_do_not_mix(self, store: Store) -> None:
        """A record is found under its own kind only."""
        await store.commit(put_execution(A))
        assert await store.durable.get(SESSION, A) is None
        assert await store.durable.get(AGENT_EXECUTION, A[:-1]) is None

    async def test_deleted_records_are_gone(self, store: Store) -> None:
        """A deleted record is gone, and to delete what is not there is no error."""
        await store.commit(put_execution(A))
        transaction = Transaction()
        transaction.delete(AGENT_EXECUTION, A)
        transaction.delete(AGENT_EXECUTION, B)
        await store.commit(transaction)
        assert await store.durable.get(AGENT_EXECUTION, A) is None
        assert await store.pending.get(AGENT_EXECUTION, A) is None

    async def test_everything_is_there_after_reopening(self, tmp_path: Path) -> None:
        """What a commit confirmed is there when the store is opened again."""
        store = await self.open(tmp_path / "data")
        transaction = put_execution(A)
        transaction.index(AGENT_EXECUTION, A, after=[RED])
        transaction.claim(SLUG, A)
        transaction.append(make_change(A, 1))
        await store.commit(transaction)
        await store.close()
        store = await self.open(tmp_path / "data")
        assert await store.durable.get(AGENT_EXECUTION, A) == make_execution(A)
        assert await store.durable.holder(SLUG) == A
        assert await store.durable.change(A, 1) == make_change(A, 1)
        assert await store.scan(Query(AGENT_EXECUTION, ((RED,),)), limit=9) == [A]
        await store.close()

    # Expectations and claims

    @pytest.mark.parametrize("revision", [0, 2, None])
    async def test_a_failed_expectation_leaves_nothing(self, store: Store, revision: int | None) -> None:
        """When an expectation does not hold, nothing of the transaction is stored."""
        await store.commit(step(A, 1))
        transaction = put_execution(B)
        transaction.index(AGENT_EXECUTION, B, after=[RED])
        transaction.claim(SLUG, B)
        transaction.append(make_change(B, 1))
        transaction.expect(EXECUTION_HEAD, A, revision)
        with pytest.raises(Conflict):
            await store.commit(transaction)
        for reader in (store.durable, store.pending):
            assert await reader.get(AGENT_EXECUTION, B) is None
            assert await reader.holder(SLUG) is None
            assert await reader.change(B, 1) is None
        assert await store.scan(Query(AGENT_EXECUTION, ((RED,),)), limit=9) == []
        assert await store.count(AGENT_EXECUTION, RED, limit=9) == 0

    async def test_expectations_that_hold(self, store: Store) -> None:
        """A transaction whose expectations hold is committed: not there, at a revision, there."""
        await store.commit(step(A, 1))
        transaction = put_execution(A)
        transaction.expect(EXECUTION_HEAD, A, 1)
        transaction.expect(EXECUTION_HEAD, A, ANY_REVISION)
        transaction.expect(EXECUTION_HEAD, B, None)
        transaction.expect_exists(EXECUTION_HEAD, A)
        await store.commit(transaction)
        assert await store.durable.get(AGENT_EXECUTION, A) is not None

    async def test_expecting_what_is_not_there(self, store: Store) -> None:
        """A record that is not there is at no revision."""
        for revision in (ANY_REVISION, 1):
            transaction = Transaction()
            transaction.expect(EXECUTION_SECRETS, A, revision)
            with pytest.raises(Conflict):
                await store.commit(transaction)

    async def test_of_two_in_flight_one_wins(self, store: Store) -> None:
        """Of many commits in flight that expect the same, exactly one succeeds."""
        results = await asyncio.gather(*(store.commit(step(A, 1, str(n))) for n in range(9)), return_exceptions=True)
        assert [type(result) for result in results].count(Conflict) == 8
        assert results.count(None) == 1

    async def test_a_name_has_one_holder(self, store: Store) -> None:
        """A taken name is a conflict until it is released; releasing and taking go together."""
        first, second = Transaction(), Transaction()
        first.claim(SLUG, A)
        second.claim(SLUG, B)
        results = await asyncio.gather(store.commit(first), store.commit(second), return_exceptions=True)
        assert isinstance(results[1], Conflict)
        assert await store.durable.holder(SLUG) == A
        handover = Transaction()
        handover.release(SLUG)
        handover.claim(SLUG, B)
        await store.commit(handover)
        assert await store.durable.holder(SLUG) == B
        given_up = Transaction()
        given_up.release(SLUG)
        await store.commit(given_up)
        assert await store.pending.holder(SLUG) is None

    async def test_names_do_not_run_into_each_other(self, store: Store) -> None:
        """Index, scope and value of a name are apart, whatever is in them."""
        names = [Unique(a, b, c) for a in ("i", "ij") for b in HOSTILE for c in HOSTILE]
        transaction = Transaction()
        for number, unique in enumerate(names):
            transaction.claim(unique, str(number))
        await store.commit(transaction)
        for number, unique in enumerate(names):
            assert await store.durable.holder(unique) == str(number)

    # Visibility

    async def test_pending_sees_at_once_and_durable_only_what_is_on_disk(self, store: Store) -> None:
        """Until a commit is on disk only pending sees it: records, changes, names, counts."""
        heavy = Transaction()
        heavy.put(EXECUTION_SECRETS, B, ExecutionSecrets(values={"x": "y" * MUCH}))
        heavy.append(make_change(B, 1))
        first = asyncio.create_task(store.commit(heavy))
        await asyncio.sleep(0)
        transaction = step(A, 1)
        transaction.claim(SLUG, A)
        transaction.index(AGENT_EXECUTION, A, after=[RED])
        second = asyncio.create_task(store.commit(transaction))
        await asyncio.sleep(0)
        assert await store.durable.get(EXECUTION_HEAD, A) is None
        assert await store.durable.change(A, 1) is None
        assert await store.durable.holder(SLUG) is None
        assert await store.scan(Query(AGENT_EXECUTION, ((RED,),)), limit=9) == []
        assert await store.changes(A, after=0, limit=9, max_bytes=999) == []
        assert await store.pending.get(EXECUTION_HEAD, A) == ExecutionHead(revision=1)
        assert await store.pending.change(A, 1) == make_change(A, 1)
        assert await store.pending.holder(SLUG) == A
        assert await store.count(AGENT_EXECUTION, RED, limit=9) == 1
        await asyncio.gather(first, second)
        assert await store.durable.get(EXECUTION_HEAD, A) == ExecutionHead(revision=1)
        assert await store.count(AGENT_EXECUTION, RED, limit=9) == 1

    async def test_an_empty_commit_is_a_barrier(self, store: Store) -> None:
        """When an empty commit returns, everything accepted before it is on disk."""
        first = asyncio.create_task(store.commit(step(A, 1, "x" * MUCH)))
        await asyncio.sleep(0)
        await store.commit(Transaction())
        assert await store.durable.get(EXECUTION_HEAD, A) is not None
        await first

    async def test_transactions_are_seen_whole(self, store: Store) -> None:
        """Whoever sees the head at a revision also sees its change, while many commit together."""
        ids = [make_id(n) for n in range(16)]
        seen = 0

        async def write(execution_id: str) -> None:
            for revision in range(1, 30):
                await store.commit(step(execution_id, revision))

        writers = asyncio.gather(*(write(execution_id) for execution_id in ids))
        while not writers.done():
            for execution_id in ids:
                head = await store.durable.get(EXECUTION_HEAD, execution_id)
                if head is not None:
                    assert await store.durable.change(execution_id, head.revision) is not None
                    seen += 1
            await asyncio.sleep(0)
        await writers
        assert seen

    async def test_a_cancelled_caller_does_not_stop_its_commit(self, store: Store) -> None:
        """An accepted commit is carried out when nobody waits for it any more."""
        caller = asyncio.create_task(store.commit(step(A, 1)))
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait([caller])
        assert caller.cancelled()
        await store.commit(step(A, 2))
        assert [c.revision for c in await store.changes(A, after=0, limit=9, max_bytes=99)] == [1, 2]

    async def test_listeners_hear_of_every_commit_in_order(self, store: Store) -> None:
        """A listener hears of each transaction once, in order, on disk, before its caller goes on."""
        heard: list[Transaction] = []
        store.on_commit(heard.append)
        transactions = [step(A, revision) for revision in range(1, 20)]
        callers = [asyncio.create_task(store.commit(t)) for t in transactions]
        await asyncio.sleep(0)
        callers[3].cancel()
        await callers[-1]
        assert heard == transactions
        assert all(a is b for a, b in zip(heard, transactions, strict=True))
        with pytest.raises(Conflict):
            await store.commit(step(A, 1))
        assert heard == transactions

    async def test_a_listener_may_be_spared_what_leaves_everything_to_be_found_as_before(self, store: Store) -> None:
        """It hears of what adds or removes index entries or records, and of nothing else."""
        heard: list[Transaction] = []
        store.on_commit(heard.append, in_place=False)
        term = Term("colour", "red")
        moved, taken, gone = step(A, 2), step(A, 4), step(A, 5)
        moved.index(AGENT, "a", after=[term])
        taken.index(AGENT, "a", before=[term])
        gone.delete(AGENT, "a")
        for transaction in (step(A, 1), moved, step(A, 3), taken, gone):
            await store.commit(transaction)
        assert heard == [moved, taken, gone]

    async def test_a_listener_that_fails_hurts_nobody(self, store: Store) -> None:
        """The error of one listener reaches neither the other ones nor the commit."""
        heard: list[Transaction] = []

        def fail(_: Transaction) -> None:
            raise LookupError

        store.on_commit(fail)
        store.on_commit(heard.append)
        await store.commit(step(A, 1))
        assert len(heard) == 1

    # Changes

    async def test_changes_come_in_order_from_any_cursor(self, store: Store) -> None:
        """Changes come oldest first, after the cursor, up to the limit, of one execution only."""
        for revision in range(1, 301):
            await store.commit(step(A, revision)) if revision > 280 else None
            if revision <= 280:
                batch = Transaction()
                batch.append(make_change(A, revision))
                batch.put(EXECUTION_HEAD, A, ExecutionHead(revision=revision))
                await store.commit(batch)
        await store.commit(step(A + "x", 1))
        await store.commit(step(A[:-1], 1))

        async def revisions(after: int, limit: int) -> list[int]:
            found = await store.changes(A, after=after, limit=limit, max_bytes=1 << 30)
            return [change.revision for change in found]

        assert await revisions(0, 1000) == list(range(1, 301))
        assert await revisions(254, 3) == [255, 256, 257]
        assert await revisions(300, 5) == []
        assert await revisions(12345, 5) == []
        assert await revisions(0, 0) == []

    async def test_changes_stop_at_the_size_asked_for(self, store: Store) -> None:
        """Changes stop once the size is passed, but one is returned however large it is."""
        transaction = Transaction()
        for revision in range(1, 8):
            transaction.append(make_change(A, revision, "x" * 1000))
        await store.commit(transaction)

        async def revisions(max_bytes: int) -> list[int]:
            found = await store.changes(A, after=0, limit=9, max_bytes=max_bytes)
            return [change.revision for change in found]

        assert await revisions(1) == [1]
        assert await revisions(2500) == [1, 2, 3]
        assert await revisions(1 << 20) == [1, 2, 3, 4, 5, 6, 7]

    async def test_a_log_has_neither_gaps_nor_second_versions(self, store: Store) -> None:
        """A change that is there already, or whose predecessor is not, is a conflict."""
        await store.commit(step(A, 1))
        for execution_id, revision in ((A, 1), (A, 3), (B, 2)):
            transaction = Transaction()
            transaction.append(make_change(execution_id, revision))
            with pytest.raises(Conflict):
                await store.commit(transaction)
        assert len(await store.changes(A, after=0, limit=9, max_bytes=999)) == 1

    async def test_a_log_is_purged_in_steps(self, store: Store) -> None:
        """Purging removes the oldest changes of one execution and tells when none are left."""
        transaction = Transaction()
        for revision in range(1, 6):
            transaction.append(make_change(A, revision))
            transaction.append(make_change(B, revision))
        await store.commit(transaction)
        assert await store.purge_changes(A, limit=3)
        assert await store.durable.change(A, 3) is None
        assert await store.durable.change(A, 4) is not None
        assert not await store.purge_changes(A, limit=3)
        assert not await store.purge_changes(A, limit=3)
        assert len(await store.changes(B, after=0, limit=9, max_bytes=999)) == 5

    # Scans and counts

    async def test_scans_are_newest_first_in_pages(self, store: Store) -> None:
        """A scan walks from the newest id to the oldest, and goes on behind any id."""
        ids = [make_id(1000 + n, n) for n in range(10)]
        for execution_id in ids:
            await store.commit(put_execution(execution_id))
        query = Query(AGENT_EXECUTION)
        newest_first = ids[::-1]
        assert await store.scan(query, limit=99) == newest_first
        assert await store.scan(query, limit=3) == newest_first[:3]
        assert await store.scan(query, after=newest_first[2], limit=3) == newest_first[3:6]
        assert await store.scan(query, after=make_id(1005, 4), limit=99) == newest_first[5:]
        assert await store.scan(query, after=ids[0], limit=3) == []
        assert await store.scan(query, limit=0) == []

    async def test_groups_are_a_conjunction_of_disjunctions(self, store: Store) -> None:
        """An id is found when each group has one of its terms."""
        terms = {A: [RED, ROUND], B: [RED], make_id(3000): [ROUND], make_id(4000): []}
        for execution_id, its_terms in terms.items():
            transaction = put_execution(execution_id)
            transaction.index(AGENT_EXECUTION, execution_id, after=its_terms)
            await store.commit(transaction)

        async def found(*groups: tuple[Term, ...]) -> list[str]:
            return await store.scan(Query(AGENT_EXECUTION, groups), limit=99)

        assert await found((RED,)) == [B, A]
        assert await found((RED, ROUND, RED)) == [make_id(3000), B, A]
        assert await found((RED,), (ROUND,)) == [A]
        assert await found((RED,), (RED,)) == [B, A]
        assert await found((RED,), ()) == []
        assert await found((RED,), (Term("shape", "red"),)) == []
        assert await store.scan(Query(SESSION, ((RED,),)), limit=99) == []

    async def test_long_scans_agree_with_short_ones(self, store: Store) -> None:
        """A conjunction of large, nearly disjoint sets is found, however far the walk is."""
        ids = [make_id(1000 + n) for n in range(6000)]
        transaction = Transaction()
        for number, execution_id in enumerate(ids):
            colour = RED if number % 2 or number in (0, 3000) else ROUND
            also = [RED, ROUND] if number in (0, 3000) else [colour]
            transaction.index(AGENT_EXECUTION, execution_id, after=also)
        await store.commit(transaction)
        query = Query(AGENT_EXECUTION, ((RED,), (ROUND,)))
        assert await store.scan(query, limit=9) == [ids[3000], ids[0]]
        assert await store.count(AGENT_EXECUTION, RED, limit=9999) == 3002

    async def test_ranges_are_of_the_time_in_the_ids(self, store: Store) -> None:
        """A range includes its start and leaves its stop out; ends outside of all times are fine."""
        ids = [make_id(1000 + n, 7) for n in range(5)]
        for execution_id in ids:
            transaction = put_execution(execution_id)
            transaction.index(AGENT_EXECUTION, execution_id, after=[RED])
            await store.commit(transaction)

        async def found(start: int | None, stop: int | None) -> list[str]:
            both = [
                await store.scan(Query(AGENT_EXECUTION, groups, Range(start, stop)), limit=99)
                for groups in ((), ((RED,),))
            ]
            assert both[0] == both[1]
            return both[0][::-1]

        assert await found(1001, 1003) == ids[1:3]
        assert await found(None, 1003) == ids[:3]
        assert await found(1003, None) == ids[3:]
        assert await found(1003, 1003) == []
        assert await found(-5, 1 << 60) == ids
        assert await found(1 << 60, None) == []

    async def test_a_term_is_walked_from_its_oldest_id(self, store: Store) -> None:
        """A walk goes from the oldest id to before a time, in pages, and goes on behind any id; terms do not mix."""
        ids = [make_id(1000 + n, 7) for n in range(6)]
        for number, execution_id in enumerate(ids):
            transaction = put_execution(execution_id)
            transaction.index(AGENT_EXECUTION, execution_id, after=[ROUND if number == 2 else RED])
            await store.commit(transaction)
        red = [each for number, each in enumerate(ids) if number != 2]

        async def found(before: int, after: str | None = None, limit: int = 99) -> list[str]:
            return await store.scan_oldest(AGENT_EXECUTION, RED, after=after, before_ms=before, limit=limit)

        assert await found(1 << 60) == red
        assert await found(1004) == red[:3]
        assert await found(1 << 60, limit=2) == red[:2]
        assert await found(1004, after=red[1]) == red[2:3]
        assert await found(1 << 60, after=ids[2]) == red[2:]
        assert await found(1000, after=red[3]) == await found(-5) == []

    async def test_terms_do_not_run_into_each_other(self, store: Store) -> None:
        """Index and value of a term are apart from each other and from ids, whatever is in them."""
        terms = [Term(a, b) for a in ("i", "i\0", "ia") for b in HOSTILE]
        transaction = Transaction()
        for number, term in enumerate(terms):
            transaction.index(AGENT_EXECUTION, make_id(1000 + number), after=[term])
        await store.commit(transaction)
        for number, term in enumerate(terms):
            query = Query(AGENT_EXECUTION, ((term,),))
            assert await store.scan(query, limit=9) == [make_id(1000 + number)]
            assert await store.count(AGENT_EXECUTION, term, limit=9) == 1

    async def test_records_move_between_terms(self, store: Store) -> None:
        """Moving a record takes it from its old terms to the new ones; the last word counts."""
        transaction = Transaction()
        transaction.index(AGENT_EXECUTION, A, after=[RED])
        await store.commit(transaction)
        transaction = Transaction()
        transaction.index(AGENT_EXECUTION, A, before=[RED], after=[ROUND])
        transaction.index(AGENT_EXECUTION, A, before=[ROUND], after=[RED])
        transaction.index(AGENT_EXECUTION, A, before=[RED], after=[ROUND])
        await store.commit(transaction)
        assert await store.scan(Query(AGENT_EXECUTION, ((RED,),)), limit=9) == []
        assert await store.scan(Query(AGENT_EXECUTION, ((ROUND,),)), limit=9) == [A]

    async def test_counts_see_what_is_pending_and_stop_at_the_limit(self, store: Store) -> None:
        """A count knows what is on its way in and out, and goes no further than its limit."""
        transaction = Transaction()
        for number in range(10):
            transaction.index(AGENT_EXECUTION, make_id(number), after=[RED])
        await store.commit(transaction)
        heavy = asyncio.create_task(store.commit(step(B, 1, "x" * MUCH)))
        await asyncio.sleep(0)
        moves = Transaction()
        for number in range(4):
            moves.index(AGENT_EXECUTION, make_id(number), before=[RED])
        moves.index(AGENT_EXECUTION, make_id(50), after=[RED])
        moving = asyncio.create_task(store.commit(moves))
        await asyncio.sleep(0)
        assert await store.count(AGENT_EXECUTION, RED, limit=99) == 7
        assert await store.count(AGENT_EXECUTION, RED, limit=3) == 3
        assert await store.count(AGENT_EXECUTION, RED, limit=0) == 0
        await asyncio.gather(heavy, moving)
        assert await store.count(AGENT_EXECUTION, RED, limit=99) == 7

    # Idempotency records

    async def test_idempotency_records_expire(self, store: Store) -> None:
        """Records that may go are named soonest first, by the time they carry now."""
        times = {"a": 3000, "b": 1000, "c": 2000, "d": 9000}
        for key, time_ms in times.items():
            await store.commit(_idempotency(key, time_ms))
        lasting = Transaction()
        lasting.put(IDEMPOTENCY, "never", IdempotencyRecord())
        await store.commit(lasting)
        assert await store.expired(5000, limit=9) == ["b", "c", "a"]
        assert await store.expired(5000, limit=1) == ["b"]
        assert await store.expired(1000, limit=9) == []
        await store.commit(_idempotency("b", 8000))
        gone = Transaction()
        gone.delete(IDEMPOTENCY, "c")
        await store.commit(gone)
        assert await store.expired(5000, limit=9) == ["a"]
        assert await store.expired(1 << 40, limit=9) == ["a", "b", "d"]

    # The end

    async def test_closing_writes_what_is_accepted(self, tmp_path: Path) -> None:
        """What was accepted before the close is on disk after it, and its callers hear so."""
        store = await self.open(tmp_path / "data")
        callers = [asyncio.create_task(store.commit(step(make_id(n), 1))) for n in range(50)]
        await asyncio.sleep(0)
        await asyncio.gather(store.close(), store.close())
        await store.close()
        assert await asyncio.gather(*callers) == [None] * 50
        store = await self.open(tmp_path / "data")
        for number in range(50):
            assert await store.durable.change(make_id(number), 1) is not None
        await store.close()

    async def test_a_closed_store_says_so(self, store: Store) -> None:
        """After the close, every call is answered with Unavailable."""
        await store.close()
        for call in (
            store.commit(Transaction()),
            store.durable.get(AGENT, A),
            store.pending.get(AGENT, A),
            store.scan(Query(AGENT_EXECUTION), limit=1),
            store.changes(A, after=0, limit=1, max_bytes=1),
            store.count(AGENT, RED, limit=1),
            store.expired(1, limit=1),
            store.purge_changes(A, limit=1),
        ):
            with pytest.raises(Unavailable) as caught:
                await call
            assert caught.value.reason == "STORE_UNAVAILABLE"

    async def test_a_transaction_of_another_epoch_is_refused(self, store: Store) -> None:
        """What was decided in an epoch that is over is a conflict."""
        transaction = Transaction(epoch=store.epoch)
        transaction.put(AGENT, "agt", Agent())
        await store.commit(transaction)
        with pytest.raises(Conflict):
            await store.commit(Transaction(epoch=store.epoch + 1))


def _idempotency(key: str, expire_ms: int) -> Transaction:
    record = IdempotencyRecord(resource_id=key)
    record.expire_time.FromMilliseconds(expire_ms)
    transaction = Transaction()
    transaction.put(IDEMPOTENCY, key, record)
    return transaction
