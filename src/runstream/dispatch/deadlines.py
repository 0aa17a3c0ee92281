"""Deadlines: names with a time each; when a time is over, a coroutine is called with the name.

Times are monotonic: a jump of the wall clock moves nothing. They live in memory; what they stand for is in the store,
and whoever restarts adds them again. Nothing is polled: the loop sleeps until the next time or until one is added.

Calls run beside each other, so that a slow one holds up nobody, up to `AT_ONCE`; the others then wait, soonest first.
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
#: How many calls run at once.
AT_ONCE = 64
_SLACK = 64


class Deadlines:
    """A set of names that fall due."""

    def __init__(self, clock: Clock, due: Callable[[str], Awaitable[None]], *, of: str = "execution_id") -> None:
        """Take the clock, what is called with a name that is due, and what its first word is, for the log."""
        self._clock = clock
        self._due = due
        self._of = of
        self._times: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._calls: dict[str, asyncio.Task[None]] = {}
        #: Of the names that are called for now, those removed meanwhile: a failure is not tried again.
        self._removed: set[str] = set()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._times)

    def add(self, name: str, seconds: float) -> None:
        """Let `name` fall due in `seconds` from now, in place of its earlier time.

        A name that is called for now is called for again, once that call is over and the time has come.
        """
        at = self._clock.monotonic() + seconds
        self._times[name] = at
        self._removed.discard(name)
        heapq.heappush(self._heap, (at, name))
        if len(self._heap) > 2 * len(self._times) + _SLACK:  # mostly of names that moved or went
            self._heap = [(time, known) for known, time in self._times.items()]
            heapq.heapify(self._heap)
        self._changed.set()

    def remove(self, name: str) -> None:
        """Forget a name; one that is not there is no error. A call for it that runs goes on."""
        self._times.pop(name, None)
        if name in self._calls:
            self._removed.add(name)

    def remaining(self, name: str) -> float | None:
        """Return the seconds until `name` falls due, 0 when it is overdue; None for one that is not there."""
        at = self._times.get(name)
        return None if at is None else max(0.0, at - self._clock.monotonic())

    async def run(self) -> None:
        """Call for every name as it falls due; until cancelled, and the calls with it. A failed one is tried again."""
        try:
            while True:
                self._changed.clear()
                self._begin_due()
                await self._clock.wait(self._changed, self._until_next())
        finally:
            await self._stop()

    async def run_due(self) -> None:
        """Call for every name that is due now; return when these calls, and those under way before, are over."""
        self._begin_due()
        while self._calls:
            await asyncio.wait(self._calls.values(), return_when=asyncio.FIRST_COMPLETED)
            self._begin_due()

    def _begin_due(self) -> None:
        """Begin the calls that are due, as many as may run."""
        while len(self._calls) < AT_ONCE and self._heap and self._heap[0][0] <= self._clock.monotonic():
            at, name = heapq.heappop(self._heap)
            # Moved or removed since; one that is called for now has its turn when that is over.
            if self._times.get(name) == at and name not in self._calls:
                del self._times[name]
                self._calls[name] = asyncio.create_task(self._call(name), name=f"deadline {name}")

    def _until_next(self) -> float | None:
        """Return how long to sleep. When no more calls may run, the end of one wakes the loop."""
        if not self._heap or len(self._calls) >= AT_ONCE:
            return None
        return self._heap[0][0] - self._clock.monotonic()

    async def _call(self, name: str) -> None:
        failed = False
        try:
            await self._due(name)
        except Exception:  # noqa: BLE001  # whatever it was, the others must get their turn
            _LOG.exception("deadline_failed", name=name, **{self._of: name.partition(" ")[0]})
            failed = True
        finally:
            del self._calls[name]
            self._go_on(name, failed=failed)

    def _go_on(self, name: str, *, failed: bool) -> None:
        """After a call: give the name its next time, and those that wait for a place their turn."""
        removed = name in self._removed
        self._removed.discard(name)
        if name in self._times:  # added meanwhile; its place in the heap may have been passed over
            heapq.heappush(self._heap, (self._times[name], name))
        elif failed and not removed:
            self.add(name, RETRY_SECONDS)
        self._changed.set()

    async def _stop(self) -> None:
        """Cancel the calls under way and wait until they are over."""
        calls = list(self._calls.values())
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        self._calls.clear()  # one that was cancelled before it began has not left by itself
