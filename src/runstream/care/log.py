"""Logs: one log read from its beginning to its end, folded on the way, in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runstream.care.examination import bits, decoded
from runstream.care.findings import Code
from runstream.model.merge import EntryIndex, fold_all
from runstream.model.succession import Succession, unfit
from runstream.storage import keys
from runstream.v1.agent_execution_pb2 import AgentExecution, ExecutionChange

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runstream.care.examination import Examination
    from runstream.stored.v1.stored_pb2 import StatusSnapshot

#: How much of a log is folded at once. Text that is appended is joined once a piece.
_PIECE_CHANGES: Final = 4_096
_PIECE_BYTES: Final = 2 << 20
#: How much a fold may hold for nothing before it is worth a copy.
_MIN_STALE_BYTES: Final = 1 << 20
#: How many findings one log gives at most: one that is torn would give one for each change.
_FINDINGS: Final = 20


class Log:
    """The log of one execution that is not deleted, as far as it has been read."""

    def __init__(self, examination: Examination, execution_id: str, snapshot: StatusSnapshot | None) -> None:
        """Take the id, and the stored fold that the log is compared with on the way."""
        self._examination = examination
        self._id = execution_id
        self._snapshot = snapshot
        self._piece: list[ExecutionChange] = []
        self._piece_bytes = 0
        self._index = EntryIndex()
        self._told = 0
        #: The revision of the newest change, and the bytes of all.
        self.revision = 0
        self.size = 0
        #: Whether it is 1..n and folds: only then the rest says anything.
        self.whole = True
        #: The fold.
        self.state = AgentExecution()
        #: The revision of the newest change of metadata or spec.
        self.spec_revision = 0
        #: Whether a tool call or a sub-agent was ever reported.
        self.reported_items = False
        #: Whether the snapshot is the fold at its revision; None as long as that is not known.
        self.snapshot_fits: bool | None = None
        self._succession = Succession()

    def read(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Read all changes there are; tell of those that are not as they must be."""
        for key, value in pairs:
            self._take(keys.change_revision(key), value)
        self._fold_piece()
        if self._snapshot is not None and self.snapshot_fits is None and self.whole:
            self.snapshot_fits = False  # the log does not reach it

    def fail(self, code: Code, revision: int, told: str) -> None:
        """Tell of a change; the first few of a log alone."""
        self._told += 1
        if self._told <= _FINDINGS:
            self._examination.found(code, f"change {revision} of execution {self._id}", told)

    def _take(self, revision: int, value: bytes) -> None:
        expected, self.revision = self.revision + 1, revision
        if revision != expected:
            missing = str(expected) if revision == expected + 1 else f"{expected} to {revision - 1}"
            self._break(Code.CHANGE_MISSING, revision, f"what comes before it is missing: {missing}")
        change = decoded(ExecutionChange, value)
        if change is None:
            self._break(Code.UNREADABLE, revision, "it is no change")
            return
        told = unfit(change, self._id, revision)
        if told is not None:
            self._break(Code.CHANGE_UNFIT, revision, told)
            return
        for code, fault in self._succession.faults(change):
            self.fail(Code(code), revision, fault)
        if self.whole:
            self._gather(change)

    def _break(self, code: Code, revision: int, told: str) -> None:
        self.fail(code, revision, told)
        self.whole = False
        self._piece.clear()

    def _gather(self, change: ExecutionChange) -> None:
        size = change.ByteSize()
        self._piece.append(change)
        self._piece_bytes += size
        self.size += size
        if change.HasField("created") or change.HasField("updated"):
            self.spec_revision = change.revision
        self.reported_items = self.reported_items or _reports_items(change)
        at_snapshot = self._snapshot is not None and change.revision == self._snapshot.revision
        if at_snapshot or len(self._piece) >= _PIECE_CHANGES or self._piece_bytes >= _PIECE_BYTES:
            self._fold_piece()
        if at_snapshot and self.whole:
            self._compare_snapshot()

    def _fold_piece(self) -> None:
        piece, self._piece, self._piece_bytes = self._piece, [], 0
        before = self.state.metadata.revision
        try:
            fold_all(self.state, piece, self._index)
        except ValueError as error:
            self._break(Code.CHANGE_UNFIT, self.state.metadata.revision + 1, f"it cannot be folded: {error}")
            return
        if before and self._index.stale_bytes > max(self.state.ByteSize(), _MIN_STALE_BYTES):
            # A message frees what was replaced in it only when it goes whole.
            renewed = AgentExecution()
            renewed.CopyFrom(self.state)
            self.state, self._index.stale_bytes = renewed, 0

    def _compare_snapshot(self) -> None:
        snapshot = self._snapshot
        if snapshot is not None:
            same = bits(snapshot.status) == bits(self.state.status)
            self.snapshot_fits = same and snapshot.log_bytes == self.size


def _reports_items(change: ExecutionChange) -> bool:
    status = change.status
    return bool(
        status.tool_calls or status.sub_agent_executions or any(message.tool_calls for message in status.messages)
    )
