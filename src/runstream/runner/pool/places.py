"""Places: who has which agent, which agents are idle, and who waits. Knows no clock, no loop, and no invocation."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from runstream.runner.agents import AgentFunction
    from runstream.runner.pool.configuration import AgentConfiguration


@dataclass(eq=False, slots=True)
class Claim:
    """Somebody's wish for an agent: it waits, then it has a place, then it leaves."""

    configuration: AgentConfiguration
    #: The claims of those that this one works for: their places are not free before this one has left.
    above: frozenset[Claim] = frozenset()
    #: The execution that it is for; empty for none.
    execution: str = ""
    #: Done once it has a place.
    turn: asyncio.Future[None] | None = None
    place: Place | None = None
    #: How many of those that wait work for this one.
    waiting_below: int = 0


@dataclass(eq=False, slots=True)
class Place:
    """A place of the pool: an agent, or one that is being built, and the claims that use it; none while it is idle."""

    configuration: AgentConfiguration
    users: set[Claim] = field(default_factory=set)
    agent: AgentFunction | None = None
    #: Builds the agent, while there is none.
    building: asyncio.Task[AgentFunction] | None = None
    #: Whether the agent may be used again.
    fit: bool = True
    idle_since: float = 0.0


class Places:
    """The places of one pool: at most `most`, those that are idle included.

    Who waits is let in in order, with one exception. When every place is held by somebody who waits for somebody who
    waits here, nobody would ever go on: then the one deepest down is let in over the bound, and its agent goes when it
    leaves.
    """

    def __init__(self, most: int, close: Callable[[Place], None], *, shared: bool) -> None:
        """Have `close` told of each agent that goes. With `shared`, claims of one configuration share a place."""
        self.taken: set[Place] = set()
        #: The one that has been idle for longest comes first.
        self.idle: deque[Place] = deque()
        self.waiting: deque[Claim] = deque()
        #: How many idle agents have gone: for others to have their place, for their age, or for a newer revision.
        self.evicted = 0
        self._most = most
        self._close = close
        self._shared = shared

    def ask(self, claim: Claim) -> None:
        """Queue a claim; it may have a place at once."""
        self._evict([place for place in self.idle if claim.configuration.outdates(place.configuration)])
        self.waiting.append(claim)
        for each in claim.above:
            each.waiting_below += 1
        self._settle()

    def leave(self, claim: Claim, now: float, *, fit: bool) -> None:
        """Take a claim out of the queue, or free what it has; the agent is idle from `now`, if it is still fit."""
        place = claim.place
        if place is None:
            self.waiting.remove(claim)
            self._end_waiting(claim)
        else:
            place.users.discard(claim)
            claim.place = None  # whoever keeps the claim keeps no agent
            place.fit = place.fit and fit
            self._vacate(place, now)
        self._settle()

    def built(self, place: Place, now: float) -> None:
        """Take note that nothing is built in a place any more. Who had asked for it may have left."""
        self._vacate(place, now)
        self._settle()

    def evict_idle(self, since: float) -> None:
        """Have all agents go that have been idle since then, or for longer."""
        self._evict([place for place in self.idle if place.idle_since <= since])

    def of_execution(self, execution: str) -> list[Claim]:
        """Return the claims that have a place, of an execution."""
        return [claim for place in self.taken for claim in place.users if claim.execution == execution]

    def _vacate(self, place: Place, now: float) -> None:
        """Free a place, if nobody uses it and nothing is built there."""
        if place.users or place.building is not None:
            return
        self.taken.discard(place)
        if place.agent is None:
            return
        if place.fit and not self._outdated(place):
            place.idle_since = now
            self.idle.append(place)
        else:
            self._close(place)

    def _settle(self) -> None:
        """Let in whoever can be."""
        while self.idle and len(self.taken) + len(self.idle) > self._most:
            self._evict([self.idle[0]])
        while self.waiting and (place := self._place_for(self.waiting[0])):
            self._grant(self.waiting[0], place)
        while self.waiting and self._stuck():
            deepest = max(self.waiting, key=lambda claim: len(claim.above))
            self._grant(deepest, self._known(deepest) or Place(deepest.configuration))

    def _place_for(self, claim: Claim) -> Place | None:
        """Return a place that a claim can have within the bound."""
        place = self._known(claim)
        if place is not None:
            return place
        if len(self.taken) + len(self.idle) >= self._most:
            if not self.idle:
                return None
            self._evict([self.idle[0]])
        return Place(claim.configuration)

    def _known(self, claim: Claim) -> Place | None:
        """Return the place of an agent that is built for this, or being built, and that the claim may use."""
        digest = claim.configuration.digest
        if self._shared:
            for place in self.taken:
                if place.fit and place.configuration.digest == digest:
                    return place
        # The one that was used last is the warmest, and lets the others grow old.
        return next((place for place in reversed(self.idle) if place.configuration.digest == digest), None)

    def _grant(self, claim: Claim, place: Place) -> None:
        self.waiting.remove(claim)
        self._end_waiting(claim)
        if not place.users and place in self.idle:
            self.idle.remove(place)
        place.users.add(claim)
        self.taken.add(place)
        claim.place = place
        if claim.turn is not None and not claim.turn.done():
            claim.turn.set_result(None)

    def _stuck(self) -> bool:
        """Tell whether every place has a user that waits for somebody who waits here."""
        return all(any(user.waiting_below for user in place.users) for place in self.taken)

    def _outdated(self, place: Place) -> bool:
        known = (*self.taken, *self.idle)
        return any(other.configuration.outdates(place.configuration) for other in known)

    def _evict(self, places: list[Place]) -> None:
        for place in places:
            self.idle.remove(place)
            self.evicted += 1
            self._close(place)

    @staticmethod
    def _end_waiting(claim: Claim) -> None:
        for each in claim.above:
            each.waiting_below -= 1
