"""Housekeeping: what the store sheds in the background, in small pieces that survive a crash in the middle.

A deleted execution leaves a tombstone in the same commit. Its log goes in chunks after that; the tombstone goes last.
So a crash leaves a tombstone, and the next start goes on with the log; what is left of an import that was cut off is
marked and purged in the same way. Expired idempotency records are found by time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from runstream.model.times import to_millis
from runstream.storage.records import IDEMPOTENCY, TOMBSTONE
from runstream.storage.store import Query, Transaction

if TYPE_CHECKING:
    from runstream.model.clock import Clock
    from runstream.storage.store import Store

_LOG = structlog.get_logger(__name__)

PURGE_CHUNK = 1_000
EXPIRE_CHUNK = 1_000
EXPIRE_EVERY_SECONDS = 3600.0
#: How long a failed piece of work rests, in seconds.
RETRY_SECONDS = 5.0


class Purger:
    """Removes the logs of deleted executions."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: dict[str, None] = {}
        self._changed = asyncio.Event()

    def add(self, execution_id: str) -> None:
        """Have the log of a deleted execution removed; its tombstone must be on disk."""
        self._waiting[execution_id] = None
        self._changed.set()

    @property
    def waiting(self) -> int:
        """Of how many deleted executions the log is still to be removed."""
        return len(self._waiting)

    async def resume(self) -> None:
        """Take up what an earlier process left, imports among it: none of them can go on any more."""
        after = None
        while ids := await self._store.scan(Query(TOMBSTONE), after=after, limit=PURGE_CHUNK):
            given_up = Transaction()
            for execution_id in ids:
                tombstone = await self._store.durable.get(TOMBSTONE, execution_id)
                if tombstone is not None and tombstone.importing:
                    # Else its last piece could make an execution of it whose log is then purged.
                    tombstone.importing = False
                    given_up.put(TOMBSTONE, execution_id, tombstone)
                self.add(execution_id)
            await self._store.commit(given_up)
            after = ids[-1]

    async def run(self) -> None:
        """Purge what is added; until cancelled."""
        while True:
            self._changed.clear()
            timeout = None
            try:
                while self._waiting:
                    await self.purge_next()
            except Exception:  # noqa: BLE001  # whatever it was, the next one must get its turn
                _LOG.exception("purge_failed", execution_id=next(iter(self._waiting), ""))
                timeout = RETRY_SECONDS
            await self._clock.wait(self._changed, timeout)

    async def purge_next(self) -> None:
        """Purge the oldest that is waiting, and its tombstone."""
        execution_id = next(iter(self._waiting))
        left = True
        while left:  # each chunk is a commit of its own, so commands come in between
            left = await self._store.purge_changes(execution_id, limit=PURGE_CHUNK)
        transaction = Transaction()
        transaction.delete(TOMBSTONE, execution_id)
        await self._store.commit(transaction)
        self._waiting.pop(execution_id, None)
        _LOG.debug("purged", execution_id=execution_id)


class IdempotencyExpiry:
    """Removes idempotency records when their time is over."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._never = asyncio.Event()

    async def run(self) -> None:
        """Remove expired records now and every hour; until cancelled."""
        while True:
            try:
                removed = await self.remove_expired()
                _LOG.debug("keys_expired", removed=removed)
            except Exception:  # noqa: BLE001  # whatever it was, the next one must get its turn
                _LOG.exception("expiry_failed")
            await self._clock.wait(self._never, EXPIRE_EVERY_SECONDS)

    async def remove_expired(self) -> int:
        """Remove all records that have expired; tell how many."""
        removed = 0
        before = to_millis(self._clock.now())
        while ids := await self._store.expired(before, limit=EXPIRE_CHUNK):
            transaction = Transaction()
            for record_id in ids:
                record = await self._store.pending.get(IDEMPOTENCY, record_id)
                # A key that was used anew since the scan keeps its new record.
                if record is not None and to_millis(record.expire_time) < before:
                    transaction.delete(IDEMPOTENCY, record_id)
            await self._store.commit(transaction)
            removed += len(ids)
        return removed
