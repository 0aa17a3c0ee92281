"""The manual clock: time passes when a test says so, and then to the nanosecond."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest

from runstream.testing import ManualClock


def test_it_stands_still() -> None:
    clock = ManualClock()
    assert (clock.now(), clock.monotonic()) == (clock.now(), clock.monotonic())


def test_both_times_move_together() -> None:
    clock = ManualClock(datetime(2030, 5, 1, 8, tzinfo=UTC))
    before = clock.monotonic()
    clock.advance(90.5)
    assert clock.now() == datetime(2030, 5, 1, 8, 1, 30, 500_000, tzinfo=UTC)
    assert clock.monotonic() - before == 90.5


def test_the_wall_time_is_in_utc_wherever_it_began() -> None:
    there = timezone(timedelta(hours=5))
    now = ManualClock(datetime(2030, 5, 1, 8, tzinfo=there)).now()
    assert now.isoformat() == "2030-05-01T03:00:00+00:00"


def test_a_beginning_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        ManualClock(datetime(2030, 5, 1))  # noqa: DTZ001  # what is refused


def test_time_does_not_run_back() -> None:
    with pytest.raises(ValueError, match="-1"):
        ManualClock().advance(-1)


async def test_many_small_steps_end_where_a_large_one_does() -> None:
    clock = ManualClock()
    sleeping = asyncio.create_task(clock.sleep(0.3))
    await asyncio.sleep(0)
    for _ in range(3):
        assert not sleeping.done()
        clock.advance(0.1)
    await sleeping


async def test_who_sleeps_for_no_time_goes_on() -> None:
    await ManualClock().sleep(0)


async def test_who_waits_goes_on_at_the_event() -> None:
    clock, event = ManualClock(), asyncio.Event()
    waiting = asyncio.create_task(clock.wait(event, 60))
    forever = asyncio.create_task(clock.wait(event, None))
    await asyncio.sleep(0)
    event.set()
    await waiting
    await forever


async def test_who_waits_goes_on_when_the_time_has_come() -> None:
    clock, event = ManualClock(), asyncio.Event()
    waiting = asyncio.create_task(clock.wait(event, 60))
    await asyncio.sleep(0)
    clock.advance(59)
    await asyncio.sleep(0)
    assert not waiting.done()
    clock.advance(1)
    await waiting


async def test_who_is_cancelled_leaves_nothing_behind() -> None:
    clock = ManualClock()
    waiting = asyncio.create_task(clock.wait(asyncio.Event(), 60))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    clock.advance(60)
    assert waiting.cancelled()


async def test_another_thread_can_move_it() -> None:
    clock = ManualClock()
    sleeping = asyncio.create_task(clock.sleep(5))
    await asyncio.sleep(0)
    thread = threading.Thread(target=clock.advance, args=(5,))
    thread.start()
    async with asyncio.timeout(60):
        await sleeping
    thread.join()
