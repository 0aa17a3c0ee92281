"""The steady clock: wall time for what cannot be taken back, which believes no jump ahead at once."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from datetime import datetime

    from runstream.model.clock import Clock

_LOG = structlog.get_logger(__name__)

#: How far the wall clock may gain on the monotonic one between two looks.
TOLERANCE: Final = timedelta(minutes=5)
#: How long a jump ahead must last before it is believed, in seconds: time for somebody to read the log.
BELIEVED_AFTER: Final = 3_600.0


class SteadyClock:
    """Wall time that goes on as the monotonic clock does when the wall clock jumps ahead; at most the wall time.

    A jump ahead is logged, and believed when it has lasted for an hour; a jump back is believed at once.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._anchor: tuple[datetime, float] | None = None
        self._jumped_at: float | None = None

    def begin(self, last_seen: datetime) -> None:
        """Say when something is known to have happened last: a wall clock far ahead of that has jumped."""
        self._anchor = min(last_seen, self._clock.now()), self._clock.monotonic()

    def now(self) -> datetime:
        """Return the time; to be asked every few minutes."""
        wall, monotonic = self._clock.now(), self._clock.monotonic()
        if self._anchor is None:
            self._anchor = wall, monotonic
        then, since = self._anchor
        steady = then + timedelta(seconds=monotonic - since)
        if wall - steady <= TOLERANCE or self._is_believed(wall - steady, monotonic):
            self._anchor, self._jumped_at = (wall, monotonic), None
            return wall
        return steady

    def _is_believed(self, ahead: timedelta, monotonic: float) -> bool:
        if self._jumped_at is None:
            self._jumped_at = monotonic
            told = "nothing is deleted by its age alone until this has lasted"
            _LOG.warning("clock_jumped_ahead", seconds=round(ahead.total_seconds()), told=told, lasts=BELIEVED_AFTER)
        return monotonic - self._jumped_at >= BELIEVED_AFTER
