"""The queue: PENDING executions that may be assigned: sub-executions first, oldest first of an agent, agents in turn.

Sub-executions go first, whoever's they are: what waits for them has given its place away, and a new tree in that place
could wait for something that only they would free. Trees that were begun end before new ones begin.

It is a view, made from the commits and made anew at start: what is on disk as PENDING is queued, and nothing else is.
An execution whose session is busy is parked; when the session is free again, the first that is parked for it comes
back, in the same order. Where a tree of executions shares a session, all that are parked come back, since any of them
may be a child of what is still at work there.
"""

from __future__ import annotations

import heapq
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

_SLACK = 64
#: Ready ids by agent, as heaps, the agent whose turn is next first. Those no longer known are dropped when met.
_Line: TypeAlias = "OrderedDict[str, list[str]]"


class Candidate(NamedTuple):
    """An execution that waits for a runner; `session_id` and `parent_id` are empty when it has none."""

    id: str
    agent_id: str
    session_id: str
    parent_id: str = ""

    @property
    def rank(self) -> tuple[bool, str]:
        """What sorts those that wait for one thing. Ids sort by creation, so that the smallest is the oldest."""
        return (not self.parent_id, self.id)


class Queue:
    """The executions that wait."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Take the clock, monotonic, by which it tells how long they wait."""
        self._now = now
        self._known: dict[str, Candidate] = {}
        #: Since when each is queued, those that wait longest first.
        self._since: dict[str, float] = {}
        #: What is ready, in two lines: sub-executions, then the others.
        self._lines: tuple[_Line, _Line] = (OrderedDict(), OrderedDict())
        #: What is parked, by session, as heaps of ranks.
        self._parked: dict[str, list[tuple[bool, str]]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __bool__(self) -> bool:
        """Whether anything is ready; what is parked is not."""
        return any(self._lines)

    def __contains__(self, execution_id: str) -> bool:
        return execution_id in self._known

    @property
    def longest_wait(self) -> float:
        """How many seconds the one that waits longest has been queued; 0 when none is."""
        since = next(iter(self._since.values()), None)
        return 0.0 if since is None else self._now() - since

    @property
    def agents(self) -> list[str]:
        """The agents that have executions ready, those with sub-executions first, then whose turn is next."""
        return list(dict.fromkeys(agent_id for line in self._lines for agent_id in line))

    def add(self, candidate: Candidate) -> None:
        """Queue an execution; one that is queued already stays where it is."""
        if candidate.id not in self._known:
            self._known[candidate.id] = candidate
            self._since[candidate.id] = self._now()
            self._make_ready(candidate)

    def discard(self, execution_id: str) -> None:
        """Forget an execution; one that is not queued is no error. Another of its session may now be the oldest."""
        candidate = self._known.pop(execution_id, None)
        if candidate is None:
            return
        del self._since[execution_id]
        if candidate.session_id:
            self.unpark(candidate.session_id)
        self._tidy(self._line_of(candidate), candidate.agent_id)

    def _tidy(self, line: _Line, agent_id: str) -> None:
        """Drop what is no longer known, when it may be most of what is ready."""
        ready = line.get(agent_id, [])
        if len(ready) > 2 * len(self._known) + _SLACK:
            ready[:] = sorted({each for each in ready if each in self._known})
            if not ready:
                del line[agent_id]

    def take(self, serves: Callable[[str], bool], busy: Callable[[Candidate], bool]) -> Candidate | None:
        """Take the oldest execution of the next agent that is served, parking those whose session is busy.

        One without a parent only when no sub-execution can be taken.
        """
        for line in self._lines:
            for agent_id in list(line):
                candidate = self._oldest(line, agent_id, busy) if serves(agent_id) else None
                if candidate is not None:
                    if agent_id in line:
                        line.move_to_end(agent_id)
                    return candidate
        return None

    def unpark(self, session_id: str, *, every: bool = False) -> None:
        """Make the first execution that is parked for a session ready again, or every one."""
        parked = self._parked.get(session_id, [])
        while parked:
            candidate = self._known.get(heapq.heappop(parked)[1])
            if candidate is not None:
                self._make_ready(candidate)
                if not every:
                    break
        if not parked:
            self._parked.pop(session_id, None)

    def unpark_all(self, agent_id: str) -> None:
        """Make everything of an agent ready again: its rule for sessions may have changed."""
        for session_id, parked in list(self._parked.items()):
            if any(known.agent_id == agent_id for _, each in parked if (known := self._known.get(each))):
                self.unpark(session_id, every=True)

    def unpark_beside(self, candidate: Candidate) -> None:
        """Make ready again what is parked for a session and may work beside this one, which begins its work.

        That is what was asked for below it, and its parent, which does not wait for what it has asked for.
        """
        parked = (self._known.get(each) for _, each in self._parked.get(candidate.session_id, ()))
        if any(known is not None and (known.parent_id or known.id == candidate.parent_id) for known in parked):
            self.unpark(candidate.session_id, every=True)

    def _line_of(self, candidate: Candidate) -> _Line:
        children, others = self._lines
        return children if candidate.parent_id else others

    def _make_ready(self, candidate: Candidate) -> None:
        heapq.heappush(self._line_of(candidate).setdefault(candidate.agent_id, []), candidate.id)

    def _oldest(self, line: _Line, agent_id: str, busy: Callable[[Candidate], bool]) -> Candidate | None:
        ready = line[agent_id]
        found = None
        while ready and found is None:
            candidate = self._known.get(heapq.heappop(ready))
            if candidate is None:
                continue
            if busy(candidate):
                heapq.heappush(self._parked.setdefault(candidate.session_id, []), candidate.rank)
            else:
                found = self._known.pop(candidate.id)
                del self._since[candidate.id]
        if not ready:
            line.pop(agent_id)
        return found
