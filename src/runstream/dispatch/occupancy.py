"""Occupancy: which executions keep their session, and a place of their agent, from others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runstream.dispatch.queue import Candidate


class Occupancy:
    """What is at work, by session and by agent. A view, like the queue."""

    def __init__(self) -> None:
        self._in_session: dict[str, set[str]] = {}
        self._of_agent: dict[str, set[str]] = {}
        self._known: dict[str, Candidate] = {}

    def __len__(self) -> int:
        return len(self._known)

    def enter(self, execution: Candidate, *, takes_place: bool) -> None:
        """Note that an execution is at work; `takes_place` when a runner has it, and it does not wait for its own."""
        self._known[execution.id] = execution
        if execution.session_id:
            self._in_session.setdefault(execution.session_id, set()).add(execution.id)
        if takes_place:
            self._of_agent.setdefault(execution.agent_id, set()).add(execution.id)
        else:
            _remove(self._of_agent, execution.agent_id, execution.id)

    def set_aside(self, execution_id: str, *, waits: bool) -> bool:
        """Note whether one that a runner has only waits for its sub-executions: then it takes no place of its agent.

        Tell whether the agent has a place more since now.
        """
        execution = self._known.get(execution_id)
        if execution is None:
            return False
        before = self.taken(execution.agent_id)
        self.enter(execution, takes_place=not waits)
        return self.taken(execution.agent_id) < before

    def leave(self, execution_id: str) -> str:
        """Note that it is not any more; return the session that has one less, or an empty text."""
        execution = self._known.pop(execution_id, None)
        if execution is None:
            return ""
        _remove(self._of_agent, execution.agent_id, execution_id)
        _remove(self._in_session, execution.session_id, execution_id)
        return execution.session_id

    def is_busy(self, session_id: str) -> bool:
        """Tell whether anything is at work in a session."""
        return session_id in self._in_session

    def must_wait(self, execution: Candidate) -> bool:
        """Tell whether anything is at work in the session of an execution but its own tree, above and below.

        Those above may wait for it; those below end with its last attempt, when it begins the next.
        """
        at_work = self._in_session.get(execution.session_id)
        if not at_work:
            return False
        above, known = set(), self._known.get(execution.parent_id)
        while known is not None:
            above.add(known.id)
            known = self._known.get(known.parent_id)
        return not all(each in above or self._is_below(each, execution.id) for each in at_work)

    def _is_below(self, execution_id: str, ancestor_id: str) -> bool:
        """Tell whether one is below another in its tree, left by an earlier attempt, and about to end."""
        known = self._known.get(execution_id)
        while known is not None and known.parent_id != ancestor_id:
            known = self._known.get(known.parent_id)
        return known is not None

    def taken(self, agent_id: str) -> int:
        """How many places of an agent are taken: its executions that runners have, without those set aside."""
        return len(self._of_agent.get(agent_id, ()))


def _remove(sets: dict[str, set[str]], key: str, member: str) -> None:
    members = sets.get(key)
    if members is not None:
        members.discard(member)
        if not members:
            del sets[key]
