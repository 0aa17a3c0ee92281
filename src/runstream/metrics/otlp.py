"""OTLP: the same metrics in the form of OpenTelemetry, and what sends them. Needs the extra ``runstream[otlp]``."""

from __future__ import annotations

from importlib.metadata import version
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric as Family
    from prometheus_client.samples import Sample

#: How long one push may take, in seconds, with all its tries.
TIMEOUT: Final = 5.0
_UNITS: Final = {"seconds": "s", "bytes": "By"}
_SINCE_THE_START: Final = AggregationTemporality.CUMULATIVE


class OtlpExporter:
    """Sends metrics to a collector. TLS, headers and compression are set by the variables of OpenTelemetry."""

    def __init__(self, endpoint: str, instance: str, begun_ns: int) -> None:
        """Take the collector's URL, the name of this server among others, and when its counts began."""
        named = Resource(
            {"service.name": "runstream", "service.version": version("runstream"), "service.instance.id": instance}
        )
        self._resource = named.merge(OTELResourceDetector().detect())
        self._begun_ns = begun_ns
        self._exporter = OTLPMetricExporter(endpoint=endpoint, timeout=TIMEOUT)

    def send(self, families: Iterable[Family], now_ns: int) -> bool:
        """Send what was read; tell whether the collector took it. Blocks for as long as `TIMEOUT`."""
        metrics = [_metric(family, self._begun_ns, now_ns) for family in families if family.samples]
        scope = ScopeMetrics(InstrumentationScope("runstream"), metrics, "")
        data = MetricsData([ResourceMetrics(self._resource, [scope], "")])
        return self._exporter.export(data) is MetricExportResult.SUCCESS

    def close(self) -> None:
        """Send nothing more; what is under way is given up."""
        self._exporter.shutdown()


def _metric(family: Family, begun_ns: int, now_ns: int) -> Metric:
    """Make the metric of a family, under the name that its samples have on the page."""
    data: Sum | Gauge | Histogram
    if family.type == "histogram":
        data = Histogram(_histograms(family.samples, begun_ns, now_ns), _SINCE_THE_START)
    else:
        points = [NumberDataPoint(sample.labels, begun_ns, now_ns, sample.value) for sample in family.samples]
        is_counter = family.type == "counter"
        data = Sum(points, _SINCE_THE_START, is_monotonic=True) if is_counter else Gauge(points)
    name = family.name + ("_total" if family.type == "counter" else "")
    unit = _UNITS.get(family.name.rpartition("_")[2], "1")
    return Metric(name, family.documentation, unit, data)


def _histograms(samples: Iterable[Sample], begun_ns: int, now_ns: int) -> list[HistogramDataPoint]:
    """Make a point for each set of labels: of its buckets, in ascending order, and its sum, which comes last."""
    points: list[HistogramDataPoint] = []
    buckets: list[tuple[float, int]] = []
    for sample in samples:
        if sample.name.endswith("_bucket"):
            buckets.append((float(sample.labels["le"]), int(sample.value)))
        elif sample.name.endswith("_sum"):
            bounds, up_to = zip(*buckets, strict=True)
            apart = [up_to[0], *(number - before for before, number in pairwise(up_to))]
            unknown = cast("Any", None)  # the least and the greatest value are not kept
            points.append(
                HistogramDataPoint(
                    *(sample.labels, begun_ns, now_ns, up_to[-1], sample.value, apart, bounds[:-1], unknown, unknown)
                )
            )
            buckets = []
    return points
