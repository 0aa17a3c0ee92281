"""The tree: what becomes of sub-executions when the one that asked for them ends, or begins its work anew.

The end goes down level by level: each execution that ends by it is a commit, which the keeper hears like any other.
What is to be done stands in the heads on disk, so a crash in the middle loses nothing: the next start looks at the
parent of everything that lives. A Create that races with the end of its parent expects the parent's head, so it is
refused, or it is on disk when the keeper looks.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

from runstream.dispatch.deadlines import Deadlines
from runstream.model.errors import FailedPrecondition, NotFound
from runstream.model.ids import ulid_millis
from runstream.model.phases import is_terminal
from runstream.model.times import to_millis
from runstream.pipeline.context import SYSTEM, Caller
from runstream.services.executions.live import live_children_of, live_executions
from runstream.storage.records import EXECUTION_HEAD
from runstream.v1.agent_execution_pb2 import (
    CONTROL_CANCEL,
    EXECUTION_CANCELLED,
    EXECUTION_PENDING,
    EXECUTION_TERMINATED,
    AgentExecution,
    ExecutionChange,
)
from runstream.v1.agent_execution_service_pb2 import CancelAgentExecutionInput, TerminateAgentExecutionInput

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runstream.model.clock import Clock
    from runstream.storage.folds import Folds
    from runstream.storage.store import Store, Transaction
    from runstream.stored.v1.stored_pb2 import ExecutionHead

#: How many sub-executions are being ended at once.
AT_ONCE: Final = 64
_CHUNK: Final = 500
_LOG_CHUNK: Final = 256
_LOG_BYTES: Final = 256 << 10


class Ender(Protocol):
    """Ends executions: the commands that do it for users too."""

    async def cancel(self, request: CancelAgentExecutionInput, caller: Caller, /) -> AgentExecution:
        """Ask for an end. NOT_FOUND; FAILED_PRECONDITION when it ended otherwise."""
        ...

    async def terminate(self, request: TerminateAgentExecutionInput, caller: Caller, /) -> AgentExecution:
        """End it at once. NOT_FOUND; FAILED_PRECONDITION when it ended otherwise."""
        ...


@dataclass(frozen=True, slots=True)
class Fate:
    """How sub-executions end, and why."""

    reason: str
    at_once: bool = False


PARENT_CANCELLED: Final = Fate("PARENT_CANCELLED")
PARENT_TERMINATED: Final = Fate("PARENT_TERMINATED", at_once=True)
PARENT_ENDED: Final = Fate("PARENT_ENDED")
PARENT_SUPERSEDED: Final = Fate("PARENT_SUPERSEDED")


def fate_below(parent: ExecutionHead | None) -> Fate | None:
    """Return what becomes of the sub-executions of a parent, None for one that was deleted; None: they go on."""
    if parent is None:
        return PARENT_ENDED
    phase = parent.status.phase
    if phase == EXECUTION_TERMINATED:
        return PARENT_TERMINATED
    if phase == EXECUTION_CANCELLED or parent.status.control.action == CONTROL_CANCEL:
        return PARENT_CANCELLED
    return PARENT_ENDED if is_terminal(phase) else None


class Tree:
    """Ends sub-executions, in the background, as their parents come to an end."""

    def __init__(self, store: Store, folds: Folds, clock: Clock, ender: Ender) -> None:
        self._store = store
        self._folds = folds
        self._ender = ender
        self._places = asyncio.Semaphore(AT_ONCE)
        # Parents to look at now: due at once, one look at a time for each, and again when a look fails.
        self._ending = Deadlines(clock, self._end_all)
        self._begun_anew = Deadlines(clock, self._end_superseded)

    async def run(self) -> None:
        """Look at parents as they come; until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ending.run(), name="ending parents")
            group.create_task(self._begun_anew.run(), name="parents begun anew")

    async def resume(self) -> None:
        """Have the parent of every live sub-execution looked at: an earlier process may have been cut off."""
        async for _, head in live_executions(self._store):
            if head.parent_id:
                self._ending.add(head.parent_id, 0)
                self._begun_anew.add(head.parent_id, 0)

    def on_commit(self, transaction: Transaction) -> None:
        """Have those looked at that end or begin anew. Whoever never had a sub-execution costs a look at a flag."""
        for change in transaction.changes:
            head = transaction.puts.get((EXECUTION_HEAD, change.execution_id))
            if head is not None:
                self._note(change, cast("ExecutionHead", head))
        for kind, execution_id in transaction.deletes:
            if kind is EXECUTION_HEAD:
                self._ending.add(execution_id, 0)

    def _note(self, change: ExecutionChange, head: ExecutionHead) -> None:
        if head.may_have_open_items:
            if change.terminal or change.control.action == CONTROL_CANCEL:
                self._ending.add(change.execution_id, 0)
            if change.supersedes:
                self._begun_anew.add(change.execution_id, 0)
        # One that is queued again may have been recovered after its parent's end.
        if head.parent_id and change.status.phase == EXECUTION_PENDING:
            self._ending.add(head.parent_id, 0)

    async def _end_all(self, parent_id: str) -> None:
        """End all sub-executions of a parent that itself ends."""
        fate = fate_below(await self._store.durable.get(EXECUTION_HEAD, parent_id))
        after = None
        while fate and (ids := await self._store.scan(live_children_of(parent_id), after=after, limit=_CHUNK)):
            await self._end(ids, fate)
            after = ids[-1]

    async def _end_superseded(self, parent_id: str) -> None:
        """End the sub-executions that attempts asked for whose work was dropped since."""
        parent = await self._store.durable.get(EXECUTION_HEAD, parent_id)
        if parent is None or parent.status.attempt <= 1:
            return
        live = await self._live_children(parent_id)
        status = await self._folds.status(parent_id, parent.revision) if live else None
        if status is None:
            return
        begun = {entry.id: entry.revision for entry in status.sub_agent_executions if entry.id in live}
        # A runner may have replaced the list, and with it the entry that tells when a child began.
        last = await self._last_superseding(parent_id, after=0 if len(begun) < len(live) else min(begun.values()))
        if last is not None:
            ended = [child for child in live if _began_before(last, child, begun.get(child))]
            await self._end(ended, PARENT_SUPERSEDED)

    async def _live_children(self, parent_id: str) -> set[str]:
        found: set[str] = set()
        after = None
        while ids := await self._store.scan(live_children_of(parent_id), after=after, limit=_CHUNK):
            found.update(ids)
            after = ids[-1]
        return found

    async def _last_superseding(self, parent_id: str, *, after: int) -> ExecutionChange | None:
        """Return the last change after a revision that drops the work of earlier attempts, or None."""
        last = None
        while changes := await self._store.changes(parent_id, after=after, limit=_LOG_CHUNK, max_bytes=_LOG_BYTES):
            last = next((change for change in reversed(changes) if change.supersedes), last)
            after = changes[-1].revision
        return last

    async def _end(self, execution_ids: Iterable[str], fate: Fate) -> None:
        """End executions beside each other. When one could not be ended the others are nevertheless; then raise."""
        ends = (self._end_one(execution_id, fate) for execution_id in execution_ids)
        for outcome in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _end_one(self, execution_id: str, fate: Fate) -> None:
        async with self._places:
            try:
                if fate.at_once:
                    request = TerminateAgentExecutionInput(id=execution_id, reason=fate.reason)
                    await self._ender.terminate(request, SYSTEM)
                else:
                    await self._ender.cancel(CancelAgentExecutionInput(id=execution_id, reason=fate.reason), SYSTEM)
            except NotFound:
                return
            except FailedPrecondition as error:
                if error.reason != "EXECUTION_TERMINAL":  # else it has ended by itself
                    raise


def _began_before(change: ExecutionChange, child_id: str, begun: int | None) -> bool:
    """Tell whether a child was created before a change of its parent: by its entry, else by the time in its id."""
    if begun is None:
        return ulid_millis(child_id) < to_millis(change.change_time)
    return begun < change.revision
