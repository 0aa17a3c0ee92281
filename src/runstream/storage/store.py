"""The store's contract: what every backend promises to the rooms above.

Records are protobuf messages keyed by (kind, id), changes by (execution, revision). One transaction
is one atomic commit. There are two readers of one store:

- `durable` sees exactly what is on disk. Queries, lists and streams use it: what they see, no crash
  takes back.
- `pending` sees also the transactions that are accepted and on their way to disk. Commands decide
  on it, so that two commands in flight see each other. What a command answers leaves only after its
  own commit, and with it everything it was decided on, is on disk.

Threads: all methods are called on the event loop. Returned messages belong to the caller, but for
those that say that they are shared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from runstream.model.errors import Aborted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runstream.storage.records import AnyKind, M, RecordKind
    from runstream.storage.write_counts import WriteCounts
    from runstream.v1.agent_execution_pb2 import ExecutionChange


class Conflict(Aborted):
    """An expectation of a transaction did not hold when it was committed.

    Nothing of it is stored.
    """

    def __init__(self, what: str) -> None:
        """Take what was expected, in words."""
        super().__init__("CONFLICT", f"Something changed in between: {what}. Read again and retry.")


class Term(NamedTuple):
    """One value of one secondary index, as in ``Term("phase", "2")``.

    Terms of a kind find its records.
    """

    index: str  # type: ignore[assignment]  # in place of what tuples have under this name
    value: str


class Unique(NamedTuple):
    """A name that one record may hold, as in ``Unique("agent_slug", "acme", "survey")``."""

    index: str  # type: ignore[assignment]  # as in `Term`
    scope: str
    value: str


@dataclass(frozen=True, slots=True)
class Range:
    """Ids by the time in them, in ms since the epoch, from `start` to before `stop`."""

    start: int | None = None
    stop: int | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """Which ids of a kind to scan: those in `range` that are under a term of every group.

    No group at all means every record of the kind. A group is a disjunction; the groups are a
    conjunction.
    """

    kind: AnyKind
    all_of: tuple[tuple[Term, ...], ...] = ()
    range: Range = Range()


class Expectation(NamedTuple):
    """What must hold of a record for a commit: `revision` None means that it does not exist.

    ``ANY_REVISION`` means that it exists.
    """

    kind: AnyKind
    id: str
    revision: int | None


ANY_REVISION = -1


@dataclass(slots=True, init=False)
class Transaction:
    """What one commit does, gathered step by step.

    Messages given to it must not be changed afterwards.
    """

    puts: dict[tuple[AnyKind, str], Any]
    deletes: set[tuple[AnyKind, str]]
    added_terms: set[tuple[AnyKind, str, Term]]
    removed_terms: set[tuple[AnyKind, str, Term]]
    claims: dict[Unique, str]
    releases: set[Unique]
    changes: list[ExecutionChange]
    #: The changes as they are stored, made when they are appended: their size stands in the head.
    encoded_changes: list[bytes]
    expectations: list[Expectation]
    #: Terms that nothing may be indexed under when it is committed.
    unused: set[tuple[AnyKind, Term]]
    #: The value of `Store.epoch` when its state was first read. Revisions alone cannot tell that a
    #: failed write has undone what was read and that others have since come to the same number by
    #: another way.
    epoch: int | None

    def __init__(self, epoch: int | None = None) -> None:
        # By hand: there is one for every command, and generated code with nine factories costs several times this.
        self.puts, self.claims = {}, {}
        self.deletes, self.added_terms, self.removed_terms = set(), set(), set()
        self.releases, self.unused = set(), set()
        self.changes, self.encoded_changes, self.expectations = [], [], []
        self.epoch = epoch

    @property
    def in_place(self) -> bool:
        """Whether everything is found as before: no index entry comes or goes, and no record goes."""
        return not (self.added_terms or self.removed_terms or self.deletes)

    def put(self, kind: RecordKind[M], record_id: str, message: M) -> None:
        """Store `message` under (`kind`, `record_id`), in place of what is there."""
        self.deletes.discard((kind, record_id))
        self.puts[kind, record_id] = message

    def delete(self, kind: RecordKind[M], record_id: str) -> None:
        """Remove the record under (`kind`, `record_id`); a record that is not there is no error."""
        self.puts.pop((kind, record_id), None)
        self.deletes.add((kind, record_id))

    def index(
        self,
        kind: RecordKind[M],
        record_id: str,
        *,
        before: Iterable[Term] = (),
        after: Iterable[Term] = (),
    ) -> None:
        """Move a record from the terms `before` to the terms `after`.

        Terms in both are not touched.
        """
        old = {(kind, record_id, term) for term in before}
        new = {(kind, record_id, term) for term in after}
        gone, come = old - new, new - old
        self.added_terms -= gone
        self.added_terms |= come
        self.removed_terms -= come
        self.removed_terms |= gone

    def claim(self, unique: Unique, record_id: str) -> None:
        """Take a free name for a record.

        A taken one is a `Conflict` at commit, unless it was released just before.
        """
        self.claims[unique] = record_id

    def release(self, unique: Unique) -> None:
        """Give a name back."""
        self.claims.pop(unique, None)
        self.releases.add(unique)

    def append(self, change: ExecutionChange) -> int:
        """Add `change` to the log of its execution; return how many bytes it takes there.

        Its revision must be the newest plus one (expect the head).
        """
        encoded = change.SerializeToString()
        self.changes.append(change)
        self.encoded_changes.append(encoded)
        return len(encoded)

    def expect(self, kind: RecordKind[M], record_id: str, revision: int | None) -> None:
        """Commit only if the record is at `revision`; None: is not there, ``ANY_REVISION``: is there."""
        self.expectations.append(Expectation(kind, record_id, revision))

    def expect_unused(self, kind: RecordKind[M], term: Term) -> None:
        """Commit only if no record of a kind is indexed under `term`, on the pending state."""
        self.unused.add((kind, term))

    def expect_exists(self, kind: RecordKind[M], record_id: str) -> None:
        """Commit only if the record exists, at whatever revision."""
        self.expect(kind, record_id, ANY_REVISION)


class CommitListener(Protocol):
    """Is told of every transaction that has reached the disk."""

    def __call__(self, transaction: Transaction, /) -> None:
        """Take notice; do not change the transaction."""
        ...


class Reader(Protocol):
    """Point reads at one level of certainty: durable or pending."""

    async def get(self, kind: RecordKind[M], record_id: str) -> M | None:
        """Return the record, or None."""
        ...

    async def shared(self, kind: RecordKind[M], record_id: str) -> M | None:
        """Return the record, or None, without a copy: others have the same message, and nobody may change it."""
        ...

    async def holder(self, unique: Unique) -> str | None:
        """Return the id of the record that holds a name, or None when it is free."""
        ...

    async def change(self, execution_id: str, revision: int) -> ExecutionChange | None:
        """Return one change of an execution's log, or None."""
        ...


class Store(Protocol):
    """A place that keeps records, changes and indexes, and never loses what it has confirmed."""

    @property
    def durable(self) -> Reader:
        """The reader that sees what is on disk."""
        ...

    @property
    def pending(self) -> Reader:
        """The reader that sees also what is on its way to disk."""
        ...

    @property
    def epoch(self) -> int:
        """How often accepted transactions were lost to a failed write.

        One with an older `epoch` is a `Conflict`.
        """
        ...

    @property
    def write_counts(self) -> WriteCounts:
        """What was written, and what could not be."""
        ...

    @property
    def keys_in_flight(self) -> int:
        """How many keys are on their way to disk."""
        ...

    @property
    def stored_bytes(self) -> int:
        """About how many bytes it takes on disk."""
        ...

    async def commit(self, transaction: Transaction) -> None:
        """Store everything in `transaction` or nothing.

        It is on disk and visible when this returns.

        Raises `Conflict` when an expectation or a claim does not hold on the pending state, and
        `Unavailable` (reason ``STORE_UNAVAILABLE``) when the disk refuses; the store stays
        readable, and a later commit tries again. After `Unavailable` the transaction is not
        visible, but may prove to be on disk when the disk takes writes again; `on_commit` then
        hears of it. A caller that is cancelled while it waits does not stop the transaction.
        Transactions of callers that do not wait for each other reach the disk together. An empty
        transaction is a barrier: when it returns, everything accepted before it is on disk.
        """
        ...

    def on_commit(self, listener: CommitListener, *, in_place: bool = True) -> None:
        """Have `listener` called with every transaction on disk, in order, before the caller goes on.

        It is called on the event loop even when the caller has gone away meanwhile; it must be
        quick and not raise. With `in_place` False it is spared transactions that are in place, as most are: see
        `Transaction.in_place`.
        """
        ...

    async def scan(self, query: Query, *, after: str | None = None, limit: int) -> list[str]:
        """Return up to `limit` ids that match, newest first, beginning behind the id `after`.

        Durable.
        """
        ...

    async def scan_oldest(
        self, kind: RecordKind[M], term: Term, *, after: str | None = None, before_ms: int, limit: int
    ) -> list[str]:
        """Return up to `limit` ids indexed under `term` that were made before a time, oldest first.

        Begins behind the id `after`. Durable.
        """
        ...

    async def count(self, kind: RecordKind[M], term: Term, *, limit: int) -> int:
        """Return how many records are indexed under `term`, counting no further than `limit`.

        Pending.
        """
        ...

    async def changes(self, execution_id: str, *, after: int, limit: int, max_bytes: int) -> list[ExecutionChange]:
        """Return up to `limit` changes after revision `after`, oldest first.

        It goes no further than `max_bytes` is passed. At least one is returned when there is one.
        Durable.
        """
        ...

    async def encoded_changes(
        self, execution_id: str, *, after: int, limit: int, max_bytes: int
    ) -> list[tuple[int, bytes]]:
        """Return what `changes` returns as it is stored: the revision of each and its protobuf encoding."""
        ...

    async def expired(self, before_ms: int, *, limit: int) -> list[str]:
        """Return ids of idempotency records that expire before a time, soonest first. Durable."""
        ...

    async def purge_changes(self, execution_id: str, *, limit: int) -> bool:
        """Remove up to `limit` changes of a deleted execution, oldest first.

        Tell whether any are left.
        """
        ...

    async def close(self) -> None:
        """Write what is accepted, wait for running reads, release the data folder.

        A repeat does nothing.
        """
        ...


class Copy(Protocol):
    """All that a store keeps, as it was on disk at one moment, read slice by slice.

    What is committed later is not in it. Until it is released, the store keeps what it can see, also what was removed
    or written over since; it waits for no copy.
    """

    @property
    def format(self) -> int:
        """The number of the stored format that the entries have."""
        ...

    async def next_slice(self, max_bytes: int) -> list[tuple[bytes, bytes]]:
        """Return the next keys and values, in the order of the keys; nothing when there are no more.

        A slice ends with the entry that makes it `max_bytes`, counting keys and values. One call at a time.

        Raises `Unavailable` when the copy cannot go on: reason ``BACKUP_CUT_OFF`` when the store had to take the state
        away, or it was released; ``STORE_UNAVAILABLE`` when the disk cannot be read or the store is closed.
        """
        ...

    def release(self) -> None:
        """Let go of the state, at once or when a slice that is being read is there; a repeat does nothing."""
        ...


@runtime_checkable
class Copyable(Protocol):
    """What a backend may offer beside `Store`: to be copied while it is in use.

    For a backend that keeps all in keys and values of the stored format, of which a data folder can be made again. One
    whose database has backups of its own does not offer it.
    """

    async def copy(self) -> Copy:
        """Begin a copy of everything that is on disk now. Whoever begins it must release it.

        All that `Store.commit` has confirmed before is in it; of every transaction all or nothing.
        """
        ...
