"""Bucket: how often something may be done. Each time takes a token, and tokens come back as time passes."""

from __future__ import annotations


class Bucket:
    """Holds up to `burst` tokens, and gets `rate` more in each second. Full at first."""

    __slots__ = ("_burst", "_rate", "_seen", "_tokens")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        """Begin at `now`, in monotonic seconds."""
        self._rate = rate
        self._burst = float(burst)
        self._tokens = self._burst
        self._seen = now

    def take(self, now: float) -> float:
        """Take a token and return 0; without one, return in how many seconds there is one, and take nothing."""
        self._fill(now)
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return 0

    def full(self, now: float) -> bool:
        """Whether it is as if nothing had ever been taken."""
        self._fill(now)
        return self._tokens >= self._burst

    def _fill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now - self._seen) * self._rate)
        self._seen = now
