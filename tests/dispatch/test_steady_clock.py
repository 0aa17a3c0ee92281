"""The steady clock: no jump ahead is believed at once, every other time is the wall's."""

from __future__ import annotations

from datetime import timedelta

from runstream.dispatch.steady_clock import BELIEVED_AFTER, SteadyClock
from tests.clock import START, FakeClock
from tests.logs import everything_logged

_JUMP = timedelta(days=400)


def test_time_that_passes_is_believed(clock: FakeClock) -> None:
    """As long as both clocks go on together, the steady one tells the wall time."""
    steady = SteadyClock(clock)
    for _ in range(3):
        assert steady.now() == clock.now()
        clock.advance(30 * 86_400)


def test_a_jump_ahead_is_believed_when_it_lasts(clock: FakeClock) -> None:
    """For an hour after a jump time goes on as before it; one line is logged."""
    steady = SteadyClock(clock)
    steady.now()
    clock.set_now(START + _JUMP)
    with everything_logged() as logs:
        assert steady.now() == START
        clock.advance(BELIEVED_AFTER - 1)
        assert steady.now() == START + timedelta(seconds=BELIEVED_AFTER - 1)
        clock.advance(1)
        assert steady.now() == clock.now()
    assert [log["event"] for log in logs] == ["clock_jumped_ahead"]
    assert logs[0]["seconds"] == _JUMP.total_seconds()


def test_a_jump_that_is_taken_back_changes_nothing(clock: FakeClock) -> None:
    """Once the wall clock is right again it is the wall's time, and another jump must last as long."""
    steady = SteadyClock(clock)
    steady.now()
    clock.set_now(START + _JUMP)
    assert steady.now() == START
    clock.advance(BELIEVED_AFTER - 1)
    clock.set_now(START + timedelta(hours=1))
    assert steady.now() == START + timedelta(hours=1)
    clock.set_now(START + _JUMP)
    assert steady.now() == START + timedelta(hours=1)


def test_a_jump_back_is_believed(clock: FakeClock) -> None:
    """The steady time is never ahead of the wall's."""
    steady = SteadyClock(clock)
    steady.now()
    clock.set_now(START - _JUMP)
    assert steady.now() == START - _JUMP


def test_a_start_far_behind_what_happened_last_is_a_jump(clock: FakeClock) -> None:
    """A wall clock that is days ahead of what is on disk must last as well; one that is behind it need not."""
    steady = SteadyClock(clock)
    steady.begin(START - _JUMP)
    assert steady.now() == START - _JUMP
    clock.advance(BELIEVED_AFTER)
    assert steady.now() == clock.now()
    steady.begin(START + _JUMP)
    assert steady.now() == clock.now()
