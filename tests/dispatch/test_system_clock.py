"""The machine's clock: what it tells, and that waiting ends by the event as well as by the time."""

from __future__ import annotations

import asyncio
from datetime import UTC, timedelta

from runstream.dispatch.system_clock import SystemClock


def test_the_time_is_in_utc_and_the_seconds_never_run_back() -> None:
    """The wall time knows its zone, and monotonic seconds only grow."""
    clock = SystemClock()
    assert clock.now().tzinfo is UTC
    assert clock.now().utcoffset() == timedelta()
    seconds = [clock.monotonic() for _ in range(100)]
    assert seconds == sorted(seconds)


async def test_waiting_ends_with_the_event() -> None:
    """An event that is set, before or during the wait, ends it, however long the timeout is."""
    clock, event = SystemClock(), asyncio.Event()
    for timeout in (None, 3600.0):
        waiting = asyncio.create_task(clock.wait(event, timeout))
        await asyncio.sleep(0)
        assert not waiting.done()
        event.set()
        await waiting
        await clock.wait(event, timeout)
        event.clear()


async def test_waiting_ends_with_the_time() -> None:
    """Without the event, the wait ends by itself and raises nothing; a time that is over does not wait at all."""
    clock, event = SystemClock(), asyncio.Event()
    for timeout in (0.01, 0.0, -5.0):
        await clock.wait(event, timeout)
    assert not event.is_set()
