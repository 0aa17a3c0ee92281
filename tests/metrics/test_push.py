"""The push: an OpenTelemetry collector gets what the page says, every 15 seconds and at the end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from runstream.metrics.publishing import ExtraMissing
from runstream.metrics.push import EVERY_SECONDS
from runstream.server import Server
from runstream.settings import load_settings
from tests.clock import FakeClock
from tests.making import a_running_execution, an_agent, token
from tests.metrics.collector import collecting
from tests.metrics.scrape import scrape
from tests.serving import serving

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = "/runstream.v1.AgentExecutionCommandController"


async def test_a_collector_gets_what_was_counted(tmp_path: Path) -> None:
    """Counters, gauges and distributions arrive with their names, units and labels, as they stand on the page."""
    clock = FakeClock()
    async with (
        collecting() as collector,
        serving(tmp_path / "data", clock, otlp=collector.endpoint, metrics="127.0.0.1:0") as running,
    ):
        await clock.awaited(EVERY_SECONDS)
        execution_id = await a_running_execution(running.client)
        for number in range(1, 5):
            await running.client.executions.UpdateStatus(token(execution_id, "x", number))
        page = await scrape(running.server.metrics_address)
        clock.advance(EVERY_SECONDS)
        pushed = await collector.pushed()
        names = {f"{name}_total" if family.type == "counter" else name for name, family in page.families.items()}
        assert set(pushed.metrics) == {name for name in names if page.families[name.removesuffix("_total")].samples}
        update = f"{COMMANDS}/UpdateStatus"
        assert pushed.number("runstream_calls_total", method=update, code="OK") == 5
        assert pushed.metrics["runstream_calls_total"].sum.is_monotonic
        assert pushed.number("runstream_executions", phase="EXECUTION_IN_PROGRESS") == 1
        assert pushed.metrics["runstream_stored_bytes"].unit == "By"
        assert pushed.resource["service.name"] == "runstream"
        assert pushed.resource["service.instance.id"] == running.server.address


async def test_a_distribution_arrives_as_it_stands_on_the_page(tmp_path: Path) -> None:
    """Each bucket holds its own values alone; bounds, count and sum are those of the page."""
    clock = FakeClock()
    async with (
        collecting() as collector,
        serving(tmp_path / "data", clock, otlp=collector.endpoint, metrics="127.0.0.1:0") as running,
    ):
        await clock.awaited(EVERY_SECONDS)
        for name in ("one", "two", "three"):
            await an_agent(running.client, name)
        page = await scrape(running.server.metrics_address)
        clock.advance(EVERY_SECONDS)
        metric = (await collector.pushed()).metrics["runstream_sync_seconds"]
        (point,) = metric.histogram.data_points
        assert (metric.unit, point.count, sum(point.bucket_counts)) == ("s", 3, 3)
        assert point.sum == page("runstream_sync_seconds_sum")
        up_to = 0
        for bound, number in zip(point.explicit_bounds, point.bucket_counts, strict=False):
            up_to += number
            assert page("runstream_sync_seconds_bucket", le=repr(bound)) == up_to
        assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
        assert point.time_unix_nano - point.start_time_unix_nano == EVERY_SECONDS * 1e9
        assert not point.HasField("min")


async def test_the_last_push_is_made_at_the_end(tmp_path: Path) -> None:
    """What was counted since the last push arrives when the server stops."""
    clock = FakeClock()
    async with collecting() as collector:
        async with serving(tmp_path / "data", clock, otlp=collector.endpoint) as running:
            await an_agent(running.client)
            assert collector.unread == 0
        pushed = await collector.pushed()
        assert pushed.number("runstream_commits_total") == 1
        assert collector.unread == 0


async def test_the_variables_of_open_telemetry_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers and attributes that stand in the environment go with every push."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=blue")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=mine")
    async with collecting() as collector:
        async with serving(tmp_path / "data", FakeClock(), otlp=collector.endpoint):
            pass
        pushed = await collector.pushed()
    assert pushed.metadata["x-team"] == "blue"
    assert pushed.resource["deployment.environment.name"] == "test"
    assert pushed.resource["service.name"] == "mine"


async def test_a_collector_that_is_away_holds_up_nobody(tmp_path: Path) -> None:
    """The server works, and stops, without it."""
    async with collecting() as collector:
        endpoint = collector.endpoint
    clock = FakeClock()
    async with serving(tmp_path / "data", clock, otlp=endpoint) as running:
        await clock.awaited(EVERY_SECONDS)
        clock.advance(EVERY_SECONDS)
        assert await an_agent(running.client)


async def test_without_the_extra_the_start_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal says what to install and how to do without, before the data folder is touched."""
    monkeypatch.setitem(sys.modules, "runstream.metrics.otlp", None)
    settings = load_settings(None, listen="127.0.0.1:0", data=tmp_path / "data", otlp="http://localhost:4317")
    with pytest.raises(ExtraMissing, match=r"runstream\[otlp\] must be installed.*OTEL_METRICS_EXPORTER=none"):
        await Server.start(settings)
    assert not (tmp_path / "data").exists()
