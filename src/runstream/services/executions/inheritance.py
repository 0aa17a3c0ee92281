"""Inheritance: what a sub-execution takes over from its parent, and what its execution context never exceeds.

Pure functions. What the two may spend is in `budgets`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runstream.model.errors import FieldViolation, InvalidArgument
from runstream.model.tool_names import sanitised
from runstream.services.executions.budgets import budget_below, budget_within
from runstream.v1.agent_execution_pb2 import (
    THOROUGHNESS_MEDIUM,
    THOROUGHNESS_UNSPECIFIED,
    ExecutionContext,
)

if TYPE_CHECKING:
    from runstream.v1.agent_execution_pb2 import AgentExecution, Thoroughness

#: What is the same in a whole tree, once somebody has said it.
SHARED: Final = ("user_id", "correlation_id")


def context_below(own: ExecutionContext, parent: ExecutionContext) -> ExecutionContext:
    """Return the context of a sub-execution that asked for `own`, which differs in nothing that is shared."""
    below = _bounded(own, parent)
    for name in SHARED:
        setattr(below, name, getattr(own, name) or getattr(parent, name))
    if own.HasField("budget") or parent.HasField("budget"):
        below.budget.CopyFrom(budget_below(own.budget, parent.budget))
    return below


def check_shared(own: AgentExecution, parent: AgentExecution) -> None:
    """Let a sub-execution be of no other organization than its parent, and name no other user and no other correlation.

    INVALID_ARGUMENT, reason DIFFERS_FROM_PARENT, with every field that differs. An empty one is the parent's.
    """
    wrong = []
    if own.metadata.org not in {"", parent.metadata.org}:
        wrong.append(_differing("metadata.org", own.metadata.org, parent.metadata.org))
    for name in SHARED:
        asked, expected = getattr(own.spec.context, name), getattr(parent.spec.context, name)
        if asked and expected and asked != expected:  # what nobody above has said may be said
            wrong.append(_differing(f"spec.context.{name}", asked, expected))
    if wrong:
        message = "; ".join(f"{each.field}: {each.description}" for each in wrong)
        raise InvalidArgument("DIFFERS_FROM_PARENT", message, fields=wrong)


def context_within(own: ExecutionContext, before: ExecutionContext) -> ExecutionContext:
    """Return the context of a sub-execution that was `before` and shall be `own`: never above what it was."""
    within = _bounded(own, before)
    if before.HasField("budget"):
        within.budget.CopyFrom(budget_within(own.budget, before.budget))
    return within


def restrict_tools(context: ExecutionContext) -> None:
    """Say of a context that lists tools that it allows no others."""
    if context.allowed_tools:
        context.only_allowed_tools = True


def _bounded(own: ExecutionContext, limit: ExecutionContext) -> ExecutionContext:
    bounded = ExecutionContext()
    bounded.CopyFrom(own)
    bounded.language = own.language or limit.language
    bounded.thoroughness = _lesser(own.thoroughness, limit.thoroughness)
    if _is_limited(own) or _is_limited(limit):
        bounded.only_allowed_tools = True
        bounded.allowed_tools[:] = _common_tools(own, limit)
    return bounded


def _lesser(own: Thoroughness.ValueType, limit: Thoroughness.ValueType) -> Thoroughness.ValueType:
    """Return what is asked for, at most the limit; nothing asked for is the limit."""
    if own == THOROUGHNESS_UNSPECIFIED:
        return limit
    return min(own, limit or THOROUGHNESS_MEDIUM)


def _is_limited(context: ExecutionContext) -> bool:
    # A list from before there was the flag limits as well.
    return context.only_allowed_tools or bool(context.allowed_tools)


def _common_tools(own: ExecutionContext, limit: ExecutionContext) -> list[str]:
    """Return the tools that both allow, as whoever lists them wrote them; at least one of the two is limited."""
    if not _is_limited(own):
        return list(limit.allowed_tools)
    if not _is_limited(limit):
        return list(own.allowed_tools)
    allowed = {sanitised(name) for name in limit.allowed_tools}
    return [name for name in own.allowed_tools if sanitised(name) in allowed]


def _differing(field: str, asked: str, expected: str) -> FieldViolation:
    told = f"is {asked!r}, but the parent's is {expected!r}; leave it out to have the same"
    return FieldViolation(field, told, "DIFFERS_FROM_PARENT")
