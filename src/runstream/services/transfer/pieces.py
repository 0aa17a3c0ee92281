"""Pieces: the changes that one request of an import brings, and how they stand to those that are there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from runstream.model.errors import AlreadyExists, InvalidArgument, invalid_field
from runstream.model.ids import ulid_millis
from runstream.model.succession import unfit
from runstream.model.times import to_millis
from runstream.pipeline.validation import violations_of
from runstream.v1.agent_execution_pb2 import CHANGE_AUTHOR_SYSTEM, ExecutionChange

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from runstream.storage.store import Reader
    from runstream.v1.transfer_pb2 import ImportExecutionRequest

#: The event in the audit of the change with which an import ends or queues what had not ended.
IMPORTED_EVENT: Final = "imported"
#: After how many changes others get their turn on the event loop.
TURN: Final = 32
#: How far another server's clock may be ahead.
_TOLERANCE_MS: Final = 5 * 60 * 1000


async def read_piece(request: ImportExecutionRequest) -> list[ExecutionChange]:
    """Decode the changes of a request and check each by itself. INVALID_ARGUMENT, reason LOG_INVALID."""
    changes = []
    for revision, data in enumerate(request.changes, start=request.after_revision + 1):
        changes.append(_read(data, request.execution_id, revision))
        if len(changes) % TURN == 0:
            await asyncio.sleep(0)
    return changes


def _read(data: bytes, execution_id: str, revision: int) -> ExecutionChange:
    try:
        change = ExecutionChange.FromString(data)
    except DecodeError:
        raise log_invalid(execution_id, revision, "it is no change in protobuf encoding") from None
    change.DiscardUnknownFields()  # as of what comes in by any command
    told = unfit(change, execution_id, revision) or _told_of_values(change)
    if told is not None:
        raise log_invalid(execution_id, revision, told)
    return change


def _told_of_values(change: ExecutionChange) -> str | None:
    if change.WhichOneof("kind") not in ("created", "status", "updated", "control"):
        return "a log holds creations, status deltas, updates and controls alone"
    for violation in violations_of(change):
        return f"{violation.field}: {violation.description}"
    variables = (change.created if change.HasField("created") else change.updated).spec.runtime_env
    if any(variable.is_secret and variable.value for variable in variables.values()):
        return "it holds the value of a secret, which no log does"
    return None


async def check_same(reader: Reader, execution_id: str, changes: Sequence[ExecutionChange]) -> None:
    """Compare changes with those of the execution that is there. ALREADY_EXISTS, reason EXECUTION_DIFFERS."""
    for number, change in enumerate(changes, start=1):
        if await reader.change(execution_id, change.revision) != change:
            raise differs(execution_id, f"its change {change.revision} is another one, or is not there")
        if number % TURN == 0:
            await asyncio.sleep(0)


async def check_length(reader: Reader, execution_id: str, last: int, head_revision: int) -> None:
    """Let the log that is there end with a revision, or with what its import has added. ALREADY_EXISTS."""
    if head_revision == last:
        return
    added = await reader.change(execution_id, last + 1)
    by_import = added is not None and added.author == CHANGE_AUTHOR_SYSTEM
    if added is None or not by_import or added.status.audit.status_audit.event != IMPORTED_EVENT:
        raise differs(execution_id, f"it has gone on to revision {head_revision}, and what is imported ends at {last}")


def check_id(field: str, resource_id: str, now: datetime) -> None:
    """Refuse the id of a time to come: all ids that are made here would have to follow it."""
    ahead = ulid_millis(resource_id) - to_millis(now)
    if ahead > _TOLERANCE_MS:
        raise invalid_field(
            field,
            "ID_FROM_FUTURE",
            f"is {resource_id}, of a time {ahead // 1000} s ahead of this server's clock; set the clock right first",
        )


def log_invalid(execution_id: str, revision: int, told: str) -> InvalidArgument:
    """Make the error for a log that no server has written."""
    return InvalidArgument(
        "LOG_INVALID",
        f"Change {revision} of execution {execution_id} cannot be imported: {told}.",
        metadata={"id": execution_id, "revision": str(revision)},
    )


def differs(execution_id: str, told: str) -> AlreadyExists:
    """Make the error for an execution that is there and is not what is imported."""
    return AlreadyExists(
        "EXECUTION_DIFFERS",
        f"Execution {execution_id} is there already and is not the same: {told}."
        " Delete it first, or leave it out of the import.",
        metadata={"id": execution_id},
    )
