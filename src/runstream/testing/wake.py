"""Wake: lets one task go on, from whichever thread."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Wake:
    """One task that waits, in the loop that runs where this is made."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        #: Done when it has rung.
        self.rung: asyncio.Future[None] = self._loop.create_future()

    def ring(self) -> None:
        """Let the task go on: in its own loop at once, from another thread as soon as its loop gets to it."""
        if _running_loop() is self._loop:
            self._ring()
            return
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        if not self.rung.done():
            self.rung.set_result(None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
