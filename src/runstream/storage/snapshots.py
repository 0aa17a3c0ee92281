"""Snapshots: when a stored fold pays, and how it is made beside the commands.

The rule: a snapshot is made when the log has outgrown the one before it: when more than max(64 KiB,
its size) have been written since. A status is no longer than the snapshot before it and the log
since then together, so a snapshot is at most twice as long as the log it was made for, and all
snapshots of an execution together at most twice its log. In turn no more than a snapshot and as
much log again is ever read to open an execution. An execution that ends gets a last one when more
than 16 KiB have been written since, for it will be read and not written any more.

Snapshots are derived: one that fails is made later, and nobody else hears of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from runstream.model.phases import is_terminal
from runstream.storage.records import EXECUTION_HEAD, STATUS_SNAPSHOT
from runstream.storage.store import Conflict, Transaction
from runstream.stored.v1.stored_pb2 import StatusSnapshot

if TYPE_CHECKING:
    from runstream.storage.store import Store
    from runstream.stored.v1.stored_pb2 import ExecutionHead
    from runstream.v1.agent_execution_pb2 import AgentExecutionStatus

_log = logging.getLogger(__name__)

_MIN_LOG_BYTES: Final = 64 << 10
_MIN_FINAL_LOG_BYTES: Final = 16 << 10
#: How many are made at once, so that a burst of them does not fill the memory.
_AT_ONCE: Final = 4
#: Of how many executions it is remembered which snapshot they have; of the others it is read again.
_REMEMBERED: Final = 65536


class StatusSource(Protocol):
    """Folds a durable status for a snapshot."""

    async def __call__(
        self, execution_id: str, revision: int, *, into: AgentExecutionStatus
    ) -> AgentExecutionStatus | None:
        """Write the status over `into`; return None when the log does not reach it."""
        ...


@dataclass(slots=True)
class _Newest:
    """What is known of the newest snapshot of an execution, in bytes.

    All zero when there is none.
    """

    log_bytes: int = 0
    size: int = 0
    #: How long the log must be before another attempt, after one that failed.
    retry_at: int = 0


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The state that a snapshot is to be made of."""

    revision: int
    log_bytes: int
    terminal: bool

    def due(self, newest: _Newest) -> bool:
        since = self.log_bytes - newest.log_bytes
        enough = _MIN_FINAL_LOG_BYTES if self.terminal else max(_MIN_LOG_BYTES, newest.size)
        return since > enough and self.log_bytes >= newest.retry_at


class Snapshots:
    """Has a snapshot made in the background whenever one is due, one at a time per execution."""

    def __init__(self, store: Store, status: StatusSource) -> None:
        self._store = store
        self._status = status
        self._newest: OrderedDict[str, _Newest] = OrderedDict()
        self._wanted: dict[str, _Wanted] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._closing = False

    @property
    def under_way(self) -> int:
        """Of how many executions a snapshot is being made."""
        return len(self._tasks)

    def note_commit(self, execution_id: str, head: ExecutionHead) -> None:
        """Hear that `head` is on disk.

        Begin a snapshot if one is due.

        What is not remembered of the newest snapshot is taken as none, and looked up by the task
        that is then begun.
        """
        newest, log_bytes = self._newest.get(execution_id), head.log_bytes
        if self._closing or log_bytes - (0 if newest is None else newest.log_bytes) <= _MIN_FINAL_LOG_BYTES:
            return  # whatever else is the case, as after most commits
        wanted = _Wanted(head.revision, log_bytes, is_terminal(head.status.phase))
        if not wanted.due(newest or _Newest()):
            return
        self._wanted[execution_id] = wanted
        if execution_id not in self._tasks:
            task = asyncio.get_running_loop().create_task(self._make_wanted(execution_id))
            self._tasks[execution_id] = task

    def forget(self, execution_id: str) -> None:
        """Drop what is remembered of an execution."""
        self._newest.pop(execution_id, None)
        self._wanted.pop(execution_id, None)

    async def close(self) -> None:
        """Wait for those under way; begin no more."""
        self._closing = True
        await self.settle()

    async def settle(self) -> None:
        """Wait until none is under way."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def _make_wanted(self, execution_id: str) -> None:
        """Make what is wanted, and what is wanted meanwhile."""
        try:
            while (wanted := self._wanted.pop(execution_id, None)) is not None:
                async with self._slots:
                    await self._try(execution_id, wanted)
        finally:
            del self._tasks[execution_id]

    async def _try(self, execution_id: str, wanted: _Wanted) -> None:
        newest = self._newest.get(execution_id, _Newest())
        try:
            newest = await self._look_up(execution_id)
            if wanted.due(newest):
                await self._make(execution_id, wanted)
        except Conflict:
            self.forget(execution_id)  # deleted meanwhile
        # Derived data: whatever went wrong, the next commit behind `retry_at` tries again.
        except Exception:  # noqa: BLE001
            told = {"execution_id": execution_id, "revision": wanted.revision}
            _log.exception("no snapshot of %s at revision %d", execution_id, wanted.revision, extra=told)
            newest.retry_at = wanted.log_bytes + _MIN_LOG_BYTES
            self._remember(execution_id, newest)

    async def _look_up(self, execution_id: str) -> _Newest:
        known = self._newest.get(execution_id)
        if known is None:
            stored = await self._store.durable.get(STATUS_SNAPSHOT, execution_id)
            known = _Newest() if stored is None else _Newest(stored.log_bytes, stored.ByteSize())
            self._remember(execution_id, known)
        return known

    async def _make(self, execution_id: str, wanted: _Wanted) -> None:
        snapshot = StatusSnapshot(revision=wanted.revision, log_bytes=wanted.log_bytes)
        if await self._status(execution_id, wanted.revision, into=snapshot.status) is None:
            self.forget(execution_id)
            return
        transaction = Transaction()
        # The deletion of an execution removes its snapshot; after that none may be stored.
        transaction.expect_exists(EXECUTION_HEAD, execution_id)
        transaction.put(STATUS_SNAPSHOT, execution_id, snapshot)
        await self._store.commit(transaction)
        self._remember(execution_id, _Newest(wanted.log_bytes, snapshot.ByteSize()))

    def _remember(self, execution_id: str, newest: _Newest) -> None:
        self._newest[execution_id] = newest
        self._newest.move_to_end(execution_id)
        while len(self._newest) > _REMEMBERED:
            self._newest.popitem(last=False)
