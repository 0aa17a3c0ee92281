"""The manual clock: time that passes when a test says so."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from runstream.testing.wake import Wake

if TYPE_CHECKING:
    from collections.abc import Iterator

#: When a manual clock begins unless told otherwise.
START: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
#: Monotonic seconds begin somewhere.
_BEGINNING: Final = 1_000 * 10**9


class ManualClock:
    """A clock that stands still until `advance`; implements `runstream.model.clock.Clock`. Any thread may use it.

    Wall time and monotonic seconds move together. Whatever waits for a time goes on when it is reached.
    """

    def __init__(self, start: datetime = START) -> None:
        """Begin at `start`, which must know its time zone, else ValueError."""
        if start.tzinfo is None:
            raise ValueError(f"start must have a time zone: {start!r}")
        self._start = start.astimezone(UTC)
        # Nanoseconds, so that many small steps end where one large one does.
        self._passed = 0
        self._lock = threading.Lock()
        self._alarms: dict[Wake, int] = {}

    def __repr__(self) -> str:
        return f"ManualClock({self.now().isoformat()})"

    def now(self) -> datetime:
        """The wall time, in UTC."""
        return self._start + timedelta(microseconds=self._passed // 1_000)

    def monotonic(self) -> float:
        """Seconds since some fixed moment."""
        return (_BEGINNING + self._passed) / 1e9

    def advance(self, seconds: float) -> None:
        """Let time pass, in one jump; what falls due happens as soon as its loop runs. ValueError for less than 0.

        With a server, mind that a runner whose lease ends in the jump has lost what it held; `LocalServer.advance`
        keeps the runners alive.
        """
        if seconds < 0:
            raise ValueError(f"time does not run back: {seconds}")
        with self._lock:
            self._passed += round(seconds * 1e9)
            due = [wake for wake, at in self._alarms.items() if at <= self._passed]
        for wake in due:
            wake.ring()

    async def sleep(self, seconds: float) -> None:
        """Return when so many seconds were let pass."""
        with self._alarm(seconds) as wake:
            await wake.rung

    async def wait(self, event: asyncio.Event, timeout: float | None) -> None:  # noqa: ASYNC109  # as in Clock
        """Return when `event` is set or `timeout` seconds were let pass; None waits for the event alone."""
        if timeout is None:
            await event.wait()
            return
        with self._alarm(timeout) as wake:
            told = asyncio.ensure_future(event.wait())
            either: set[asyncio.Future[Any]] = {told, wake.rung}
            try:
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            finally:
                told.cancel()
                with suppress(asyncio.CancelledError):
                    await told

    @contextmanager
    def _alarm(self, seconds: float) -> Iterator[Wake]:
        """Have a wake that rings when so many seconds were let pass, for the length of the block."""
        wake = Wake()
        with self._lock:
            at = self._passed + round(seconds * 1e9)
            self._alarms[wake] = at
            due = at <= self._passed
        if due:
            wake.ring()
        try:
            yield wake
        finally:
            with self._lock:
                del self._alarms[wake]
            wake.rung.cancel()
