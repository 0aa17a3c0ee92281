"""Deadlines: names with a time each; when a time is over, a coroutine is called with the name.

Times are monotonic: a jump of the wall clock moves nothing. They live in memory; what they stand for is in the store,
and whoever restarts adds them again. Nothing is polled: the loop sleeps until the next time or until one is added.
"""

from __future__ import annotations

import asyncio
import heapq
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from runstream.model.clock import Clock

_LOG = structlog.get_logger(__name__)
#: How long after a failure the same name is tried again, in seconds.
RETRY_SECONDS = 1.0
_SLACK = 64


class Deadlines:
    """A set of names that fall due."""

    def __init__(self, clock: Clock, due: Callable[[str], Awaitable[None]]) -> None:
        self._clock = clock
        self._due = due
        self._times: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._times)

    def add(self, name: str, seconds: float) -> None:
        """Let `name` fall due in `seconds` from now, in place of its earlier time."""
        at = self._clock.monotonic() + seconds
        self._times[name] = at
        heapq.heappush(self._heap, (at, name))
        if len(self._heap) > 2 * len(self._times) + _SLACK:  # mostly of names that moved or went
            self._heap = [(time, known) for known, time in self._times.items()]
            heapq.heapify(self._heap)
        self._changed.set()

    def remove(self, name: str) -> None:
        """Forget a name; one that is not there is no error."""
        self._times.pop(name, None)

    async def run(self) -> None:
        """Call for every name as it falls due, one at a time; until cancelled. A failed call is tried again."""
        while True:
            self._changed.clear()
            await self.run_due()
            timeout = self._heap[0][0] - self._clock.monotonic() if self._heap else None
            await self._clock.wait(self._changed, timeout)

    async def run_due(self) -> None:
        """Call for every name that is due now."""
        while self._heap and self._heap[0][0] <= self._clock.monotonic():
            at, name = heapq.heappop(self._heap)
            if self._times.get(name) != at:
                continue  # moved or removed since
            del self._times[name]
            try:
                await self._due(name)
            except Exception:  # noqa: BLE001  # whatever it was, the others must get their turn
                _LOG.exception("deadline_failed", name=name)
                self.add(name, RETRY_SECONDS)
