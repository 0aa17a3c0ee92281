from __future__ import annotations

import pytest

from runstream.cli.patience import MOST_DELAY, Patience


class Clock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_delays_grow_and_patience_runs_out() -> None:
    clock = Clock()
    patience = Patience(30, clock, lambda: 1.0)
    delays = []
    while (delay := patience.next_delay()) is not None:
        delays.append(delay)
        clock.now += delay
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert max(delays) == MOST_DELAY
    assert sum(delays) == pytest.approx(30)


def test_it_begins_anew_when_the_connection_is_back() -> None:
    clock = Clock()
    patience = Patience(1, clock, lambda: 1.0)
    before = (patience.next_delay(), patience.lost)
    patience.resumed()
    assert (before, patience.lost) == ((0.1, True), False)
    clock.now += 100
    assert patience.next_delay() == 0.1


def test_without_patience_there_is_no_second_attempt() -> None:
    assert Patience(0).next_delay() is None
