"""Staging: what every command that touches an execution stages. One change, one head, the index entries that differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runstream.pipeline.context import SYSTEM
from runstream.services.resource_types import status_terms
from runstream.storage.records import AGENT_EXECUTION, EXECUTION_HEAD, EXECUTION_SECRETS
from runstream.stored.v1.stored_pb2 import ExecutionHead
from runstream.v1.agent_execution_pb2 import (
    CHANGE_AUTHOR_SYSTEM,
    CHANGE_AUTHOR_USER,
    EXECUTION_FAILED,
    ExecutionChange,
)

if TYPE_CHECKING:
    from runstream.pipeline.context import Caller, RequestContext
    from runstream.services.executions.loading import Loaded
    from runstream.v1.agent_execution_pb2 import ChangeAuthor


def author_of(caller: Caller) -> ChangeAuthor.ValueType:
    """Return who makes a change that both users and the server itself can ask for."""
    return CHANGE_AUTHOR_SYSTEM if caller is SYSTEM else CHANGE_AUTHOR_USER


def new_change(context: RequestContext[Any, Any], loaded: Loaded, author: ChangeAuthor.ValueType) -> ExecutionChange:
    """Begin the next change of an execution; the caller sets what it did."""
    return ExecutionChange(
        execution_id=loaded.id,
        revision=loaded.head.revision + 1,
        change_time=context.timestamp,
        attempt=loaded.status.attempt,
        author=author,
    )


def next_head(loaded: Loaded) -> ExecutionHead:
    """Begin the head after the next change; the caller merges what the change did into its status."""
    head = ExecutionHead()
    head.CopyFrom(loaded.head)
    head.revision += 1
    return head


def stage_change(
    context: RequestContext[Any, Any], loaded: Loaded, change: ExecutionChange, head: ExecutionHead
) -> None:
    """Stage a change and the head after it, expecting that nobody commits to the execution meanwhile.

    The second change of one command follows the head that the first has staged.
    """
    transaction = context.transaction
    head.log_bytes += transaction.append(change)
    if (EXECUTION_HEAD, loaded.id) not in transaction.puts:
        transaction.expect(EXECUTION_HEAD, loaded.id, loaded.head.revision)
    transaction.put(EXECUTION_HEAD, loaded.id, head)
    before, after = loaded.status, head.status
    if loaded.phase != after.phase or before.HasField("control") or after.HasField("control"):
        transaction.index(AGENT_EXECUTION, loaded.id, before=status_terms(before), after=status_terms(after))
    # One that failed can be recovered, and will need them.
    if change.terminal and head.status.phase != EXECUTION_FAILED:
        transaction.delete(EXECUTION_SECRETS, loaded.id)
