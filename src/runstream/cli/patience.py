"""Patience: how long and how often a lost connection is tried again."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_DELAY: Final = 0.1
MOST_DELAY: Final = 5.0


class Patience:
    """Grows the delay between attempts, and runs out some seconds after the connection was lost."""

    def __init__(
        self,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Run out after `seconds`; `clock` counts them and `jitter` spreads attempts, from 0 to 1."""
        self._seconds = seconds
        self._clock = clock
        self._jitter = jitter
        self._lost_at: float | None = None
        self._delay = FIRST_DELAY

    @property
    def lost(self) -> bool:
        """Whether the connection is lost and not yet resumed."""
        return self._lost_at is not None

    def next_delay(self) -> float | None:
        """Return how long to wait before the next attempt, or None when patience has run out."""
        now = self._clock()
        if self._lost_at is None:
            self._lost_at = now
        left = self._lost_at + self._seconds - now
        if left <= 0:
            return None
        delay, self._delay = self._delay, min(self._delay * 2, MOST_DELAY)
        return min(delay * (0.5 + self._jitter() / 2), left)

    def resumed(self) -> None:
        """Begin anew: the connection is back."""
        self._lost_at = None
        self._delay = FIRST_DELAY
