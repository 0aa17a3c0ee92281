"""A collector of OpenTelemetry: a real gRPC server that keeps what is pushed to it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from grpc import aio
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric


class Pushed:
    """One push."""

    def __init__(self, request: ExportMetricsServiceRequest, metadata: dict[str, Any]) -> None:
        (resource,) = request.resource_metrics
        (scope,) = resource.scope_metrics
        self.resource = _attributes(resource.resource)
        self.metrics: dict[str, Metric] = {metric.name: metric for metric in scope.metrics}
        self.metadata = metadata

    def number(self, name: str, **labels: str) -> float:
        """Return the value of a counter or a gauge."""
        metric = self.metrics[name]
        points = metric.sum.data_points if metric.HasField("sum") else metric.gauge.data_points
        (point,) = [point for point in points if _attributes(point) == labels]
        return point.as_double if point.HasField("as_double") else float(point.as_int)


class Collector(MetricsServiceServicer):
    """Takes what is pushed."""

    def __init__(self) -> None:
        self.endpoint = ""
        self._pushed: asyncio.Queue[Pushed] = asyncio.Queue()

    async def Export(  # noqa: N802  # as the protocol names it
        self, request: ExportMetricsServiceRequest, context: aio.ServicerContext[Any, Any]
    ) -> ExportMetricsServiceResponse:
        """Take one push."""
        metadata = {str(key): value for key, value in context.invocation_metadata() or ()}
        self._pushed.put_nowait(Pushed(request, metadata))
        return ExportMetricsServiceResponse()

    async def pushed(self) -> Pushed:
        """Return the next push."""
        async with asyncio.timeout(30):
            return await self._pushed.get()

    @property
    def unread(self) -> int:
        """How many pushes nobody has asked for."""
        return self._pushed.qsize()


def _attributes(of: Any) -> dict[str, str]:  # noqa: ANN401  # of a resource or any point
    return {attribute.key: attribute.value.string_value for attribute in of.attributes}


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Run a collector for the length of the block."""
    collector, server = Collector(), aio.server()
    add_MetricsServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]  # generated
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(0)
