"""Backoff: how long an execution that lost its runner waits before the next attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_SECONDS: Final = 60.0
_MOST_DOUBLINGS: Final = 16


def backoff_seconds(lost: int, first: float, random: Callable[[], float]) -> float:
    """Return the seconds to wait after the `lost`-th loss: `first`, doubled each time, at most 60, less up to half.

    `random` gives numbers from 0 to below 1: the jitter, so that what was lost together does not come back together.
    """
    doubled = first * 2.0 ** min(max(lost - 1, 0), _MOST_DOUBLINGS)
    return min(doubled, LONGEST_SECONDS) * (1 - random() / 2)
