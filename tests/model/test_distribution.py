"""Distributions: each value counts under the first bound that it does not pass."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runstream.model.distribution import Distribution


def test_a_value_counts_under_the_bound_that_it_does_not_pass() -> None:
    """A value that is a bound belongs to it; what is beyond the last is counted apart."""
    values = Distribution((1, 2, 5))
    for value in (0, 1, 1.5, 2, 5, 6, 100):
        values.note(value)
    assert values.counts == [2, 2, 1, 2]
    assert values.sum == 115.5


@given(st.lists(st.integers(-5, 50)), st.sets(st.integers(0, 40), min_size=1))
def test_every_value_counts_once(noted: list[int], bounds: set[int]) -> None:
    """However bounds and values lie, as many stand up to each bound as are not above it."""
    values = Distribution(sorted(bounds))
    for value in noted:
        values.note(value)
    assert (sum(values.counts), values.sum) == (len(noted), sum(noted))
    for at, bound in enumerate(values.bounds):
        assert sum(values.counts[: at + 1]) == sum(value <= bound for value in noted)
