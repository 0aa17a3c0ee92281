"""Bell: tells everybody who waits that something has changed, never what."""

from __future__ import annotations

import asyncio


class Bell:
    """Wakes all who wait, each time it rings. Whoever is woken looks for itself, and waits again if need be."""

    def __init__(self) -> None:
        #: Set at the next ring; there is none while nobody waits.
        self._rung: asyncio.Event | None = None

    def ring(self) -> None:
        """Wake those who wait now."""
        rung, self._rung = self._rung, None
        if rung is not None:
            rung.set()

    async def wait(self) -> None:
        """Return at the next ring."""
        if self._rung is None:
            self._rung = asyncio.Event()
        await self._rung.wait()
