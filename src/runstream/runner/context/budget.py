"""Budget: what an execution may spend, and the ledger of what it has."""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from runstream.runner.errors import BudgetExceeded
from runstream.v1.agent_execution_pb2 import ExecutionBudget

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The most that may be spent, by an execution with all that works for it. None is without a limit.

    `cost_micros` is in millionths of the currency that the runner counts in. `depth` is how many levels of agents may
    stand below: sub-agents, and executions of their own.
    """

    model_calls: int | None = None
    tool_calls: int | None = None
    tokens: int | None = None
    cost_micros: int | None = None
    depth: int | None = None

    def within(self, other: Budget) -> Budget:
        """Return the budget that is, in each field, the smaller of the two."""
        return Budget(**{name: _least(getattr(self, name), getattr(other, name)) for name in _NAMES})

    def below(self) -> Budget:
        """Return the budget of an agent that works for one with this. BudgetExceeded when it may have none."""
        if self.depth is None:
            return self
        if self.depth <= 0:
            raise BudgetExceeded("depth", 0)
        return Budget(**{**self.limits(), "depth": self.depth - 1})

    def limits(self) -> dict[str, int]:
        """Return the limits that are set, by name."""
        return {name: limit for name in _NAMES if (limit := getattr(self, name)) is not None}

    def to_wire(self) -> ExecutionBudget:
        """Return the budget as the API writes it."""
        return ExecutionBudget(**self.limits())

    @staticmethod
    def from_wire(written: ExecutionBudget) -> Budget:
        """Read a budget of the API; a field that is unset is without a limit."""
        return Budget(**{field.name: value for field, value in written.ListFields()})


_NAMES = tuple(field.name for field in fields(Budget))
#: What is spent, rather than kept to.
_SPENT = tuple(name for name in _NAMES if name != "depth")


class Ledger:
    """What was spent of a budget. What a child spends is spent by everybody above it too, so no branch hides it.

    Nothing that was spent is ever taken back.
    """

    def __init__(self, budget: Budget, above: Ledger | None = None) -> None:
        """Count against `budget`, and against all that `above` counts against."""
        self._account: _Account = _Account(budget, None if above is None else above._account)  # noqa: SLF001  # of a ledger

    def reserve(self, name: str, amount: int = 1) -> None:
        """Spend before it is done; nothing is spent when it would be too much: BudgetExceeded."""
        _check_amount(amount)
        with self._account.lock:
            for account in self._account.chain():
                limit = getattr(account.budget, name)
                if limit is not None and account.spent[name] + amount > limit:
                    raise BudgetExceeded(name, limit)
            self._add(name, amount)

    def charge(self, spent: Mapping[str, int]) -> None:
        """Note what was spent already. BudgetExceeded, when it was too much; it counts nevertheless."""
        for amount in spent.values():
            _check_amount(amount)
        with self._account.lock:
            for name, amount in spent.items():
                self._add(name, amount)
            for account in self._account.chain():
                for name in spent:
                    limit = getattr(account.budget, name)
                    if limit is not None and account.spent[name] > limit:
                        raise BudgetExceeded(name, limit)

    def spent(self) -> dict[str, int]:
        """Return what was spent, by name."""
        with self._account.lock:
            return dict(self._account.spent)

    def left(self) -> Budget:
        """Return what may still be spent, of this budget and of those above: not below 0."""
        left: dict[str, int] = {}
        with self._account.lock:
            for account in self._account.chain():
                for name, limit in account.budget.limits().items():
                    remains = max(0, limit - account.spent.get(name, 0))
                    left[name] = min(remains, left.get(name, remains))
        return Budget(**{**left, "depth": self._account.budget.depth})

    def _add(self, name: str, amount: int) -> None:
        for account in self._account.chain():
            account.spent[name] += amount


class _Account:
    """One budget, and what was spent of it."""

    def __init__(self, budget: Budget, above: _Account | None) -> None:
        self.budget = budget
        self.above = above
        self.spent: dict[str, int] = dict.fromkeys(_SPENT, 0)
        self.lock: threading.Lock = threading.Lock() if above is None else above.lock

    def chain(self) -> Iterator[_Account]:
        """Yield this one and all above it."""
        account: _Account | None = self
        while account is not None:
            yield account
            account = account.above


def _check_amount(amount: int) -> None:
    if amount < 0:
        raise ValueError(f"what was spent is not taken back: {amount}")


def _least(one: int | None, other: int | None) -> int | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)
