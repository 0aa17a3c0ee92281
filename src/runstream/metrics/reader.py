"""The reader: everything that is measured, as it is now."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from prometheus_client import ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric

from runstream.metrics.families import read

if TYPE_CHECKING:
    from runstream.metrics.families import Sources


class Reader:
    """Reads the rooms of a server and its process. The one source of the page and of what is pushed."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._process = ProcessCollector(registry=None)

    async def read(self) -> list[Metric]:
        """Read everything, the rooms in one turn of the event loop: what they say fits together."""
        begun = time.perf_counter()
        await asyncio.sleep(0)
        turn = GaugeMetricFamily(
            "runstream_loop_turn_seconds",
            "How long the event loop took to come round.",
            value=time.perf_counter() - begun,
        )
        return [turn, *read(self._sources), *self._process.collect()]
