"""How quickly runners get work, hear of a cancel, and are replaced when they die.

A server on one core; one process with the SDK's runner, and this one with the clients, on the others. Every time is
taken here: from the moment a call is made until a watcher of the execution has the change in hand, so that it holds the
commits, their syncs, and everything on the wire.

- first status: Create is called, until the first change that the runner made is seen.
- cancel: Cancel is called, until the terminal change CANCELLED is seen, reported by the runner.
- recovery: the runner is killed with SIGKILL, until the first change that its successor made is seen; the successor
  stands by. Told also as a share of one lease, which is what the time is made of.
- trivial executions: Create to the terminal change, 64 at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from grpc import aio

from benchmarks.processes import conditions, cores, runner, server
from runstream.v1.agent_execution_pb2 import CHANGE_AUTHOR_RUNNER, AgentExecution, ExecutionChange
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    TerminateAgentExecutionInput,
    WatchAgentExecutionRequest,
)
from runstream.v1.agent_execution_service_pb2_grpc import (
    AgentExecutionCommandControllerStub,
    AgentExecutionQueryControllerStub,
)
from runstream.v1.agent_service_pb2_grpc import AgentQueryControllerStub
from runstream.v1.resource_pb2 import API_RESOURCE_KIND_AGENT, ResourceReference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_LEASE_SECONDS = 1.5
_BACKOFF_SECONDS = 0.1
_PATIENCE_SECONDS = 60.0


class Clients:
    """What the measurements call."""

    def __init__(self, channel: aio.Channel) -> None:
        self._channel = channel
        self._commands = AgentExecutionCommandControllerStub(channel)
        self._queries = AgentExecutionQueryControllerStub(channel)
        self._agents: dict[str, str] = {}

    async def find_agents(self, *slugs: str) -> None:
        """Wait until the runner has registered its agents."""
        stub = AgentQueryControllerStub(self._channel)
        for slug in slugs:
            reference = ResourceReference(kind=API_RESOURCE_KIND_AGENT, slug=slug)
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while slug not in self._agents:
                    try:
                        self._agents[slug] = (await stub.GetByReference(reference)).metadata.id
                    except aio.AioRpcError:
                        await asyncio.sleep(0.05)

    async def create(self, slug: str) -> str:
        """Create an execution; return its id."""
        request = AgentExecution()
        request.spec.agent_id = self._agents[slug]
        request.spec.message = "measure"
        return (await self._commands.Create(request)).metadata.id

    async def seen(self, execution_id: str, wanted: Callable[[ExecutionChange], bool], after: int = 0) -> int:
        """Watch until a change that is wanted is here; return its revision."""
        request = WatchAgentExecutionRequest(execution_id=execution_id, after_revision=after)
        watch = self._queries.Watch(request)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                async for change in watch:
                    if wanted(change):
                        return change.revision
        finally:
            watch.cancel()
        raise RuntimeError(f"{execution_id} ended before what was awaited")

    async def cancel(self, execution_id: str) -> None:
        """Ask for an end."""
        await self._commands.Cancel(CancelAgentExecutionInput(id=execution_id))

    async def terminate(self, execution_id: str) -> None:
        """End at once."""
        await self._commands.Terminate(TerminateAgentExecutionInput(id=execution_id))


def _by_runner(change: ExecutionChange) -> bool:
    return change.author == CHANGE_AUTHOR_RUNNER


def _terminal(change: ExecutionChange) -> bool:
    return change.terminal


async def _first_status(clients: Clients, count: int) -> list[float]:
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        execution_id = await clients.create("patient")
        await clients.seen(execution_id, _by_runner)
        times.append(time.perf_counter() - begun)
        await clients.terminate(execution_id)
    return times


async def _cancel(clients: Clients, count: int) -> list[float]:
    times = []
    for _ in range(count):
        execution_id = await clients.create("patient")
        revision = await clients.seen(execution_id, _by_runner)
        watching = asyncio.create_task(clients.seen(execution_id, _terminal, after=revision))
        await asyncio.sleep(0.01)  # the watch is open
        begun = time.perf_counter()
        await clients.cancel(execution_id)
        await watching
        times.append(time.perf_counter() - begun)
    return times


async def _trivial(clients: Clients, count: int, in_flight: int) -> float:
    """Return how many trivial executions per second there were."""
    left = iter(range(count))

    async def caller() -> None:
        for _ in left:
            await clients.seen(await clients.create("trivial"), _terminal)

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return count / (time.perf_counter() - begun)


async def _recovery(address: str, kills: int, held: int) -> list[float]:
    """Kill the runner that holds executions; return the times until each goes on elsewhere."""
    times: list[float] = []
    async with aio.insecure_channel(address) as channel:
        clients = Clients(channel)
        for _ in range(kills):
            with ExitStack() as processes:
                first = processes.enter_context(runner(address))
                await clients.find_agents("patient")
                ids = [await clients.create("patient") for _ in range(held)]
                revisions = [await clients.seen(execution_id, _by_runner) for execution_id in ids]
                processes.enter_context(runner(address))
                await asyncio.sleep(1.0)  # the successor stands by
                begun = time.perf_counter()
                first.kill()
                waits = [_until(clients, each, after, begun) for each, after in zip(ids, revisions, strict=True)]
                times += await asyncio.gather(*waits)
                for execution_id in ids:
                    await clients.terminate(execution_id)
    return times


async def _until(clients: Clients, execution_id: str, after: int, begun: float) -> float:
    await clients.seen(execution_id, _by_runner, after=after)
    return time.perf_counter() - begun


def _told(name: str, times: Iterable[float], unit: float = 1e3) -> str:
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"  {name:<34}{statistics.median(ordered) * unit:10.1f}{p99 * unit:10.1f}{len(ordered):10}"


async def _measure_latencies(address: str, given: argparse.Namespace) -> None:
    async with aio.insecure_channel(address) as channel:
        clients = Clients(channel)
        await clients.find_agents("trivial", "patient")
        await _first_status(clients, 20)  # everything is warm
        print(_told("Create to first status, ms", await _first_status(clients, given.count)))
        print(_told("Cancel to CANCELLED, ms", await _cancel(clients, given.count)))
        rate = await _trivial(clients, given.count * 5, given.in_flight)
        print(f"  trivial executions per second, {given.in_flight} at a time: {rate:.0f}")


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--count", type=int, default=300, help="samples of each latency (default 300)")
    options.add_argument("--in-flight", type=int, default=64, help="trivial executions at a time (default 64)")
    options.add_argument("--kills", type=int, default=10, help="runners killed (default 10)")
    options.add_argument("--held", type=int, default=8, help="executions that each of them holds (default 8)")
    given, _ = options.parse_known_args()
    os.sched_setaffinity(0, cores()[1])
    print(f"machine: {conditions()}")
    print(f"server on core {cores()[0]}; runner and clients on {cores()[1]}; every commit synced; grpcio engine\n")
    print(f"  {'':<34}{'p50':>10}{'p99':>10}{'samples':>10}")
    with tempfile.TemporaryDirectory() as folder:
        with server(Path(folder) / "data") as target, runner(target.address):
            asyncio.run(_measure_latencies(target.address, given))
        settings = {"lease_duration": _LEASE_SECONDS, "retry_backoff": _BACKOFF_SECONDS}
        with server(Path(folder) / "recovery", **settings) as target:
            times = asyncio.run(_recovery(target.address, given.kills, given.held))
    print(_told("kill -9 to next attempt, ms", times))
    print(_told(f"  as a share of the {_LEASE_SECONDS:g} s lease, %", [each / _LEASE_SECONDS for each in times], 100))
    print(f"  (backoff {_BACKOFF_SECONDS:g} s with jitter; the default lease is 15 s, the default backoff 1 s)\n")


if __name__ == "__main__":
    main()
