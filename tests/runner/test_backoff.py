from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runstream.runner.backoff import FIRST_SECONDS, MOST_SECONDS, Backoff


@given(st.floats(0, 1), st.integers(1, 40))
def test_delays_double_up_to_a_limit_and_are_spread_over_their_second_half(jitter: float, count: int) -> None:
    backoff = Backoff(lambda: jitter)
    whole = [min(FIRST_SECONDS * 2**number, MOST_SECONDS) for number in range(count)]
    assert all(delay / 2 <= backoff.next() <= delay for delay in whole)
    backoff.reset()
    assert backoff.next() <= FIRST_SECONDS
