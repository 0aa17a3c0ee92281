"""The clock: the only way that the rest of the program learns or awaits the time. It is passed in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from datetime import datetime


class Clock(Protocol):
    """Tells the time and waits for it."""

    def now(self) -> datetime:
        """Return the wall time, aware and in UTC. It may jump, back as well."""
        ...

    def monotonic(self) -> float:
        """Return seconds since an unknown beginning. They never run back."""
        ...

    async def wait(self, event: asyncio.Event, timeout: float | None) -> None:  # noqa: ASYNC109
        """Return when `event` is set or `timeout` seconds are over; None waits for the event alone.

        Which of the two it was is for the caller to see: it looks at the event and at the time.
        """
        ...
