"""Whole logs: the log of an imported execution, folded from its beginning, and the head that it makes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from runstream.model.ids import ulid_millis
from runstream.model.merge import EntryIndex, fold_all
from runstream.model.phases import WAITING, is_terminal
from runstream.model.succession import Succession
from runstream.model.times import to_millis
from runstream.model.views import basic_status
from runstream.services.executions.changes import reports_items
from runstream.services.transfer.pieces import log_invalid
from runstream.stored.v1.stored_pb2 import ExecutionHead, StatusSnapshot
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_FAILED,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_PHASE_UNSPECIFIED,
    AgentExecution,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runstream.storage.store import Store
    from runstream.v1.agent_execution_pb2 import ExecutionChange

_CHUNK_CHANGES: Final = 64
_CHUNK_BYTES: Final = 256 << 10
#: How much a fold may hold for nothing before it is worth a copy.
_MIN_STALE_BYTES: Final = 1 << 20


class WholeLog:
    """A log as far as it was taken, and what of the head only a log tells."""

    def __init__(self, execution_id: str) -> None:
        self.id = execution_id
        #: The fold.
        self.state = AgentExecution()
        #: The bytes of all changes.
        self.size = 0
        #: How often its runner was lost since it was created or recovered.
        self.lost_attempts = 0
        #: Whether its next attempt continues from what is there.
        self.resume = False
        #: Whether an attempt was ever taken from its runner; then the agent says whether the next one continues.
        self.released = False
        self._spec_revision = 0
        self._reported_items = False
        self._succession = Succession()
        self._index = EntryIndex()

    @property
    def revision(self) -> int:
        """The revision of the newest change."""
        return self.state.metadata.revision

    @property
    def phase(self) -> int:
        """Where the execution stands."""
        return self._succession.phase

    @property
    def attempt(self) -> int:
        """The attempt that is current."""
        return self._succession.attempt

    async def read(self, store: Store, last: int) -> None:
        """Take what is on disk, up to a revision."""
        while self.revision < last:
            limit = min(_CHUNK_CHANGES, last - self.revision)
            changes = await store.changes(self.id, after=self.revision, limit=limit, max_bytes=_CHUNK_BYTES)
            if not changes or changes[0].revision != self.revision + 1:
                raise log_invalid(self.id, self.revision + 1, "it is missing")
            self._take(changes)
            await asyncio.sleep(0)

    async def extend(self, changes: Sequence[ExecutionChange]) -> None:
        """Take changes that follow."""
        for start in range(0, len(changes), _CHUNK_CHANGES):
            self._take(changes[start : start + _CHUNK_CHANGES])
            await asyncio.sleep(0)

    def check_end(self) -> None:
        """Check what only a whole log has. INVALID_ARGUMENT, reason LOG_INVALID."""
        audit = self.state.status.audit
        told = ""
        if self.phase == EXECUTION_PHASE_UNSPECIFIED:
            told = "nothing in the log says in which phase it is"
        elif not audit.status_audit.HasField("updated_at"):
            told = "nothing in the log says when its status changed last"
        elif to_millis(audit.spec_audit.created_at) != ulid_millis(self.id):
            told = "it was created at another time than its id says"
        elif not self.state.spec.agent_id:
            told = "it names no agent"
        if told:
            raise log_invalid(self.id, self.revision, told)

    def record(self) -> AgentExecution:
        """Make the record: metadata and spec, at the revision of their last change."""
        record = AgentExecution()
        record.CopyFrom(self.state)
        record.ClearField("status")
        record.metadata.revision = self._spec_revision
        return record

    def head(self) -> ExecutionHead:
        """Make the head."""
        spec = self.state.spec
        return ExecutionHead(
            revision=self.revision,
            status=basic_status(self.state.status),
            log_bytes=self.size,
            may_have_open_items=self._reported_items,
            agent_id=spec.agent_id,
            session_id=spec.session_id,
            parent_id=spec.context.parent_execution_id,
            deadline=spec.context.deadline if spec.context.HasField("deadline") else None,
            lost_attempts=self.lost_attempts,
            resume=self.resume,
        )

    def snapshot(self) -> StatusSnapshot:
        """Make the stored fold."""
        return StatusSnapshot(revision=self.revision, log_bytes=self.size, status=self.state.status)

    def secret_names(self) -> list[str]:
        """Return the secrets that must have a place: their values never leave a server."""
        if is_terminal(self.phase) and self.phase != EXECUTION_FAILED:
            return []
        return [name for name, variable in self.state.spec.runtime_env.items() if variable.is_secret]

    def _take(self, changes: Sequence[ExecutionChange]) -> None:
        for change in changes:
            self._follow(change)
        try:
            fold_all(self.state, changes, self._index)
        except ValueError as error:
            raise log_invalid(self.id, self.revision + 1, f"it cannot be folded: {error}") from None
        if self._index.stale_bytes > max(self.size, _MIN_STALE_BYTES):
            renewed = AgentExecution()
            renewed.CopyFrom(self.state)
            self.state, self._index.stale_bytes = renewed, 0

    def _follow(self, change: ExecutionChange) -> None:
        before = self.phase
        if is_terminal(before) and not change.HasField("updated") and change.status.phase != EXECUTION_PENDING:
            raise log_invalid(self.id, change.revision, "the execution has ended before it")
        for _, told in self._succession.faults(change):
            raise log_invalid(self.id, change.revision, told)
        self.size += change.ByteSize()
        if change.HasField("created") or change.HasField("updated"):
            self._spec_revision = change.revision
        self._reported_items = self._reported_items or reports_items(change.status)
        self._keep_books(change, before)

    def _keep_books(self, change: ExecutionChange, before: int) -> None:
        """Learn what a head keeps of attempts; the rules are those of the commands that write it."""
        status, event = change.status, change.status.audit.status_audit.event
        released = event in ("runner_lost", "returned")
        self.released = self.released or released
        if event == "runner_lost" and before not in WAITING:
            self.lost_attempts += 1
        if event == "recovered":
            self.resume, self.lost_attempts = True, 0
        paused = status.phase == EXECUTION_PAUSED and before not in (EXECUTION_PENDING, EXECUTION_PHASE_UNSPECIFIED)
        answered = before in WAITING and (released or status.phase == EXECUTION_PENDING)
        continued = status.attempt > 1 and not change.supersedes
        self.resume = self.resume or paused or answered or continued
