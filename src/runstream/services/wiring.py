"""What the services are wired to: one value, made by the composition root."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import Message

from runstream.pipeline.engine import Pipeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runstream.feed.follow import Follower
    from runstream.feed.recency import Recency
    from runstream.model.clock import Clock
    from runstream.model.ids import IdSource
    from runstream.pipeline.context import Q, S
    from runstream.pipeline.engine import Step, StepObserver
    from runstream.services.executions.limits import ExecutionLimits
    from runstream.storage.executions import Executions
    from runstream.storage.folds import Folds
    from runstream.storage.store import Store

A = TypeVar("A", bound=Message)


@dataclass(frozen=True, slots=True)
class Wiring:
    """The store and what reads it, the feed, the clock, the id source, and who wants to know step times, if anybody."""

    store: Store
    folds: Folds
    executions: Executions
    recency: Recency
    follower: Follower
    ids: IdSource
    clock: Clock
    observe: StepObserver | None
    #: How long a runner has to comply with a cancel, in seconds.
    cancel_grace: float
    #: How many levels of sub-executions may stand below an execution of no parent.
    max_depth: int
    #: How long and how large an execution may become.
    limits: ExecutionLimits

    def pipeline(self, name: str, steps: Sequence[Step[Q, S, A]], answer: type[A]) -> Pipeline[Q, S, A]:
        """Make a command of steps; `answer` is the message it answers with."""
        _ = answer
        return Pipeline(name, steps, store=self.store, now=self.clock.now, observe=self.observe)
