"""Executions: record, head, log, snapshot, secrets and tombstone, compared execution by execution."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from runstream.care.examination import bits, decoded, named
from runstream.care.findings import Code
from runstream.care.heads import check_lease, differing, expected_head
from runstream.care.lanes import Lane, ids, record_owner
from runstream.care.log import Log
from runstream.model.phases import is_terminal, phase_name
from runstream.services.resource_types import EXECUTIONS
from runstream.storage import keys
from runstream.storage.parsed_keys import change_owner
from runstream.storage.records import (
    AGENT_EXECUTION,
    EXECUTION_HEAD,
    EXECUTION_SECRETS,
    STATUS_SNAPSHOT,
    TOMBSTONE,
)
from runstream.v1.agent_execution_pb2 import EXECUTION_FAILED, AgentExecution

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runstream.care.entries import Entries
    from runstream.care.examination import Examination
    from runstream.care.references import References
    from runstream.storage.overlay import Write
    from runstream.storage.records import AnyKind
    from runstream.stored.v1.stored_pb2 import ExecutionHead, ExecutionSecrets, StatusSnapshot, Tombstone

_KINDS: Final[tuple[AnyKind, ...]] = (AGENT_EXECUTION, EXECUTION_HEAD, EXECUTION_SECRETS, STATUS_SNAPSHOT, TOMBSTONE)
_ALL_CHANGES: Final = b"c"
#: What must go with an execution, and how it is told when it has not.
_LEFT: Final[dict[AnyKind, Code]] = {
    STATUS_SNAPSHOT: Code.SNAPSHOT_DIFFERS,
    EXECUTION_SECRETS: Code.SECRETS_LEFT,
}


@dataclass(slots=True)
class Stored:
    """What is stored of one execution, apart from its log."""

    id: str
    record: AgentExecution | None = None
    head: ExecutionHead | None = None
    secrets: ExecutionSecrets | None = None
    snapshot: StatusSnapshot | None = None
    tombstone: Tombstone | None = None
    #: What is there, readable or not.
    there: set[AnyKind] = field(default_factory=set)

    def put(self, kind: AnyKind, message: Any) -> None:  # noqa: ANN401  # the message of the kind
        """Take in one of the records."""
        setattr(self, _FIELDS[kind.name], message)


_FIELDS: Final = {
    AGENT_EXECUTION.name: "record",
    EXECUTION_HEAD.name: "head",
    EXECUTION_SECRETS.name: "secrets",
    STATUS_SNAPSHOT.name: "snapshot",
    TOMBSTONE.name: "tombstone",
}


class ExecutionCheck:
    """Goes through all executions, deleted ones included; holds one at a time, and of its log the fold alone."""

    def __init__(self, examination: Examination, entries: Entries, references: References, total: int) -> None:
        self._examination = examination
        self._entries = entries
        self._references = references
        self._total = total

    def check(self) -> None:
        """Tell of everything in them that is not as it must be."""
        view = self._examination.view
        lanes = {kind: Lane(view, keys.records(kind), record_owner) for kind in _KINDS}
        changes = Lane(view, _ALL_CHANGES, change_owner)
        for execution_id in ids([*lanes.values(), changes]):
            stored = Stored(keys.decode_id(execution_id))
            for kind, lane in lanes.items():
                value = lane.take(execution_id)
                if value is not None:
                    self._load(stored, kind, value)
            log = changes.take_all(execution_id)
            self._check_one(stored, log)
            for _ in log:  # what nobody wanted to see
                pass

    def _load(self, stored: Stored, kind: AnyKind, value: bytes) -> None:
        stored.there.add(kind)
        message = decoded(kind.message, value)
        if message is not None:
            stored.put(kind, message)
            return
        # A snapshot is derived: without it the log is folded from its beginning.
        self._found(Code.UNREADABLE, stored, f"its {kind.name} cannot be read", _removed(stored, STATUS_SNAPSHOT, kind))

    def _check_one(self, stored: Stored, log: Iterator[tuple[bytes, bytes]]) -> None:
        if EXECUTION_HEAD in stored.there:
            self._examination.advance("executions", self._total)
            self._check_live(stored, log)
        elif AGENT_EXECUTION in stored.there:
            # It may be worth something to whoever can look: nothing of it is touched.
            self._found(Code.HEAD_MISSING, stored, "it has a record and no head")
            self._entries.leave(AGENT_EXECUTION, stored.id)
        else:
            self._check_gone(stored, log)

    def _check_gone(self, stored: Stored, log: Iterator[tuple[bytes, bytes]]) -> None:
        """Check what is left of an execution that is not there: a tombstone may be, and the end of the log."""
        for kind, code in _LEFT.items():
            if kind in stored.there:
                told = f"its {kind.name} is still there, the execution is not"
                self._found(code, stored, told, [(keys.record(kind, stored.id), None)])
        if TOMBSTONE not in stored.there:
            self._check_leftover(stored, log)
        elif stored.tombstone is not None:
            self._check_rest(stored, stored.tombstone, log)

    def _check_leftover(self, stored: Stored, log: Iterator[tuple[bytes, bytes]]) -> None:
        left = [key for key, _ in log]
        if left:
            told = f"{len(left)} changes are left of it, and nothing else"
            self._found(Code.CHANGES_LEFT, stored, told, [(key, None) for key in left])

    def _check_rest(self, stored: Stored, tombstone: Tombstone, log: Iterator[tuple[bytes, bytes]]) -> None:
        expected = None
        for key, _ in log:
            revision = keys.change_revision(key)
            if (expected is not None and revision != expected) or revision >= tombstone.revision:
                told = f"change {revision} does not lead up to its deletion at revision {tombstone.revision}"
                self._found(Code.REST_BROKEN, stored, told, [(key, None)])
            expected = revision + 1
        if expected is not None and expected < tombstone.revision:
            told = f"its log ends at {expected - 1}, and it was deleted at revision {tombstone.revision}"
            self._found(Code.REST_BROKEN, stored, told)

    def _check_live(self, stored: Stored, changes: Iterator[tuple[bytes, bytes]]) -> None:
        if TOMBSTONE in stored.there:
            self._found(Code.DELETED_AND_LIVE, stored, "it is there, and marked as deleted")
        log = Log(self._examination, stored.id, stored.snapshot)
        log.read(changes)
        if stored.head is None:
            self._entries.leave(AGENT_EXECUTION, stored.id)
            return
        self._check_reach(stored, stored.head, log)
        if log.snapshot_fits is False:
            told = "its snapshot is not the fold of its log"
            self._found(Code.SNAPSHOT_DIFFERS, stored, told, [(keys.record(STATUS_SNAPSHOT, stored.id), None)])
        mended = self._check_record(stored, log)
        mended = self._check_head(stored, stored.head, log) or mended
        if stored.record is not None:
            self._check_secrets(stored, stored.record, stored.head)
            self._references.check_execution(stored.id, stored.record)
        self._check_entries(stored, stored.head, log)
        if mended:
            # What the entries should be is told by the log, and not by what is stored now.
            self._entries.leave(AGENT_EXECUTION, stored.id)

    def _check_reach(self, stored: Stored, head: ExecutionHead, log: Log) -> None:
        """Check that the log is as long as the head says; any other says nothing."""
        if head.revision == log.revision:
            return
        if head.revision > log.revision:
            told = f"its head is at revision {head.revision}, its log ends at {log.revision}"
            self._found(Code.CHANGE_MISSING, stored, told)
        else:
            told = f"its log goes on to {log.revision}, its head is at revision {head.revision}"
            self._found(Code.CHANGE_BEYOND_HEAD, stored, told)
        log.whole = False

    def _check_record(self, stored: Stored, log: Log) -> bool:
        """Compare the record with the log; tell whether it is to be written anew."""
        if log.whole:
            expected = _record_of(log)
            mend: list[Write] = [(keys.record(AGENT_EXECUTION, stored.id), expected.SerializeToString())]
            if AGENT_EXECUTION not in stored.there:
                self._found(Code.RECORD_MISSING, stored, "it has a head and no record", mend)
                return True
            if stored.record is None:
                self._found(Code.RECORD_DIFFERS, stored, "its record is not what its log says", mend)
                return True
            if bits(_bare(stored.record)) != bits(expected):
                self._found(Code.RECORD_DIFFERS, stored, "its record is not what its log says", mend)
                return True
        elif AGENT_EXECUTION not in stored.there:
            self._found(Code.RECORD_MISSING, stored, "it has a head and no record")
        return False

    def _check_head(self, stored: Stored, head: ExecutionHead, log: Log) -> bool:
        """Compare the head with the log, and its lease with its phase; tell whether it is to be written anew."""
        expected = expected_head(head, log)
        names = differing(head, expected)
        mend: list[Write] = [(keys.record(EXECUTION_HEAD, stored.id), expected.SerializeToString())]
        if names - {"runner_id", "driven_outside"}:
            told = f"its head says otherwise than its log of {', '.join(sorted(names))}"
            self._found(Code.HEAD_DIFFERS, stored, told, mend)
        if names & {"runner_id", "driven_outside"}:
            told = f"it is {phase_name(expected.status.phase)}, and somebody has it"
            self._found(Code.LEASE_WITHOUT_WORK, stored, told, mend)
        for code, told in check_lease(expected):
            self._found(code, stored, told)
        return bool(names)

    def _check_secrets(self, stored: Stored, record: AgentExecution, head: ExecutionHead) -> None:
        phase = head.status.phase
        wanted = {name for name, variable in record.spec.runtime_env.items() if variable.is_secret}
        if is_terminal(phase) and phase != EXECUTION_FAILED:  # one that failed can be recovered, and will need them
            if EXECUTION_SECRETS in stored.there:
                told = f"it has ended as {phase_name(phase)} and still has its secrets"
                self._found(Code.SECRETS_LEFT, stored, told, [(keys.record(EXECUTION_SECRETS, stored.id), None)])
        elif set(stored.secrets.values if stored.secrets else ()) != wanted:
            self._found(Code.SECRETS_DIFFER, stored, "its secrets are not those that its record names")

    def _check_entries(self, stored: Stored, head: ExecutionHead, log: Log) -> None:
        if log.whole:
            self._entries.check(EXECUTIONS, stored.id, log.state)
        elif stored.record is not None:
            stored.record.status.CopyFrom(head.status)
            self._entries.check(EXECUTIONS, stored.id, stored.record)
        else:
            self._entries.leave(AGENT_EXECUTION, stored.id)

    def _found(self, code: Code, stored: Stored, told: str, mend: list[Write] | None = None) -> None:
        where = named(AGENT_EXECUTION, stored.id)
        self._examination.found(code, where, told, mend or ())


def _removed(stored: Stored, kind: AnyKind, found: AnyKind) -> list[Write]:
    """Return the removal of a record, if it is the one that was found."""
    return [(keys.record(kind, stored.id), None)] if kind is found else []


def _record_of(log: Log) -> AgentExecution:
    """Return the record that Create or the last Update has written, by the log."""
    record = _bare(log.state)
    record.metadata.revision = log.spec_revision
    return record


def _bare(execution: AgentExecution) -> AgentExecution:
    bare = AgentExecution()
    bare.CopyFrom(execution)
    bare.ClearField("status")
    return bare
