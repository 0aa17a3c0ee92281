"""Given: what an assignment brings, taken apart: variables, what was spent before, and the rest of it."""

from __future__ import annotations

from contextlib import suppress

from runstream.runner.context.budget import Budget, Ledger
from runstream.runner.context.secrets import Secrets
from runstream.runner.desk import was_run
from runstream.runner.errors import BudgetExceeded
from runstream.runner.invocation import Environment
from runstream.v1.runner_pb2 import Assignment


def variables(assignment: Assignment) -> tuple[Secrets, Environment]:
    """Return the variables of a run."""
    given = assignment.execution.spec.runtime_env
    values = {name: variable.value for name, variable in given.items()}
    hidden = [name for name, variable in given.items() if variable.is_secret]
    return Secrets(values, hidden), Environment(values)


def without_values(assignment: Assignment) -> Assignment:
    """Return a copy whose secret variables have no value, as in every answer of the server."""
    copy = Assignment()
    copy.CopyFrom(assignment)
    for variable in copy.execution.spec.runtime_env.values():
        if variable.is_secret:
            variable.ClearField("value")
    return copy


def spent_before(assignment: Assignment) -> Ledger:
    """Return the ledger of an execution, with what earlier attempts have spent."""
    execution = assignment.execution
    ledger = Ledger(Budget.from_wire(execution.spec.context.budget))
    usage, calls = execution.status.usage, execution.status.tool_calls
    if not usage and not calls:
        return ledger
    spent = {
        "model_calls": len(usage),
        "tool_calls": sum(was_run(call) for call in calls),
        "tokens": sum(each.input_tokens + each.output_tokens for each in usage),
        "cost_micros": sum(each.cost_micros for each in usage),
    }
    with suppress(BudgetExceeded):  # it counts; whoever spends more is told
        ledger.charge(spent)
    return ledger
