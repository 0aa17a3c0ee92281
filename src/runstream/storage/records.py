"""The kinds of records the store keeps, each a protobuf message under an id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from google.protobuf.message import Message

from runstream.stored.v1 import stored_pb2
from runstream.v1 import agent_execution_pb2, agent_instance_pb2, agent_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True, eq=False)
class RecordKind(Generic[M]):
    """A kind of record: its name, its message, its revision (always 0 where it has none). There is one of each."""

    name: str
    message: type[M]
    revision_of: Callable[[M], int]
    #: What the ids begin with before the underscore, where they carry a time.
    id_prefix: str = ""


#: A kind of whatever message, where several stand together.
AnyKind: TypeAlias = RecordKind[Any]


def _no_revision(_: Message) -> int:
    return 0


AGENT = RecordKind("agent", agent_pb2.Agent, lambda m: m.metadata.revision, "agt")
AGENT_INSTANCE = RecordKind("agent_instance", agent_instance_pb2.AgentInstance, lambda m: m.metadata.revision, "ain")
SESSION = RecordKind("session", session_pb2.Session, lambda m: m.metadata.revision, "ses")
#: Metadata and spec of an execution, without secrets and status; rewritten by Update only.
AGENT_EXECUTION = RecordKind(
    "agent_execution", agent_execution_pb2.AgentExecution, lambda m: m.metadata.revision, "aex"
)
#: The changing half of an execution, under the execution's id; rewritten by every commit.
EXECUTION_HEAD = RecordKind("execution_head", stored_pb2.ExecutionHead, lambda m: m.revision, "aex")
#: The secret values of an execution, under its id; removed when it ends.
EXECUTION_SECRETS = RecordKind("execution_secrets", stored_pb2.ExecutionSecrets, _no_revision, "aex")
#: The newest stored fold of an execution, under its id.
STATUS_SNAPSHOT = RecordKind("status_snapshot", stored_pb2.StatusSnapshot, lambda m: m.revision, "aex")
#: What stands for a deleted execution until its log is purged, under its id.
TOMBSTONE = RecordKind("tombstone", stored_pb2.Tombstone, lambda m: m.revision, "aex")
#: What an idempotency key was first used for, under a digest of key, method and organization.
IDEMPOTENCY = RecordKind("idempotency", stored_pb2.IdempotencyRecord, _no_revision)

RECORD_KINDS: tuple[AnyKind, ...] = (
    AGENT,
    AGENT_INSTANCE,
    SESSION,
    AGENT_EXECUTION,
    EXECUTION_HEAD,
    EXECUTION_SECRETS,
    STATUS_SNAPSHOT,
    TOMBSTONE,
    IDEMPOTENCY,
)
