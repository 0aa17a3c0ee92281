"""Work: what a context acts with. It is no part of the context's value, and ends with the run it belongs to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from runstream.runner.context.budget import Ledger
from runstream.runner.reporter import bind, part_of

if TYPE_CHECKING:
    from runstream.runner.agents import Agent, AgentFunction
    from runstream.runner.bridge import Bridge
    from runstream.runner.context.budget import Budget
    from runstream.runner.context.limits import Limits, Order
    from runstream.runner.context.secrets import Secrets
    from runstream.runner.context.value import ExecutionContext
    from runstream.runner.delegation import Delegated
    from runstream.runner.reporter import Reporter


class Crew(Protocol):
    """Lets other agents work for this one."""

    async def delegate(self, context: ExecutionContext, agent: str, message: str, order: Order) -> Delegated:
        """Have an agent execute `message` as an execution of its own; return what it has come to."""

    async def sub_agent(  # noqa: PLR0913  # each is an option
        self,
        context: ExecutionContext,
        agent: AgentFunction | Agent,
        message: str,
        limits: Limits,
        *,
        name: str,
        call_id: str,
    ) -> str:
        """Have an agent do `message` in this process; return its answer."""


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """The reporter, the secrets, the ledger and the crew of one run, or of a part of it."""

    report: Reporter
    secrets: Secrets
    ledger: Ledger
    crew: Crew
    bridge: Bridge

    def over(self, bridge: Bridge) -> Work:
        """Return the same work, whose threads wait over `bridge`."""
        return replace(self, bridge=bridge)

    def bind(self, context: ExecutionContext) -> None:
        """Hold what is reported to what a context allows."""
        bind(self.report, context)

    def under(self, budget: Budget, call_id: str | None, report: Reporter | None) -> Work:
        """Return the work of a child: its own ledger below this one, and its own reporter, of its owner if it has one.

        What it reports stands under tool call `call_id`, if there is one.
        """
        ledger = Ledger(budget, self.ledger)
        return Work(part_of(report or self.report, ledger, call_id), self.secrets, ledger, self.crew, self.bridge)
