"""Live executions: those that have not ended. What keeps books of them in memory begins with a scan of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runstream.model.phases import is_terminal
from runstream.services.resource_types import parent_term, phase_term
from runstream.storage.records import AGENT_EXECUTION, EXECUTION_HEAD
from runstream.storage.store import Query
from runstream.v1.agent_execution_pb2 import EXECUTION_PHASE_UNSPECIFIED, ExecutionPhase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runstream.storage.store import Store
    from runstream.stored.v1.stored_pb2 import ExecutionHead

_CHUNK: Final = 1_000
_LIVE_TERMS: Final = tuple(
    phase_term(phase)
    for phase in ExecutionPhase.values()
    if phase != EXECUTION_PHASE_UNSPECIFIED and not is_terminal(phase)
)
_LIVE: Final = Query(AGENT_EXECUTION, (_LIVE_TERMS,))


def live_children_of(parent_id: str) -> Query:
    """Make the query for the executions that a parent has asked for and that have not ended."""
    return Query(AGENT_EXECUTION, ((parent_term(parent_id),), _LIVE_TERMS))


async def live_executions(store: Store) -> AsyncIterator[tuple[str, ExecutionHead]]:
    """Yield the id and the durable head of every execution that has not ended, newest first."""
    after = None
    while ids := await store.scan(_LIVE, after=after, limit=_CHUNK):
        for execution_id in ids:
            head = await store.durable.get(EXECUTION_HEAD, execution_id)
            if head is not None and not is_terminal(head.status.phase):
                yield execution_id, head
        after = ids[-1]
