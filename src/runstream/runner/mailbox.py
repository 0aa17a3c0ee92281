"""Mailbox: what the server asks of one attempt and tells it, kept until the agent looks.

Everything may come twice, early or late: a decision before the question was answered, an input again after it was
taken. So what came is kept as a state, and whoever waits looks at the state.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from runstream.runner.bell import Bell
from runstream.runner.errors import Paused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runstream.runner.decisions import Decision

T = TypeVar("T")


class Mailbox:
    """What came for one attempt."""

    def __init__(self) -> None:
        #: Whether the agent is being stopped as a whole: what waits for a person is then left to the server.
        self.stopping = False
        #: The newest revision of an input that has come; 0 for none.
        self.newest_input = 0
        self._input = ""
        self._pausing = False
        self._decisions: dict[str, Decision] = {}
        self._approvals = 0
        self._waits_for_input = False
        self._changed = Bell()

    def pause(self) -> None:
        """Ask for a pause: whoever comes to a safe point, or waits for a person, gets `Paused`."""
        self._pausing = True
        self._changed.ring()

    def check_pause(self) -> None:
        """Be a safe point. Raises `Paused`."""
        if self._pausing and not self.stopping:
            raise Paused

    async def paused(self) -> None:
        """Wait until a pause is asked. Raises `Paused`; never returns."""
        await self._until(lambda: None)

    def decide(self, decision: Decision) -> None:
        """Take a decision; the first one about a call counts."""
        self._decisions.setdefault(decision.call_id, decision)
        self._changed.ring()

    def decided(self, call_id: str) -> Decision | None:
        """Return what was decided about a call, if it was."""
        return self._decisions.get(call_id)

    async def decision(self, call_id: str) -> Decision:
        """Wait for what is decided about a call. Raises `Paused`."""
        return await self._until(lambda: self._decisions.get(call_id))

    def tell(self, text: str, revision: int) -> None:
        """Take what a person said, committed as `revision`; a repeat changes nothing."""
        if revision > self.newest_input:
            self.newest_input, self._input = revision, text
            self._changed.ring()

    async def said_after(self, revision: int) -> str:
        """Wait for what a person says in a later revision than this. Raises `Paused`."""
        return await self._until(lambda: self._input if self.newest_input > revision else None)

    async def begin_approval(self) -> None:
        """Wait until an approval may be asked for: while nobody waits for input. Raises `Paused`."""
        await self._until(lambda: not self._waits_for_input or None)

    async def begin_input(self) -> None:
        """Wait until input may be asked for: while nobody else waits for a person. Raises `Paused`.

        An execution is in one phase at a time, so approvals wait together and input waits alone.
        """
        await self._until(lambda: not (self._waits_for_input or self._approvals) or None)

    @contextmanager
    def waiting_for_approval(self) -> Iterator[None]:
        """Count as one that waits, for the length of the block. No await may come between `begin_approval` and this."""
        self._approvals += 1
        try:
            yield
        finally:
            self._approvals -= 1
            self._changed.ring()

    @contextmanager
    def waiting_for_input(self) -> Iterator[None]:
        """Wait alone, for the length of the block. No await may come between `begin_input` and this."""
        self._waits_for_input = True
        try:
            yield
        finally:
            self._waits_for_input = False
            self._changed.ring()

    @property
    def approvals_waiting(self) -> int:
        """How many approvals are waited for."""
        return self._approvals

    async def _until(self, find: Callable[[], T | None]) -> T:
        while True:
            found = find()
            if found is not None:
                return found
            self.check_pause()
            await self._changed.wait()
