"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class FakeClock:
    """Wall time and monotonic seconds, moved by hand; whoever waits for a time is woken when it is reached.

    With `tick`, the wall clock also moves by that much each time it is read, as time passes between any two steps.
    """

    def __init__(self, start: datetime = START, tick: timedelta = timedelta()) -> None:
        self._now = start
        self._tick = tick
        self._monotonic = 1_000.0
        self._waiting: list[tuple[float, asyncio.Future[None]]] = []
        self._joined = asyncio.Event()

    def now(self) -> datetime:
        """The wall time, in UTC."""
        self._now += self._tick
        return self._now

    def monotonic(self) -> float:
        """Seconds since some fixed moment."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass: both clocks move, and those whose time is over go on."""
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds
        for at, woken in self._waiting:
            if at <= self._monotonic and not woken.done():
                woken.set_result(None)

    def set_now(self, now: datetime) -> None:
        """Let the wall clock jump; the monotonic one does not."""
        self._now = now

    async def awaited(self, seconds: float) -> None:
        """Return when somebody waits who will be woken in this many seconds."""
        while seconds not in [at - self._monotonic for at, _ in self._waiting]:
            self._joined.clear()
            await self._joined.wait()

    async def wait(self, event: asyncio.Event, timeout: float | None) -> None:  # noqa: ASYNC109  # as in Clock
        """Return when `event` is set or `timeout` seconds were let pass; None waits for the event alone."""
        if timeout is None:
            await event.wait()
            return
        if timeout <= 0:
            return
        entry = (self._monotonic + timeout, asyncio.get_running_loop().create_future())
        told = asyncio.ensure_future(event.wait())
        self._waiting.append(entry)
        self._joined.set()
        try:
            await asyncio.wait({told, entry[1]}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiting.remove(entry)
            entry[1].cancel()
            told.cancel()
            with suppress(asyncio.CancelledError):
                await told
