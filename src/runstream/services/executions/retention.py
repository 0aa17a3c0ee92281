"""Retention: executions that ended long enough ago are deleted in the background, the oldest first, a few at a time.

An execution cannot have ended before it was created, and ids tell when that was. So of each terminal phase the index is
walked from its oldest entry up to what was created before the limit, once: a cursor in memory says how far. Behind the
cursor stays what is not due yet, which a heap remembers by its time, and what has not ended yet, which a commit tells
of. A restart begins at the oldest again; what was deleted is not there any more.

Sub-executions stay until the first execution of their tree has ended. Agents, instances and sessions stay.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

import structlog

from runstream.dispatch.steady_clock import SteadyClock
from runstream.model.errors import Aborted, NotFound
from runstream.model.ids import ulid_millis
from runstream.model.phases import is_terminal, phase_name
from runstream.model.times import to_datetime, to_millis
from runstream.services.resource_types import phase_term
from runstream.storage.records import AGENT_EXECUTION, EXECUTION_HEAD
from runstream.storage.store import Query

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from runstream.model.clock import Clock
    from runstream.storage.store import Store, Transaction
    from runstream.stored.v1.stored_pb2 import ExecutionHead

_LOG = structlog.get_logger(__name__)

#: How many executions one turn looks at, and how many of them it deletes at most.
LOOKS_A_TURN: Final = 100
DELETES_A_TURN: Final = 10
#: How long others have the machine for themselves between two turns, in seconds.
BETWEEN_TURNS: Final = 0.125
#: How often it is looked whether something is due, in seconds.
SWEEP_SECONDS: Final = 60.0
#: How long a sub-execution rests whose tree is at work, and a turn that failed, in seconds.
TREE_SECONDS: Final = 3_600.0
RETRY_SECONDS: Final = 5.0
#: How many executions behind the cursors are remembered; the others are looked for anew.
MOST_REMEMBERED: Final = 32_768
#: After how many deletions a line is logged while there are more to come.
_LOGGED_EVERY: Final = 1_000


class Retirer(Protocol):
    """Deletes an execution that is at a revision."""

    async def __call__(self, execution_id: str, revision: int, /) -> None:
        """Return when it is on disk. NOT_FOUND; ABORTED when it has changed since."""
        ...


@dataclass(slots=True)
class _Lane:
    """How far the executions that ended in one phase have been walked."""

    phase: int
    kept_ms: int
    #: The newest id that was looked at.
    after: str | None = None
    #: Whatever was created before this, in ms, is behind the cursor or about to be.
    reach_ms: int = 0


class Retention:
    """Deletes executions when their time is over."""

    def __init__(self, store: Store, clock: Clock, kept: Mapping[int, timedelta], retire: Retirer) -> None:
        """Take how long executions are kept by the phase they ended in, and what deletes one."""
        self._store = store
        self._clock = clock
        self._steady = SteadyClock(clock)
        self._retire = retire
        self._lanes = {phase: _Lane(phase, int(span.total_seconds() * 1_000)) for phase, span in kept.items()}
        self._remembered: list[tuple[int, str]] = []
        #: When everything is walked again, since more was kept behind the cursors than can be remembered.
        self._again_ms: int | None = None
        self._deleted: Counter[str] = Counter()
        self._never = asyncio.Event()

    async def resume(self) -> None:
        """Learn how late it was when something happened here last."""
        for newest in await self._store.scan(Query(AGENT_EXECUTION), limit=1):
            head = await self._store.durable.get(EXECUTION_HEAD, newest)
            if head is not None:
                self._steady.begin(to_datetime(head.status.audit.status_audit.updated_at))

    def on_commit(self, transaction: Transaction) -> None:
        """Remember what has ended that the walk has passed already."""
        for (kind, execution_id), message in transaction.puts.items():
            if kind is not EXECUTION_HEAD:
                continue
            head = cast("ExecutionHead", message)
            lane = self._lanes.get(head.status.phase)
            if lane is not None and ulid_millis(execution_id) < lane.reach_ms:
                self._remember(execution_id, _ended_ms(head) + lane.kept_ms)

    async def run(self) -> None:
        """Delete what is due, in turns; until cancelled. Where everything is kept there is nothing to do."""
        while self._lanes:
            try:
                rest = BETWEEN_TURNS if await self.take_turn() else SWEEP_SECONDS
            except Exception:  # noqa: BLE001  # whatever it was, the next turn goes on where this one was
                _LOG.exception("retention_failed")
                rest = RETRY_SECONDS
            await self._clock.wait(self._never, rest)

    async def take_turn(self) -> bool:
        """Look at some executions and delete those that are due; tell whether there may be more of them now."""
        now_ms = to_millis(self._steady.now())
        if self._again_ms is not None and self._again_ms <= now_ms:
            self._again_ms = None
            self._remembered.clear()
            for lane in self._lanes.values():
                lane.after = None
        deleted = sum(self._deleted.values())
        more = await self._take_remembered(now_ms, DELETES_A_TURN)
        for lane in self._lanes.values():
            left = DELETES_A_TURN - (sum(self._deleted.values()) - deleted)
            more = await self._walk(lane, now_ms, left) or more
        self._tell(more=more)
        return more

    async def _take_remembered(self, now_ms: int, most: int) -> bool:
        """Delete what is remembered and due; tell whether more is."""
        for _ in range(LOOKS_A_TURN):
            if not self._remembered or self._remembered[0][0] > now_ms:
                return False
            entry = heapq.heappop(self._remembered)
            try:
                most -= await self._look_at(entry[1], now_ms)
            except BaseException:
                heapq.heappush(self._remembered, entry)
                raise
            if most <= 0:
                break
        return True

    async def _walk(self, lane: _Lane, now_ms: int, most: int) -> bool:
        """Go on with a walk until `most` are deleted; tell whether it goes on still."""
        before_ms = now_ms - lane.kept_ms + 1
        lane.reach_ms = max(lane.reach_ms, before_ms)  # before the scan: what ends meanwhile is remembered
        ids = await self._store.scan_oldest(
            AGENT_EXECUTION,
            phase_term(lane.phase),
            after=lane.after,
            before_ms=before_ms,
            limit=LOOKS_A_TURN,
        )
        for execution_id in ids:
            if most <= 0:
                return True
            most -= await self._look_at(execution_id, now_ms)
            lane.after = execution_id
        return len(ids) == LOOKS_A_TURN

    async def _look_at(self, execution_id: str, now_ms: int) -> bool:
        """Delete an execution if it is due, else remember when it will be; tell whether it was deleted."""
        head = await self._store.durable.get(EXECUTION_HEAD, execution_id)
        lane = None if head is None else self._lanes.get(head.status.phase)
        if head is None or lane is None:
            return False  # gone, or recovered: a commit will tell of its next end
        due_ms = _ended_ms(head) + lane.kept_ms
        if due_ms <= now_ms and head.parent_id and await self._tree_is_at_work(execution_id):
            due_ms = now_ms + int(TREE_SECONDS * 1_000)
        if due_ms > now_ms:
            self._remember(execution_id, due_ms)
            return False
        try:
            await self._retire(execution_id, head.revision)
        except NotFound:
            return False
        except Aborted:
            self._remember(execution_id, now_ms + 1)  # it has changed since: another look tells how
            return False
        self._deleted[phase_name(lane.phase)] += 1
        return True

    async def _tree_is_at_work(self, execution_id: str) -> bool:
        record = await self._store.durable.get(AGENT_EXECUTION, execution_id)
        root_id = "" if record is None else record.spec.context.root_execution_id
        root = await self._store.durable.get(EXECUTION_HEAD, root_id)
        return root is not None and not is_terminal(root.status.phase)

    def _remember(self, execution_id: str, due_ms: int) -> None:
        if self._again_ms is not None and due_ms >= self._again_ms:
            return  # it is found then
        heapq.heappush(self._remembered, (due_ms, execution_id))
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.sort()
            half = len(self._remembered) // 2
            self._again_ms = self._remembered[half][0]
            del self._remembered[half:]

    def _tell(self, *, more: bool) -> None:
        total = sum(self._deleted.values())
        if total >= _LOGGED_EVERY or (total and not more):
            counts = {name.removeprefix("EXECUTION_").lower(): count for name, count in self._deleted.items()}
            _LOG.info("executions_retired", total=total, **counts)
            self._deleted.clear()


def _ended_ms(head: ExecutionHead) -> int:
    """Return when an execution ended, by the wall clock of then: its status changes no more after that."""
    return to_millis(head.status.audit.status_audit.updated_at)
