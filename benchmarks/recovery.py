"""How long an execution stands still when the runner that holds it is killed with SIGKILL.

A successor stands by. The time is taken from the kill until a watcher has the first change that the successor made; it
is made of the lease, which has to run out, and the backoff.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from grpc import aio

from benchmarks.agents import runner
from benchmarks.clients import Clients, by_runner
from benchmarks.figure import Figure, Measurement
from benchmarks.server_process import server
from benchmarks.spread import Spread

if TYPE_CHECKING:
    from benchmarks.figure import Run

_LEASE_SECONDS: Final = 1.5
_BACKOFF_SECONDS: Final = 0.1
_HELD: Final = 8
_STAND_BY_SECONDS: Final = 1.0


def measure(run: Run) -> Measurement:
    """Kill runners, one after the other."""
    kills = run.of(10, 2)
    settings = {**run.settings, "lease_duration": _LEASE_SECONDS, "retry_backoff": _BACKOFF_SECONDS}
    with server(run.scratch / "recovery", **settings) as target:
        times = Spread.of(asyncio.run(_recovery(target.address, kills)))
    return Measurement(
        figures=[
            Figure("kill -9 of a runner to the next attempt's first status, p50", times.p50, "s"),
            Figure("  p99, of one lease and backoff", times.p99 / (_LEASE_SECONDS + _BACKOFF_SECONDS), "", 1),
        ],
        conditions=f"{kills} kills, {_HELD} executions held at each; lease {_LEASE_SECONDS:g} s, backoff"
        f" {_BACKOFF_SECONDS:g} s with jitter (by default 15 s and 1 s)",
        spreads={"recovery, s": times},
    )


async def _recovery(address: str, kills: int) -> list[float]:
    """Kill the runner that holds executions; return the times until each goes on elsewhere."""
    times: list[float] = []
    async with aio.insecure_channel(address) as channel:
        clients = Clients(channel)
        for _ in range(kills):
            with ExitStack() as processes:
                first = processes.enter_context(runner(address))
                await clients.find_agents("patient")
                ids = [await clients.create("patient") for _ in range(_HELD)]
                revisions = [await clients.seen(execution_id, by_runner) for execution_id in ids]
                processes.enter_context(runner(address))
                await asyncio.sleep(_STAND_BY_SECONDS)
                begun = time.perf_counter()
                first.kill()
                waits = [_until(clients, each, after, begun) for each, after in zip(ids, revisions, strict=True)]
                times += await asyncio.gather(*waits)
                for execution_id in ids:
                    await clients.terminate(execution_id)
    return times


async def _until(clients: Clients, execution_id: str, after: int, begun: float) -> float:
    await clients.seen(execution_id, by_runner, after=after)
    return time.perf_counter() - begun
