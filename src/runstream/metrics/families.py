"""Families: what the rooms have counted, as metrics of Prometheus.

Labels take few values: methods, codes, steps, phases. Each function reads one room, in one turn of the event loop.
"""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from runstream.dispatch.dispatcher import Dispatcher
    from runstream.dispatch.housekeeping import Purger
    from runstream.feed.hub import Hub
    from runstream.metrics.phase_counts import PhaseCounts
    from runstream.model.distribution import Distribution
    from runstream.pipeline.timing import StepTimes
    from runstream.storage.folds import Folds
    from runstream.storage.store import Store
    from runstream.transport.methods import Method

#: Values by the values of the labels.
_Values: TypeAlias = "Iterable[tuple[tuple[str, ...], float]]"


@dataclass(frozen=True, slots=True)
class Sources:
    """The rooms of a server, as far as they count."""

    methods: Sequence[Method]
    steps: StepTimes
    store: Store
    folds: Folds
    hub: Hub
    dispatcher: Dispatcher
    phases: PhaseCounts
    purger: Purger
    #: The data folder.
    data: Path


def read(sources: Sources) -> Iterator[Metric]:
    """Read everything that is counted."""
    running = {"version": version("runstream"), "python": platform.python_version()}
    yield _gauge("runstream_build_info", "What is running.", running, 1)
    yield from calls(sources.methods)
    yield from steps(sources.steps)
    yield from writes(sources.store, sources.data)
    yield from streams(sources.methods, sources.hub)
    yield from dispatch(sources.dispatcher)
    yield from executions(sources.phases, sources.purger)
    yield from folds(sources.folds)


def calls(methods: Iterable[Method]) -> Iterator[Metric]:
    """Read what the gate has counted."""
    called = [(method.path, method.stream is not None, method.counts) for method in methods]
    called = [(path, streams, counts) for path, streams, counts in called if counts.open or counts.ended]
    ended = (((path, code), number) for path, _, counts in called for code, number in counts.ended.items())
    yield _counter("runstream_calls_total", "Calls that have ended, streams too.", ("method", "code"), ended)
    seconds = HistogramMetricFamily(
        "runstream_call_seconds", "From request to answer, in the server; without streams.", labels=("method",)
    )
    for path, is_stream, counts in called:
        if not is_stream:
            _add(seconds, (path,), counts.seconds)
    yield seconds
    running = (((path,), counts.open) for path, is_stream, counts in called if not is_stream)
    yield _gauges("runstream_calls_in_flight", "Calls that wait for their answer.", ("method",), running)
    bytes_in = (((path,), counts.bytes_in) for path, _, counts in called)
    yield _counter("runstream_request_bytes_total", "Bytes of requests.", ("method",), bytes_in)
    bytes_out = (((path,), counts.bytes_out) for path, _, counts in called)
    yield _counter("runstream_response_bytes_total", "Bytes of answers.", ("method",), bytes_out)


def steps(times: StepTimes) -> Iterator[Metric]:
    """Read how long the steps of commands took."""
    labels, totals = ("command", "step"), times.totals()
    runs = ((key, entry.runs) for key, entry in totals.items())
    yield _counter("runstream_step_runs_total", "Runs of the steps of commands.", labels, runs)
    seconds = ((key, entry.seconds) for key, entry in totals.items())
    yield _counter("runstream_step_seconds_total", "Seconds that the steps took, waiting included.", labels, seconds)


def writes(store: Store, data: Path) -> Iterator[Metric]:
    """Read what the writer has counted, and what there is room for."""
    counts = store.write_counts
    yield _total("runstream_commits_total", "Transactions on disk.", counts.commits)
    yield _total("runstream_commit_bytes_total", "Bytes of keys and values on disk, before compaction.", counts.bytes)
    yield _histogram("runstream_batch_transactions", "Transactions that were synced together.", counts.batches)
    yield _histogram("runstream_sync_seconds", "How long a batch took to be written and synced.", counts.seconds)
    yield _total("runstream_write_failures_total", "Batches that did not get to disk.", counts.failures)
    yield _total("runstream_write_recoveries_total", "Times that the disk took writes again.", counts.recoveries)
    yield _gauge("runstream_keys_in_flight", "Keys on their way to disk.", {}, store.keys_in_flight)
    yield _gauge("runstream_stored_bytes", "About how much the database takes on disk.", {}, store.stored_bytes)
    free = shutil.disk_usage(data).free
    yield _gauge("runstream_disk_free_bytes", "What is free on the disk of the data folder.", {}, free)


def streams(methods: Iterable[Method], hub: Hub) -> Iterator[Metric]:
    """Read how many follow, and how far behind they are."""
    streaming = [method for method in methods if method.stream is not None]
    open_now = (((method.path,), method.counts.open) for method in streaming)
    yield _gauges("runstream_streams_open", "Open streams.", ("method",), open_now)
    messages = (((method.path,), method.counts.messages) for method in streaming)
    yield _counter("runstream_stream_messages_total", "Answers that streams were given.", ("method",), messages)
    yield _total("runstream_stream_wakes_total", "Wakes of streams that follow executions.", hub.wakes)
    lag = "How many commits a stream was behind when it came back to read."
    yield _histogram("runstream_stream_lag_revisions", lag, hub.lag)
    slowest = "How many commits the slowest stream has not come to read."
    yield _gauge("runstream_stream_lag_slowest_revisions", slowest, {}, hub.slowest)


def dispatch(dispatcher: Dispatcher) -> Iterator[Metric]:
    """Read the queue, the runners and their leases."""
    delayed, counts = dispatcher.delayed, dispatcher.counts
    queued = ((("waiting",), dispatcher.queued - delayed), (("delayed",), delayed))
    yield _gauges("runstream_queue_executions", "Executions that wait for a runner.", ("state",), queued)
    oldest = "How long the execution that waits longest has been queued."
    yield _gauge("runstream_queue_oldest_seconds", oldest, {}, dispatcher.longest_wait)
    runners = list(dispatcher.runners)
    attached = [runner.stream for runner in runners if runner.stream is not None]
    yield _gauge("runstream_runners_attached", "Runners with an open stream.", {}, len(attached))
    capacity = sum(stream.capacity for stream in attached)
    yield _gauge("runstream_runner_capacity", "Places that attached runners offer.", {}, capacity)
    free = sum(max(runner.places, 0) for runner in runners)
    yield _gauge("runstream_runner_places_free", "Places that are free.", {}, free)
    held = sum(len(runner.held) for runner in runners)
    yield _gauge("runstream_leases_held", "Executions that runners hold.", {}, held)
    moved = ((("assigned",), counts.assigned), (("returned",), counts.returned), (("lost",), counts.lost))
    yield _counter("runstream_leases_total", "Leases that began, were given back, were lost.", ("step",), moved)
    yield _total("runstream_runners_lost_total", "Runners that were lost with what they held.", counts.runners_lost)


def executions(phases: PhaseCounts, purger: Purger) -> Iterator[Metric]:
    """Read how many executions there are, as far as they live."""
    yield _gauges("runstream_executions", "Executions that have not ended.", ("phase",), _by_label(phases.live))
    entered = "Executions that came into a phase; PENDING when they are created or queued again."
    yield _counter("runstream_executions_entered_total", entered, ("phase",), _by_label(phases.entered))
    waiting = "Deleted executions whose log is still on disk."
    yield _gauge("runstream_purges_waiting", waiting, {}, purger.waiting)


def folds(kept: Folds) -> Iterator[Metric]:
    """Read the cache of folded states."""
    yield _gauge("runstream_fold_cache_bytes", "States kept in memory, as serialized.", {}, kept.cached_bytes)
    yield _gauge("runstream_fold_cache_executions", "Executions whose state is kept.", {}, kept.cached)
    yield _total("runstream_fold_cache_hits_total", "Folds that went on from a kept state.", kept.hits)
    yield _total("runstream_fold_cache_misses_total", "Folds that began with what is on disk.", kept.misses)
    yield _gauge("runstream_snapshots_under_way", "Snapshots being made.", {}, kept.snapshots_under_way)


def _by_label(numbers: Mapping[str, int]) -> _Values:
    return (((name,), number) for name, number in numbers.items())


def _total(name: str, told: str, value: float) -> Metric:
    return CounterMetricFamily(name, told, value=value)


def _counter(name: str, told: str, labels: Sequence[str], values: _Values) -> Metric:
    family = CounterMetricFamily(name, told, labels=labels)
    for names, value in values:
        family.add_metric(names, value)
    return family


def _gauge(name: str, told: str, labels: Mapping[str, str], value: float) -> Metric:
    return _gauges(name, told, tuple(labels), [(tuple(labels.values()), value)])


def _gauges(name: str, told: str, labels: Sequence[str], values: _Values) -> Metric:
    family = GaugeMetricFamily(name, told, labels=labels)
    for names, value in values:
        family.add_metric(names, value)
    return family


def _histogram(name: str, told: str, values: Distribution) -> Metric:
    family = HistogramMetricFamily(name, told, labels=())
    _add(family, (), values)
    return family


def _add(family: HistogramMetricFamily, labels: Sequence[str], values: Distribution) -> None:
    names = [*(repr(float(bound)) for bound in values.bounds), "+Inf"]
    family.add_metric(labels, list(zip(names, accumulate(values.counts), strict=True)), values.sum)
