"""Publishing: the ways on which what is measured leaves the server, begun and ended with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from runstream.metrics.page import MetricsPage
from runstream.metrics.push import MetricsPush
from runstream.metrics.reader import Reader

if TYPE_CHECKING:
    from runstream.metrics.families import Sources
    from runstream.model.clock import Clock


class ExtraMissing(Exception):
    """Metrics are to be pushed to ``otlp``, and what does it is not installed.

    Install ``runstream[otlp]``; or, where the endpoint stands in the environment for others, set
    ``OTEL_METRICS_EXPORTER=none``.
    """

    def __init__(self, endpoint: str) -> None:
        super().__init__(
            f"metrics are to be pushed to {endpoint}, for which runstream[otlp] must be installed. Where the endpoint"
            " stands in the environment for other programs, set OTEL_METRICS_EXPORTER=none."
        )


def check_otlp(endpoint: str | None) -> None:
    """Refuse an endpoint that nothing could be pushed to. Raises `ExtraMissing`."""
    if endpoint is None:
        return
    try:
        import runstream.metrics.otlp  # noqa: F401, PLC0415  # an extra, and only loaded where it is asked for
    except ImportError as error:
        raise ExtraMissing(endpoint) from error


class Publishing:
    """Publishes on a page, by pushes, or both."""

    def __init__(self, sources: Sources, clock: Clock) -> None:
        self._reader = Reader(sources)
        self._clock = clock
        self._page: MetricsPage | None = None
        self._push: MetricsPush | None = None
        self._pushing: asyncio.Task[None] | None = None

    async def serve(self, address: str) -> str:
        """Serve the page on an address; return it with the port that was chosen. OSError when it is taken."""
        self._page = MetricsPage(self._reader)
        return await self._page.listen(address)

    def push(self, endpoint: str, instance: str) -> None:
        """Push to a collector from now on, as `instance`; `check_otlp` has been asked."""
        from runstream.metrics.otlp import OtlpExporter  # noqa: PLC0415  # an extra

        begun = round(self._clock.now().timestamp() * 1e9)
        self._push = MetricsPush(self._reader, OtlpExporter(endpoint, instance, begun), self._clock)
        self._pushing = asyncio.create_task(self._push.run(), name="MetricsPush")

    async def stop(self) -> None:
        """Push once more, and close the page. The store must still be open."""
        if self._push is not None and self._pushing is not None:
            self._pushing.cancel()
            await asyncio.gather(self._pushing, return_exceptions=True)
            await self._push.close()
        if self._page is not None:
            await self._page.close()
