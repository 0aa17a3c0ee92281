"""Workflow: steps in sequence, side by side, or by condition, each in a child context of its own.

    research = sequence(plan, parallel(search, ask_around), when(unsure, check), write)
    answer = await research(invocation.context, invocation.message)

A step is called with its context and a value, and what it returns is the value of the next one. What is made of steps
is a step too. A workflow fails and is cancelled as one: the first step to fail ends the others, and its error is raised
as it is.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Protocol

from runstream.runner.context.ambient import entered
from runstream.runner.context.deadline import within_deadline
from runstream.runner.context.limits import Limits
from runstream.runner.context.value import narrowed
from runstream.runner.endings import is_pause
from runstream.runner.errors import Paused
from runstream.runner.exits import exits_contained

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Unpack

    from runstream.runner.context.limits import GivenLimits
    from runstream.runner.context.value import ExecutionContext


class Step(Protocol):
    """Does one part of the work, in `context`, with `value`: what the step before has returned."""

    def __call__(self, context: ExecutionContext, value: Any, /) -> Awaitable[Any]:  # noqa: ANN401  # the steps' matter
        """Do it."""


def sequence(*steps: Step) -> Step:
    """Return the step that does these one after the other, and returns what the last one returns."""

    async def in_sequence(context: ExecutionContext, value: Any) -> Any:  # noqa: ANN401
        for step in steps:
            value = await _done(step, context, value)
        return value

    return in_sequence


def parallel(*steps: Step) -> Step:
    """Return the step that does these side by side, each with the same value, and returns the list of their results.

    When one fails, the others are cancelled, and waited for, before its error is raised.
    """

    async def in_parallel(context: ExecutionContext, value: Any) -> list[Any]:  # noqa: ANN401
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_done(step, context, value)) for step in steps]
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        return [task.result() for task in tasks]

    return in_parallel


def when(
    condition: Callable[[ExecutionContext, Any], bool | Awaitable[bool]], then: Step, otherwise: Step | None = None
) -> Step:
    """Return the step that does `then` if the condition holds, else `otherwise`, else returns the value as it is."""

    async def if_it_holds(context: ExecutionContext, value: Any) -> Any:  # noqa: ANN401
        holds = condition(context, value)
        if inspect.isawaitable(holds):
            holds = await holds
        step = then if holds else otherwise
        return value if step is None else await _done(step, context, value)

    return if_it_holds


def limited(step: Step, **limits: Unpack[GivenLimits]) -> Step:
    """Return the step with less than its context allows: time, budget, tools, thoroughness, as those of a child."""
    checked = Limits.of(**limits)

    async def within_limits(context: ExecutionContext, value: Any) -> Any:  # noqa: ANN401
        return await _done(step, context, value, checked)

    return within_limits


async def _done(step: Step, context: ExecutionContext, value: Any, limits: Limits | None = None) -> Any:  # noqa: ANN401
    """Do a step in a child context of its own. It is a part of the same agent's work, so depth stays."""
    child = narrowed(context, limits or Limits(), None, below=False)
    with entered(child):
        async with within_deadline(child, f"the step {_name(step)!r}"):
            with exits_contained(f"the step {_name(step)!r}"):
                return await _awaitable(step, step(child, value))


def _awaitable(step: Step, result: Any) -> Awaitable[Any]:  # noqa: ANN401  # what a step without types returns
    if not inspect.isawaitable(result):
        raise TypeError(f"the step {_name(step)!r} must be a coroutine function, but returned {result!r}")
    return result


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error that ended the group; a pause outweighs what it has interrupted."""
    if is_pause(errors):
        return Paused()
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _name(step: Step) -> str:
    return str(getattr(step, "__name__", type(step).__name__))
