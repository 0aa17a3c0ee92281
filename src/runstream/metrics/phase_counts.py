"""Phase counts: how many executions stand in each phase that is not an end, and how many came into each.

Counted once at the start, by the index; from then on every commit tells what it moved. So to know it costs the same
however many executions there are, and a commit that moves no phase costs a look at an empty set.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from runstream.model.phases import is_terminal, phase_name
from runstream.services.resource_types import phase_term
from runstream.storage.records import AGENT_EXECUTION
from runstream.v1.agent_execution_pb2 import EXECUTION_PHASE_UNSPECIFIED, ExecutionPhase

if TYPE_CHECKING:
    from runstream.storage.store import Store, Transaction

PHASES: Final = tuple(phase for phase in ExecutionPhase.values() if phase != EXECUTION_PHASE_UNSPECIFIED)
LIVE: Final = tuple(phase for phase in PHASES if not is_terminal(phase))
_NO_LIMIT: Final = 1 << 62


class PhaseCounts:
    """Listens to commits."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._by_term = {phase_term(phase): phase for phase in PHASES}
        self._live = dict.fromkeys(PHASES, 0)
        self._entered = dict.fromkeys(PHASES, 0)

    @property
    def live(self) -> dict[str, int]:
        """How many executions are in each phase that is not an end, by its name."""
        return {phase_name(phase): self._live[phase] for phase in LIVE}

    @property
    def entered(self) -> dict[str, int]:
        """How many executions have come into each phase since the process began."""
        return {phase_name(phase): number for phase, number in self._entered.items()}

    def on_commit(self, transaction: Transaction) -> None:
        """Count what a commit has moved."""
        for kind, _, term in transaction.added_terms:
            phase = self._by_term.get(term) if kind is AGENT_EXECUTION else None
            if phase is not None:
                self._live[phase] += 1
                self._entered[phase] += 1
        for kind, _, term in transaction.removed_terms:
            phase = self._by_term.get(term) if kind is AGENT_EXECUTION else None
            if phase is not None:
                self._live[phase] -= 1

    def begin(self) -> list[asyncio.Task[None]]:
        """Begin to add what is on disk already; before anything is committed, with the listener in its place.

        Each count is one of the moment when its task has had a first turn; then it goes on while commits come in.
        """
        return [asyncio.create_task(self._count(phase), name="PhaseCounts") for phase in LIVE]

    async def _count(self, phase: ExecutionPhase.ValueType) -> None:
        self._live[phase] += await self._store.count(AGENT_EXECUTION, phase_term(phase), limit=_NO_LIMIT)
