"""Durable Create calls: executions of an agent that has its instance, so that each makes a session and an execution."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from benchmarks.figure import Bound, Figure, Measurement
from benchmarks.noop import NOOP, noop_server
from benchmarks.resources import CREATE, Resources, an_execution
from benchmarks.server_process import server
from benchmarks.turns import Turns
from benchmarks.wire import Call

if TYPE_CHECKING:
    from benchmarks.figure import Run

_IN_FLIGHT: Final = 64


def measure(run: Run) -> Measurement:
    """Measure at one call in flight and at 64, next to calls that do nothing."""
    rounds, calls = run.of(5, 3), run.of(6_000, 1_000)
    with ExitStack() as stack:
        target = stack.enter_context(server(run.scratch / "create", **run.settings))
        noop = stack.enter_context(noop_server(run.engine))
        resources = stack.enter_context(Resources(target.address))
        agent_id = resources.agent()
        resources.pending(agent_id)  # makes the instance
        create = Call.to(CREATE, an_execution(agent_id))
        many = Turns({"no-op": (noop, [NOOP] * _IN_FLIGHT), "Create": (target, [create] * _IN_FLIGHT)})
        many.run(rounds, calls)
        one = Turns({"no-op": (noop, [NOOP]), "Create": (target, [create])})
        one.run(rounds, calls // 6)
    single, at_once = one.middle("Create").latency, many.middle("Create").latency
    return Measurement(
        figures=[
            Figure("durable Create, 1 in flight, p50", single.p50 * 1e3, "ms"),
            Figure("durable Create, 1 in flight, p99", single.p99 * 1e3, "ms", 5),
            Figure("durable Create, 64 in flight, p50", at_once.p50 * 1e3, "ms"),
            Figure("durable Create, 64 in flight, p99", at_once.p99 * 1e3, "ms"),
            Figure("durable Create, 64 in flight", many.rate("Create"), "/s"),
            Figure(
                "durable Create / no-op, 64 in flight", many.ratio("Create", "no-op"), target=0.4, bound=Bound.AT_LEAST
            ),
        ],
        conditions="one agent with its instance; each call makes a session and an execution, PENDING; no runner",
        spreads=many.spreads("64 in flight") | one.spreads("1 in flight"),
        seen=many.seen("64 in flight") | one.seen("1 in flight"),
    )
