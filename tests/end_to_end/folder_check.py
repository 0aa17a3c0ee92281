"""Reads the data folder of a server that is gone, and demands a reason for every key in it.

Everything that must be there is worked out from the records: the changes 1..n of each head, the index entries of each
record, the names, the expiries. The keys found must be these and no others. So nothing half-written, nothing forgotten
and nothing left behind goes unseen, whichever commands the server was in the middle of.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import plyvel

from runstream.model.merge import EntryIndex, fold_all
from runstream.model.phases import is_terminal
from runstream.model.times import to_millis
from runstream.model.views import basic_status
from runstream.services.resource_types import AGENTS, EXECUTIONS, INSTANCES, SESSIONS
from runstream.storage import keys
from runstream.storage.records import (
    AGENT,
    AGENT_EXECUTION,
    AGENT_INSTANCE,
    EXECUTION_HEAD,
    EXECUTION_SECRETS,
    IDEMPOTENCY,
    RECORD_KINDS,
    SESSION,
    STATUS_SNAPSHOT,
    TOMBSTONE,
)
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_FAILED,
    AgentExecution,
    AgentExecutionStatus,
    ExecutionChange,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from google.protobuf.message import Message

    from runstream.pipeline.resources import ResourceType
    from runstream.storage.records import AnyKind, M, RecordKind
    from runstream.v1.agent_instance_pb2 import AgentInstance
    from runstream.v1.agent_pb2 import Agent
    from runstream.v1.session_pb2 import Session

_NO_VALUE = b""


@dataclass(slots=True)
class Contents:
    """What a data folder holds, found consistent."""

    agents: dict[str, Agent] = field(default_factory=dict)
    instances: dict[str, AgentInstance] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    #: The executions that are not deleted: the fold of the log of each, and the log.
    executions: dict[str, AgentExecution] = field(default_factory=dict)
    logs: dict[str, list[ExecutionChange]] = field(default_factory=dict)
    #: How many changes the log of each deleted execution still has; it is gone with its tombstone.
    purging: dict[str, int] = field(default_factory=dict)


def bits(message: Message) -> bytes:
    """Return a message as bytes that are the same for the same message."""
    return message.SerializeToString(deterministic=True)


def fold_of(changes: list[ExecutionChange]) -> AgentExecution:
    """Fold a whole log."""
    execution = AgentExecution()
    fold_all(execution, changes, EntryIndex())
    return execution


def check_folder(folder: Path) -> Contents:
    """Read a data folder that no server holds; AssertionError for whatever is not as it must be."""
    return _Folder(dict(_pairs(folder))).check()


def _pairs(folder: Path) -> Iterator[tuple[bytes, bytes]]:
    database = plyvel.DB(str(folder / "leveldb"), create_if_missing=False)
    try:
        with database.iterator() as pairs:
            yield from pairs
    finally:
        database.close()


class _Folder:
    """The pairs of a database, taken away one by one as they are explained."""

    def __init__(self, pairs: dict[bytes, bytes]) -> None:
        self._pairs = pairs
        self._records = {kind.name: self._all(kind) for kind in RECORD_KINDS}
        self._contents = Contents(
            agents=self._of(AGENT), instances=self._of(AGENT_INSTANCE), sessions=self._of(SESSION)
        )

    def check(self) -> Contents:
        self._check_executions()
        self._check_deleted()
        self._check_resources(AGENTS)
        self._check_resources(INSTANCES)
        self._check_resources(SESSIONS)
        self._check_references()
        for record_id, record in self._of(IDEMPOTENCY).items():
            self._take(keys.expiry(to_millis(record.expire_time), record_id), _NO_VALUE)
        assert not self._pairs, f"left behind: {list(self._pairs)[:20]}"
        return self._contents

    def _of(self, kind: RecordKind[M]) -> dict[str, M]:
        return self._records[kind.name]

    def _all(self, kind: AnyKind) -> dict[str, Any]:
        """Take all records of a kind."""
        prefix = keys.records(kind)
        found = [key for key in self._pairs if key.startswith(prefix)]
        return {keys.decode_id(key[len(prefix) :]): kind.message.FromString(self._pairs.pop(key)) for key in found}

    def _take(self, key: bytes, value: bytes) -> None:
        found = self._pairs.pop(key, None)
        assert found == value, f"{key!r} has {found!r}, not {value!r}"

    def _check_executions(self) -> None:
        heads, records = self._of(EXECUTION_HEAD), self._of(AGENT_EXECUTION)
        assert heads.keys() == records.keys()
        assert self._of(STATUS_SNAPSHOT).keys() <= heads.keys()
        for execution_id, head in heads.items():
            log = [self._take_change(execution_id, revision) for revision in range(1, head.revision + 1)]
            state = fold_of(log)
            whole = AgentExecution()
            whole.CopyFrom(records[execution_id])
            whole.metadata.revision = head.revision
            whole.status.CopyFrom(state.status)
            assert bits(whole) == bits(state), execution_id
            assert bits(head.status) == bits(basic_status(state.status)), execution_id
            assert head.log_bytes == sum(change.ByteSize() for change in log), execution_id
            if execution_id in self._of(EXECUTION_SECRETS):
                # One that failed keeps them, since it can be recovered.
                assert not is_terminal(head.status.phase) or head.status.phase == EXECUTION_FAILED, execution_id
            self._check_snapshot(execution_id, log)
            self._take_terms(EXECUTIONS, execution_id, state)
            self._contents.executions[execution_id], self._contents.logs[execution_id] = state, log
        assert self._of(EXECUTION_SECRETS).keys() <= heads.keys()

    def _check_snapshot(self, execution_id: str, log: list[ExecutionChange]) -> None:
        snapshot = self._of(STATUS_SNAPSHOT).get(execution_id)
        if snapshot is not None:
            assert 1 <= snapshot.revision <= len(log), execution_id
            status: AgentExecutionStatus = fold_of(log[: snapshot.revision]).status
            assert bits(snapshot.status) == bits(status), execution_id

    def _check_deleted(self) -> None:
        """A tombstone stands for the end of a log, of which the beginning may be gone."""
        for execution_id, tombstone in self._of(TOMBSTONE).items():
            assert execution_id not in self._of(EXECUTION_HEAD)
            revision = tombstone.revision
            while keys.change(execution_id, revision - 1) in self._pairs:
                revision -= 1
                self._take_change(execution_id, revision)
            self._contents.purging[execution_id] = tombstone.revision - revision

    def _take_change(self, execution_id: str, revision: int) -> ExecutionChange:
        value = self._pairs.pop(keys.change(execution_id, revision), None)
        assert value is not None, f"{execution_id} has no change {revision}"
        change = ExecutionChange.FromString(value)
        assert (change.execution_id, change.revision) == (execution_id, revision)
        return change

    def _check_resources(self, resource: ResourceType[M]) -> None:
        for record_id, record in self._of(resource.record).items():
            self._take_terms(resource, record_id, record)
            if resource.unique_slug:
                metadata = record.metadata  # type: ignore[attr-defined]  # every resource has it
                name = keys.name(resource.unique(metadata.org, metadata.slug))
                self._take(name, keys.encode_id(record_id))

    def _take_terms(self, resource: ResourceType[M], record_id: str, record: M) -> None:
        for term in resource.terms(record):
            self._take(keys.entry(resource.record, record_id, term), _NO_VALUE)

    def _check_references(self) -> None:
        """Nothing points to nothing."""
        contents = self._contents
        for execution in contents.executions.values():
            spec = execution.spec
            assert spec.agent_id in contents.agents
            if not spec.context.stateless:
                assert contents.sessions[spec.session_id].status.agent_id == spec.agent_id
        for session in contents.sessions.values():
            instance = contents.instances[session.spec.agent_instance_id]
            assert instance.spec.agent_id == session.status.agent_id
        for instance in contents.instances.values():
            assert instance.spec.agent_id in contents.agents
        for agent in contents.agents.values():
            default = agent.status.default_instance_id
            if default:
                assert contents.instances[default].spec.agent_id == agent.metadata.id
