"""Keepalive: how half-open connections are found, the same on every engine."""

from __future__ import annotations

from typing import Final

#: A connection without traffic is pinged after this, and closed when no answer comes: a half-open one does not stay.
KEEPALIVE_MS: Final = 30_000
KEEPALIVE_TIMEOUT_MS: Final = 10_000
#: A client that pings more often than this is told to go, where the engine counts.
LEAST_CLIENT_PING_MS: Final = 5_000
