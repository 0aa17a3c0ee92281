"""List: pages of 50 executions, of 10,000 stored, 100,000 and a million; each filter, first page and deep.

The servers of all sizes run at the same time, on the same core, and are asked in turns, one call at a time. A deep page
begins behind a third of what is stored.
"""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from google.protobuf.timestamp_pb2 import Timestamp

from benchmarks.figure import Figure, Measurement
from benchmarks.population import populate
from benchmarks.resources import LIST
from benchmarks.server_process import server
from benchmarks.spread import Spread
from benchmarks.wire import Call, Connection, answer
from runstream.model.page_tokens import encode
from runstream.services.paging import filter_bytes
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_PENDING,
    AgentExecutionList,
)
from runstream.v1.agent_execution_service_pb2 import ListAgentExecutionsRequest

if TYPE_CHECKING:
    from benchmarks.figure import Run
    from benchmarks.population import Population

_PAGE: Final = 50
#: How often a page is asked for before it counts: what is read for the first time comes from the disk.
_WARM: Final = 5


def measure(run: Run) -> Measurement:
    """Measure every filter at every size."""
    sizes = [10_000, run.of(100_000, 20_000), run.of(1_000_000, 50_000)]
    rounds = run.of(100, 20)
    with ExitStack() as stack:
        asked = []
        for size in sizes:
            population = populate(run.kept, size, run.seed)
            target = stack.enter_context(server(population.data, **run.settings))
            asked.append(_Asked(Connection(target.address), population))
        for each in asked:
            each.begin(_WARM)
        for _ in range(rounds):
            for name in asked[0].pages:
                for each in asked:
                    each.ask(name)
    return _told(sizes, asked, rounds)


class _Asked:
    """A server of one size, the pages it is asked for, and how long it took for each."""

    def __init__(self, connection: Connection, population: Population) -> None:
        self._connection = connection
        self.pages = pages(population)
        self.times: dict[str, list[float]] = {name: [] for name in self.pages}

    def begin(self, times: int) -> None:
        """Ask for every page a few times; RuntimeError for one that is not full."""
        for name, call in self.pages.items():
            page = AgentExecutionList()
            for _ in range(times):
                page.ParseFromString(answer(self._connection, call))
            if len(page.entries) != _PAGE:
                raise RuntimeError(f"the page {name} has {len(page.entries)} entries")

    def ask(self, name: str) -> None:
        begun = time.perf_counter()
        answer(self._connection, self.pages[name])
        self.times[name].append(time.perf_counter() - begun)


def pages(population: Population) -> dict[str, Call]:
    """Return the call for the first and for a deep page of every filter, by name."""
    found = {}
    for name, request in _filters(population).items():
        request.page_size = _PAGE
        found[name] = Call.to(LIST, request)
        request.page_token = encode(filter_bytes(request), population.deep)
        found[f"{name}, deep"] = Call.to(LIST, request)
    return found


def _filters(population: Population) -> dict[str, ListAgentExecutionsRequest]:
    request = ListAgentExecutionsRequest
    common, rare = population.agents["common"], population.agents["rare"]
    team = {"team": "ads"}
    after, before = Timestamp(seconds=population.after), Timestamp(seconds=population.before)
    return {
        "no filter": request(),
        "phase": request(phase=EXECUTION_COMPLETED),
        "phase that few are in": request(phase=EXECUTION_PENDING),
        "two phases": request(phases=[EXECUTION_FAILED, EXECUTION_COMPLETED]),
        "agent": request(agent_id=common),
        "agent of few": request(agent_id=rare),
        "session": request(session_id=population.session),
        "tag": request(tags=["nightly"]),
        "two tags": request(tags=["nightly", "survey"]),
        "label": request(labels=team),
        "organization": request(org="small"),
        "time of creation": request(created_after=after, created_before=before),
        "agent, phase and label": request(agent_id=common, phase=EXECUTION_FAILED, labels=team),
        "agent and phase of few": request(agent_id=common, phase=EXECUTION_PENDING),
    }


def _told(sizes: list[int], asked: list[_Asked], rounds: int) -> Measurement:
    least, most = asked[0], asked[-1]
    middle = {name: statistics.median(times) for name, times in most.times.items()}
    slowest = max(middle, key=lambda name: middle[name])
    ratios = {
        name: statistics.median(one / other for one, other in zip(most.times[name], least.times[name], strict=True))
        for name in middle
    }
    worst = max(ratios, key=lambda name: ratios[name])
    return Measurement(
        figures=[
            Figure(
                f"List page of {_PAGE} of {sizes[-1]:,}, p50, slowest filter ({slowest})",
                middle[slowest] * 1e3,
                "ms",
                3,
            ),
            Figure(f"List page, {sizes[-1]:,} / {sizes[0]:,}, worst filter ({worst})", ratios[worst], target=1.3),
            Figure("  median over all filters, p50", statistics.median(middle.values()) * 1e3, "ms"),
            Figure("  median over all filters, ratio", statistics.median(ratios.values())),
        ],
        conditions=f"{len(middle) // 2} filters, first page and one behind a third of all; {rounds} rounds, sizes in"
        " turns",
        spreads={
            f"{name}, {size} stored, s": Spread.of(each.times[name])
            for name in middle
            for size, each in zip(sizes, asked, strict=True)
        },
        seen={"ratios": ratios},
    )
