from __future__ import annotations

import pytest

from benchmarks.figure import Bound, Figure
from benchmarks.spread import Spread


def test_a_target_is_met_on_its_side_and_at_itself() -> None:
    assert Figure("time", 1.0, target=1.0).met is True
    assert Figure("time", 1.1, target=1.0).met is False
    assert Figure("rate", 1.0, target=1.0, bound=Bound.AT_LEAST).met is True
    assert Figure("rate", 0.9, target=1.0, bound=Bound.AT_LEAST).met is False


def test_without_a_target_nothing_is_met_or_missed() -> None:
    assert Figure("time", 1.0).met is None


def test_a_percentile_is_a_sample_that_was_taken() -> None:
    spread = Spread.of(range(1000, 0, -1))
    assert (spread.least, spread.p50, spread.p99, spread.p999, spread.most) == (1, 501, 991, 1000, 1000)
    assert Spread.of([3.0]) == Spread(count=1, least=3, p50=3, p90=3, p99=3, p999=3, most=3, mean=3)


def test_a_spread_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        Spread.of([])
