"""Runners: who is attached, what each holds, and until when it counts as alive.

A lease is the runner's, one for everything it holds. It is in memory and in monotonic time: heartbeats renew it, an
open stream does not. What a runner holds is on disk, in the heads of the executions; here is a view of it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runstream.dispatch.agent_rules import AgentRules
    from runstream.model.clock import Clock
    from runstream.model.errors import RunstreamError


@dataclass(slots=True)
class Holding:
    """One execution that a runner holds."""

    attempt: int
    #: When it was assigned, or named by the runner the last time; monotonic.
    seen: float
    #: Whether the runner has ever named it: it has got the assignment.
    named: bool = False
    #: Whether it waits for a person: its phase says so.
    for_person: bool = False
    #: Whether it only waits for its sub-executions: its runner says so.
    for_children: bool = False

    @property
    def waits(self) -> bool:
        """Whether it takes no place."""
        return self.for_person or self.for_children


@dataclass(eq=False, slots=True)
class RunnerStream:
    """One open Attach: how many places it offers, for which agents, and what it has to look at."""

    capacity: int
    #: Ids, or slugs within `org`; none means any agent of any organization.
    agents: frozenset[str]
    org: str = ""
    #: Goes up when there is something to look at.
    flag: asyncio.Event = field(default_factory=asyncio.Event)
    #: Executions assigned and not sent yet, in order.
    assigned: dict[str, int] = field(default_factory=dict)
    #: Executions whose heads have changed, in order; the value is the attempt that the runner has.
    changed: dict[str, int] = field(default_factory=dict)
    #: Set when the stream must end.
    ended: RunstreamError | None = None

    def end(self, error: RunstreamError) -> None:
        """Have the stream end with an error."""
        self.ended = self.ended or error
        self.flag.set()


@dataclass(eq=False, slots=True)
class Runner:
    """One runner: what it holds, its stream if it has one, and when its lease ends."""

    id: str
    expires: float
    stream: RunnerStream | None = None
    held: dict[str, Holding] = field(default_factory=dict)
    #: How many of what it holds wait, for a person or for their sub-executions. `hold`, `let_go` and `mark` keep it.
    waiting: int = 0
    #: Places given away in commits that are under way.
    reserved: int = 0
    #: Whether the lease has ended and what it held is being taken back.
    expired: bool = False

    @property
    def places(self) -> int:
        """How many more executions it can get."""
        if self.stream is None or self.stream.ended is not None or self.expired:
            return 0
        return self.stream.capacity - (len(self.held) - self.waiting) - self.reserved

    def hold(self, execution_id: str, holding: Holding) -> None:
        """Hold an execution, in place of any earlier attempt of it."""
        self.let_go(execution_id)
        self.held[execution_id] = holding
        self.waiting += holding.waits

    def let_go(self, execution_id: str) -> Holding | None:
        """Hold an execution no more; return what was held."""
        holding = self.held.pop(execution_id, None)
        self.waiting -= holding is not None and holding.waits
        return holding

    def mark(self, holding: Holding, *, for_person: bool | None = None, for_children: bool | None = None) -> None:
        """Note what something that it holds waits for; None is as before."""
        before = holding.waits
        if for_person is not None:
            holding.for_person = for_person
        if for_children is not None:
            holding.for_children = for_children
        self.waiting += holding.waits - before


class Offers:
    """Which runners have places for which agents, at one moment."""

    def __init__(self, free: Iterable[Runner]) -> None:
        """Take the runners that have places."""
        self._for_any: list[Runner] = []
        #: By the id of an agent, or by its organization and slug.
        self._by_agent: dict[str | tuple[str, str], list[Runner]] = {}
        for runner in free:
            stream = runner.stream
            if stream is not None and stream.agents:
                for agent in stream.agents:
                    self._by_agent.setdefault(agent, []).append(runner)
                    self._by_agent.setdefault((stream.org, agent), []).append(runner)
            else:
                self._for_any.append(runner)
        self._best_for_any = max(self._for_any, key=_places, default=None)

    def best_for(self, agent: AgentRules) -> Runner | None:
        """Return the runner with the most places for an agent, or None."""
        by_id, by_slug = self._by_agent.get(agent.id, ()), self._by_agent.get((agent.org, agent.slug), ())
        best: Runner | None = max((*by_id, *by_slug), key=_places, default=None)
        others = self._best_for_any
        if best is None or others is None:
            return others if best is None else best
        return max((best, others), key=_places)


def _places(runner: Runner) -> int:
    return runner.places


class Runners:
    """All runners that are attached, alive, or hold anything."""

    def __init__(self, clock: Clock, lease_seconds: float) -> None:
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._by_id: dict[str, Runner] = {}
        #: The runner that holds an execution.
        self._holders: dict[str, str] = {}

    def __iter__(self) -> Iterator[Runner]:
        return iter(list(self._by_id.values()))

    def get(self, runner_id: str) -> Runner | None:
        """Return a runner, or None."""
        return self._by_id.get(runner_id)

    def renew(self, runner_id: str) -> Runner:
        """Begin the lease of a runner anew."""
        expires = self._clock.monotonic() + self._lease_seconds
        runner = self._by_id.setdefault(runner_id, Runner(runner_id, expires))
        runner.expires, runner.expired = expires, False
        return runner

    def seconds_left(self, runner_id: str) -> float:
        """How long the lease of a runner still lasts; not above 0 when it has ended."""
        runner = self._by_id.get(runner_id)
        return 0.0 if runner is None else runner.expires - self._clock.monotonic()

    def forget(self, runner: Runner) -> None:
        """Forget a runner that holds nothing and has no stream."""
        if not runner.held and runner.stream is None and not runner.reserved:
            self._by_id.pop(runner.id, None)

    def note(self, execution_id: str, runner_id: str, attempt: int, *, for_person: bool, told: bool) -> None:
        """Note who holds an execution now; an empty `runner_id` is nobody. `told`: its runner knows already."""
        before = self._holders.get(execution_id)
        if before is not None and before != runner_id:
            self._let_go(before, execution_id, told=told)
        if not runner_id:
            return
        runner = self._by_id.get(runner_id) or self.renew(runner_id)
        self._holders[execution_id] = runner_id
        holding = runner.held.get(execution_id)
        if holding is None or holding.attempt != attempt:
            self._take(runner, execution_id, Holding(attempt, self._clock.monotonic(), for_person=for_person))
        else:
            runner.mark(holding, for_person=for_person)
            if runner.stream is not None and not told and execution_id not in runner.stream.assigned:
                runner.stream.changed[execution_id] = attempt
                runner.stream.flag.set()

    def holds(self, execution_id: str) -> bool:
        """Tell whether any runner holds an execution, as it is known here."""
        return execution_id in self._holders

    def knows(self, execution_id: str, runner_id: str, attempt: int, *, for_person: bool) -> bool:
        """Tell whether this is how it is known here that a runner holds an execution."""
        holding = self.holding(execution_id, runner_id, attempt)
        return holding is not None and holding.for_person == for_person

    def holding(self, execution_id: str, runner_id: str, attempt: int) -> Holding | None:
        """Return what a runner holds of an execution, or None when it does not hold this attempt."""
        runner = self._by_id.get(runner_id)
        holding = None if runner is None else runner.held.get(execution_id)
        return holding if holding is not None and holding.attempt == attempt else None

    def note_named(self, execution_id: str, runner_id: str, attempt: int, *, for_children: bool | None = None) -> bool:
        """Note that a runner knows of what it holds: it named it, or reported on it. Tell whether it waits since now.

        `for_children`: whether the runner says that it only waits for its sub-executions; None when it did not say.
        """
        holding = self.holding(execution_id, runner_id, attempt)
        if holding is None:
            return False
        holding.seen, holding.named = self._clock.monotonic(), True
        waited = holding.waits
        self._by_id[runner_id].mark(holding, for_children=for_children)
        return holding.waits and not waited

    @staticmethod
    def _take(runner: Runner, execution_id: str, holding: Holding) -> None:
        runner.hold(execution_id, holding)
        if runner.stream is not None:
            runner.stream.assigned[execution_id] = holding.attempt
            runner.stream.flag.set()

    def _let_go(self, runner_id: str, execution_id: str, *, told: bool) -> None:
        del self._holders[execution_id]
        runner = self._by_id[runner_id]
        holding = runner.let_go(execution_id)
        if runner.stream is not None and holding is not None:
            unsent = runner.stream.assigned.pop(execution_id, None)
            runner.stream.changed.pop(execution_id, None)
            if unsent is None and not told:
                runner.stream.changed[execution_id] = holding.attempt
            runner.stream.flag.set()
