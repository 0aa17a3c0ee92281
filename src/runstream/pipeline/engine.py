"""The engine: runs the steps of a command in order, and begins anew when somebody else was quicker.

A step is a callable that takes the context. It answers the command by returning a message; until one does, the next
step runs. A step with options is a small class with `__call__`. The engine knows nothing of what the steps do. It times
them when somebody wants to know.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

from google.protobuf.message import Message

from runstream.pipeline.context import Q, RequestContext, S
from runstream.storage.store import Conflict, Transaction

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from runstream.pipeline.context import Caller
    from runstream.storage.store import Store

A = TypeVar("A", bound=Message)

#: One step: works on the context; returns the command's answer when it has one, else None.
Step: TypeAlias = Callable[[RequestContext[Q, S]], Awaitable[A | None]]

#: How often a command is tried before the conflict goes to the caller.
MAX_TRIES = 10


class StepObserver(Protocol):
    """Wants to know how long the steps take."""

    def __call__(self, pipeline: str, step: str) -> Callable[[float], None]:
        """Return what is told of every run of this step how many seconds it took."""
        ...


def step_name(step: object) -> str:
    """The name of a step in logs and metrics: its function's or its class's."""
    return getattr(step, "__name__", type(step).__name__)


class Pipeline(Generic[Q, S, A]):
    """A command: a name and its steps. The last step must answer."""

    def __init__(
        self,
        name: str,
        steps: Sequence[Step[Q, S, A]],
        *,
        store: Store,
        now: Callable[[], datetime],
        observe: StepObserver | None = None,
    ) -> None:
        """Take the steps; they are timed only if somebody observes: it costs more than many a step."""
        self.name = name
        self.steps = tuple(steps)
        self._store = store
        self._now = now
        self._timed = None if observe is None else [(step, observe(name, step_name(step))) for step in self.steps]

    async def run(self, request: Q, caller: Caller) -> A:
        """Run all steps on a fresh context, again after a storage conflict, and return the answer.

        Raises whatever a step raises; `Conflict` only after the last try.
        """
        for _ in range(MAX_TRIES - 1):
            try:
                return await self._try(request, caller)
            except Conflict:
                continue
        return await self._try(request, caller)

    async def _try(self, request: Q, caller: Caller) -> A:
        context: RequestContext[Q, S] = RequestContext(
            request, caller, self._now(), self._store, Transaction(epoch=self._store.epoch)
        )
        if self._timed is not None:
            return await self._run_timed(self._timed, context)
        for step in self.steps:
            answer = await step(context)
            if answer is not None:
                return answer
        raise LookupError(f"no step of {self.name} answered")

    async def _run_timed(
        self, timed: Sequence[tuple[Step[Q, S, A], Callable[[float], None]]], context: RequestContext[Q, S]
    ) -> A:
        begun = time.perf_counter()
        for step, note in timed:
            try:
                answer = await step(context)
            finally:
                ended = time.perf_counter()
                note(ended - begun)
                begun = ended  # one look at the clock for each step
            if answer is not None:
                return answer
        raise LookupError(f"no step of {self.name} answered")


async def run_inner(steps: Sequence[Step[Q, S, Message]], context: RequestContext[Q, S]) -> RequestContext[Q, S]:
    """Run steps of one command inside another, on its inner context; what they answer is dropped."""
    for step in steps:
        await step(context)
    return context
