"""The machine's clock."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime


class SystemClock:
    """Wall time in UTC, monotonic seconds, and waiting on the event loop."""

    def now(self) -> datetime:
        """The wall time, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        return time.monotonic()

    async def wait(self, event: asyncio.Event, timeout: float | None) -> None:  # noqa: ASYNC109
        """Return when `event` is set or `timeout` seconds are over; None waits for the event alone."""
        if timeout is None:
            await event.wait()
            return
        if timeout <= 0:
            return
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            return
