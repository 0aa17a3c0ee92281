"""Backoff: how long to wait before the next attempt at something that keeps failing."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_SECONDS: Final = 0.05
MOST_SECONDS: Final = 2.0


class Backoff:
    """Doubles the delay from one attempt to the next, up to two seconds, and spreads the attempts of many callers."""

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        """Take in `jitter` what spreads the attempts: a number from 0 to 1."""
        self._jitter = jitter
        self._delay = FIRST_SECONDS

    def next(self) -> float:
        """Return how long to wait, in seconds: from one half of the delay to the whole of it."""
        delay, self._delay = self._delay, min(self._delay * 2, MOST_SECONDS)
        return delay * (0.5 + self._jitter() / 2)

    def reset(self) -> None:
        """Begin anew: it worked."""
        self._delay = FIRST_SECONDS
