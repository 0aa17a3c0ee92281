"""How quickly executions get to a runner, and how many of them one runner takes.

A server on one core; one process with the SDK's runner, and this one with the clients, on the others. Every time is
taken here: from the moment a call is made until a watcher of the execution has the change in hand, so that it holds the
commits, their syncs, and everything on the wire.

- first status: Create is called, until the first change that the runner made is seen.
- cancel: Cancel is called, until the terminal change CANCELLED is seen, reported by the runner.
- trivial executions: Create until its Watch has ended, 64 at a time.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from grpc import aio

from benchmarks.agents import runner
from benchmarks.clients import Clients, by_runner, terminal
from benchmarks.figure import Bound, Figure, Measurement
from benchmarks.resources import CREATE, an_execution, watch
from benchmarks.server_process import cpu_seconds, server
from benchmarks.spread import Spread
from benchmarks.wire import Broken, Call, Connection, Messages
from runstream.v1.agent_execution_pb2 import AgentExecution

if TYPE_CHECKING:
    from benchmarks.figure import Run

_IN_FLIGHT: Final = 64
_WARM: Final = 20


def measure(run: Run) -> Measurement:
    """Measure with one server and one runner."""
    count, trivial = run.of(300, 50), run.of(3_000, 300)
    with server(run.scratch / "dispatch", **run.settings) as target, runner(target.address) as serving:
        first, cancels, agent_id = asyncio.run(_latencies(target.address, count))
        _run(target.address, agent_id, _IN_FLIGHT)
        used, of_runner = target.cpu_seconds, cpu_seconds(serving.pid)
        begun, own = time.perf_counter(), time.process_time()
        _run(target.address, agent_id, trivial)
        took, own = time.perf_counter() - begun, time.process_time() - own
        used, of_runner = target.cpu_seconds - used, cpu_seconds(serving.pid) - of_runner
    return Measurement(
        figures=[
            Figure("Create to first status, p50", first.p50 * 1e3, "ms", 10),
            Figure("  p99", first.p99 * 1e3, "ms"),
            Figure("Cancel to CANCELLED, p50", cancels.p50 * 1e3, "ms"),
            Figure("  p99", cancels.p99 * 1e3, "ms"),
            Figure("trivial executions through one runner", trivial / took, "/s", 1_000, Bound.AT_LEAST),
            Figure("  server CPU per execution", used / trivial * 1e3, "ms"),
            Figure("  runner CPU per execution", of_runner / trivial * 1e3, "ms"),
            Figure("  client CPU per execution", own / trivial * 1e3, "ms"),
        ],
        conditions=f"one SDK runner; {count} latencies, one at a time; {trivial} trivial executions, {_IN_FLIGHT} at a"
        " time, each with a session of its own; runner and client share the load's core",
        spreads={"Create to first status, s": first, "Cancel to CANCELLED, s": cancels},
    )


async def _latencies(address: str, count: int) -> tuple[Spread, Spread, str]:
    async with aio.insecure_channel(address) as channel:
        clients = Clients(channel)
        await clients.find_agents("trivial", "patient")
        await _first_status(clients, _WARM)
        first = Spread.of(await _first_status(clients, count))
        return first, Spread.of(await _cancel(clients, count)), clients.agent("trivial")


async def _first_status(clients: Clients, count: int) -> list[float]:
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        execution_id = await clients.create("patient")
        await clients.seen(execution_id, by_runner)
        times.append(time.perf_counter() - begun)
        await clients.terminate(execution_id)
    return times


async def _cancel(clients: Clients, count: int) -> list[float]:
    times = []
    for _ in range(count):
        execution_id = await clients.create("patient")
        revision = await clients.seen(execution_id, by_runner)
        watching = asyncio.create_task(clients.seen(execution_id, terminal, after=revision))
        await asyncio.sleep(0.01)  # the watch is open
        begun = time.perf_counter()
        await clients.cancel(execution_id)
        await watching
        times.append(time.perf_counter() - begun)
    return times


def _run(address: str, agent_id: str, count: int) -> None:
    """Have so many executions run to their ends, 64 at a time, each watched. `Broken` when one is missing."""
    connection = Connection(address)
    create = Call.to(CREATE, an_execution(agent_id))
    creating = {connection.send(create): Messages() for _ in range(min(count, _IN_FLIGHT))}
    watching: set[int] = set()
    left, seen = count - len(creating), 0
    connection.flush()
    while creating or watching:
        for piece in connection.read():
            if piece.stream in creating:
                for message in creating[piece.stream].take(piece.data):
                    execution_id = AgentExecution.FromString(message).metadata.id
                    watching.add(connection.send(watch(execution_id)))
                if piece.ended:
                    del creating[piece.stream]
            elif piece.ended:
                watching.remove(piece.stream)
                seen += 1
                if left > 0:
                    left -= 1
                    creating[connection.send(create)] = Messages()
        connection.flush()
    connection.close()
    if seen != count:
        raise Broken(f"{count} executions were asked for, {seen} were seen to their ends")
