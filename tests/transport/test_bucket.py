"""The bucket: how many tokens it gives, and when it says that there is one again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.transport.bucket import Bucket

RATES = st.floats(0.01, 10_000)
BURSTS = st.integers(1, 200)
STEPS = st.lists(st.floats(0, 100), min_size=1, max_size=300)


def test_a_burst_is_given_at_once_and_then_one_at_a_time() -> None:
    bucket = Bucket(rate=4, burst=3, now=10)
    assert [bucket.take(10) for _ in range(4)] == [0, 0, 0, 0.25]
    assert bucket.take(10.125) == 0.125
    assert [bucket.take(10.25), bucket.take(10.25)] == [0, 0.25]


def test_no_more_than_a_burst_is_saved_up() -> None:
    bucket = Bucket(rate=4, burst=3, now=0)
    assert [bucket.take(1_000_000) for _ in range(4)] == [0, 0, 0, 0.25]


def test_it_is_full_when_as_much_has_come_back_as_was_taken() -> None:
    bucket = Bucket(rate=2, burst=5, now=0)
    assert bucket.full(0)
    bucket.take(0)
    assert [bucket.full(at) for at in (0, 0.25, 0.5)] == [False, False, True]


@given(RATES, BURSTS, STEPS)
def test_no_stretch_of_time_has_more_than_a_burst_and_the_rate(rate: float, burst: int, steps: list[float]) -> None:
    bucket, now, taken = Bucket(rate, burst, 0), 0.0, []
    for step in steps:
        now += step / rate
        if not bucket.take(now):
            taken.append(now)
    for first, begun in enumerate(taken):
        for last, ended in enumerate(taken[first:], start=1):
            assert last <= burst + (ended - begun) * rate + 1e-3


@given(RATES, BURSTS, STEPS)
def test_whoever_waits_as_long_as_it_says_gets_one(rate: float, burst: int, steps: list[float]) -> None:
    bucket, now = Bucket(rate, burst, 0), 0.0
    for step in steps:
        now += step / rate / 10
        wait = bucket.take(now)
        if wait:
            now += wait
            assert bucket.take(now) * rate == pytest.approx(0, abs=1e-6)
