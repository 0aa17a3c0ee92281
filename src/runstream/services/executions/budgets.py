"""Budgets: what a sub-execution may spend, given what the one that asked for it may. Pure functions."""

from __future__ import annotations

from runstream.v1.agent_execution_pb2 import ExecutionBudget


def budget_below(own: ExecutionBudget, parent: ExecutionBudget) -> ExecutionBudget:
    """Return what a sub-execution may spend that asked for `own`: in no field more than its parent, in depth less.

    A parent with a `depth` of 0 may have none; that is for the caller to refuse.
    """
    limit = ExecutionBudget()
    limit.CopyFrom(parent)
    if limit.HasField("depth"):
        limit.depth -= 1
    return budget_within(own, limit)


def budget_within(own: ExecutionBudget, limit: ExecutionBudget) -> ExecutionBudget:
    """Return `own`, in no field more than `limit`. What is unset is unlimited."""
    within = ExecutionBudget()
    within.CopyFrom(own)
    asked = {field.name: value for field, value in own.ListFields()}
    for field, most in limit.ListFields():
        setattr(within, field.name, min(most, asked.get(field.name, most)))
    return within
