"""Durable UpdateStatus calls per second, next to calls that do nothing.

Each call streams a piece of text, 512 bytes on the wire, to an execution of its own, and is answered without the lists
(BASIC). The no-op is the same engine in a server with nothing behind it, on the same core; the health check of the
measured server is told beside it. All run in turns, in one run, from one process.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from benchmarks.figure import Bound, Figure, Measurement
from benchmarks.noop import NOOP, noop_server
from benchmarks.resources import Resources, text
from benchmarks.server_process import CHECK, server
from benchmarks.turns import Turns

if TYPE_CHECKING:
    from benchmarks.figure import Run

_BYTES: Final = 512
_IN_FLIGHT: Final = 64
#: How much of the no-op's rate is to be reached, by engine.
_SHARE: Final = {"grpcio": 0.8, "native": 0.5}
_NATIVE_RATE: Final = 15_000
_FIRST_REVISION: Final = 2


def measure(run: Run) -> Measurement:
    """Measure both rates at 64 calls in flight and at one. RuntimeError when an acknowledged update is not there."""
    rounds, calls = run.of(5, 3), run.of(12_000, 2_000)
    with ExitStack() as stack:
        target = stack.enter_context(server(run.scratch / "update-status", **run.settings))
        noop = stack.enter_context(noop_server(run.engine))
        resources = stack.enter_context(Resources(target.address))
        agent_id = resources.agent()
        ids = [resources.at_work(agent_id) for _ in range(_IN_FLIGHT)]
        turns = {}
        for in_flight, share in ((_IN_FLIGHT, 1), (1, 6)):
            updates = [text(execution_id, _BYTES) for execution_id in ids[:in_flight]]
            ways = {
                "no-op": (noop, [NOOP] * in_flight),
                "health check": (target, [CHECK] * in_flight),
                "UpdateStatus": (target, updates),
            }
            turns[in_flight] = Turns(ways)
            turns[in_flight].run(rounds, calls // share)
        _check(resources, ids, sum(each.made["UpdateStatus"] for each in turns.values()))
    return _told(run, turns[_IN_FLIGHT], turns[1])


def _check(resources: Resources, ids: list[str], sent: int) -> None:
    """See that every update that was acknowledged is in a log."""
    there = sum(resources.revision(execution_id) - _FIRST_REVISION for execution_id in ids)
    if there != sent:
        raise RuntimeError(f"{sent} updates were acknowledged, {there} are there")


def _told(run: Run, many: Turns, one: Turns) -> Measurement:
    native_rate = _NATIVE_RATE if run.engine == "native" else None
    return Measurement(
        figures=[
            Figure(
                "durable UpdateStatus / no-op, 64 in flight",
                many.ratio("UpdateStatus", "no-op"),
                target=_SHARE[run.engine],
                bound=Bound.AT_LEAST,
            ),
            Figure("durable UpdateStatus, 64 in flight", many.rate("UpdateStatus"), "/s", native_rate, Bound.AT_LEAST),
            Figure("  no-op of the engine alone", many.rate("no-op"), "/s"),
            Figure("  health check of the same server", many.rate("health check"), "/s"),
            Figure("  server CPU per update", many.middle("UpdateStatus").cpu * 1e6, "us"),
            Figure("durable UpdateStatus, 1 in flight", one.rate("UpdateStatus"), "/s"),
            Figure("  p50", one.middle("UpdateStatus").latency.p50 * 1e3, "ms"),
            Figure("  / no-op, 1 in flight", one.ratio("UpdateStatus", "no-op")),
        ],
        conditions=f"{_BYTES} B requests, BASIC answers, one execution per call in flight, 8 connections; the no-op is"
        " the engine in a process with nothing behind it; all revisions counted afterwards",
        spreads=many.spreads("64 in flight") | one.spreads("1 in flight"),
        seen=many.seen("64 in flight") | one.seen("1 in flight"),
    )
