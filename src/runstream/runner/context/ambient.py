"""Ambient: the context of the work at hand, for code that cannot take it as a parameter."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from runstream.runner.errors import NoContext

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runstream.runner.context.value import ExecutionContext

_CURRENT: ContextVar[ExecutionContext | None] = ContextVar("runstream execution context", default=None)


def current_context() -> ExecutionContext:
    """Return the context of the agent or tool that runs here: in its tasks, and in the threads the SDK starts for it.

    NoContext elsewhere: in a thread that somebody else has started, say, or outside of any agent; and where a task goes
    on that was begun by a run which is over.
    """
    context = _CURRENT.get()
    if context is None or context.is_over:
        raise NoContext
    return context


@contextmanager
def entered(context: ExecutionContext) -> Iterator[ExecutionContext]:
    """Make `context` the current one for the length of the block."""
    token = _CURRENT.set(context)
    try:
        yield context
    finally:
        _CURRENT.reset(token)
