"""The push: what is measured goes to an OpenTelemetry collector, again and again, and once more at the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

    from runstream.metrics.reader import Reader
    from runstream.model.clock import Clock

_LOG = structlog.get_logger(__name__)
EVERY_SECONDS: Final = 15.0
#: How long the last push may hold up the end of the server.
LAST_SECONDS: Final = 2.0


class Exporter(Protocol):
    """Sends metrics away."""

    def send(self, families: Iterable[Metric], now_ns: int) -> bool:
        """Send what was read; tell whether it was taken. Blocks."""
        ...

    def close(self) -> None:
        """Send nothing more; what is under way is given up."""
        ...


class MetricsPush:
    """Pushes what a reader reads, in a thread. A collector that is away costs the server nothing but log lines."""

    def __init__(self, reader: Reader, exporter: Exporter, clock: Clock) -> None:
        self._reader = reader
        self._exporter = exporter
        self._clock = clock
        self._never = asyncio.Event()

    async def run(self) -> None:
        """Push every 15 seconds; until cancelled."""
        while True:
            await self._clock.wait(self._never, EVERY_SECONDS)
            await self._push()

    async def close(self) -> None:
        """Push what was counted since, if the collector takes it soon; then no more."""
        try:
            async with asyncio.timeout(LAST_SECONDS):
                await self._push()
        except TimeoutError:
            _LOG.warning("push_failed", told="the last one took too long")
        await asyncio.to_thread(self._exporter.close)

    async def _push(self) -> None:
        now = self._clock.now()
        try:
            families = await self._reader.read()
            taken = await asyncio.to_thread(self._exporter.send, families, round(now.timestamp() * 1e9))
        except Exception:  # noqa: BLE001  # whatever it was, the next one must get its turn
            _LOG.exception("push_failed")
            return
        if not taken:
            _LOG.warning("push_failed", told="the collector did not take the metrics")
