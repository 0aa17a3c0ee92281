"""Count: what executions below this one have spent, counted as spent by this one too, once."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from runstream.runner.errors import BudgetExceeded
from runstream.runner.refusals import Refusal

if TYPE_CHECKING:
    from runstream.runner.context.budget import Ledger
    from runstream.runner.desk import Desk
    from runstream.runner.executions import Executions
    from runstream.v1.agent_execution_pb2 import AgentExecution, AgentExecutionStatus

#: How deep executions may stand below each other; servers allow less.
_DEEPEST: Final = 32


class Count:
    """Counts in a ledger. What was seen of an execution is counted once in a run."""

    def __init__(self, desk: Desk, executions: Executions, ledger: Ledger) -> None:
        """Count for the run of `desk`; sub-executions of sub-executions are looked up."""
        self._desk = desk
        self._executions = executions
        self._ledger = ledger

    def take(self, execution_id: str, status: AgentExecutionStatus) -> None:
        """Count what a state, or a delta, of an execution tells. BudgetExceeded when it was too much."""
        for usage in status.usage:
            self._ledger.charge(self._desk.spent_more(usage, within=execution_id))
        self._ledger.charge({"tool_calls": self._desk.ran_more(status.tool_calls, within=execution_id)})

    async def take_below(self, execution: AgentExecution, deepest: int = _DEEPEST) -> None:
        """Count what the sub-executions of an execution have spent, and theirs. BudgetExceeded as above."""
        for entry in execution.status.sub_agent_executions:
            if not entry.execution_id or deepest <= 0:
                continue
            with suppress(Refusal):  # deleted meanwhile: nobody knows any more
                below = await self._executions.get(entry.execution_id)
                self.take(below.metadata.id, below.status)
                await self.take_below(below, deepest - 1)

    async def take_earlier(self, execution: AgentExecution) -> None:
        """Count what earlier attempts of this execution had others spend; too much is found out by what comes next."""
        with suppress(BudgetExceeded):
            await self.take_below(execution)
