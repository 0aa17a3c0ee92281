"""Durable UpdateStatus calls per second, next to no-op calls of the same server.

The delta streams a piece of text, 512 bytes on the wire, and is answered without the lists (BASIC). The no-op is the
health check of the same server: it crosses the same engine and touches neither gate nor store. Both run in turns, in
one run, with the same load processes; the ratio is what counts on a noisy machine.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from grpc import aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from benchmarks.processes import conditions, cores, server
from runstream.v1.agent_execution_pb2 import EXECUTION_IN_PROGRESS, AgentExecution
from runstream.v1.agent_execution_service_pb2 import AgentExecutionUpdateStatusInput
from runstream.v1.agent_execution_service_pb2_grpc import AgentExecutionCommandControllerStub
from runstream.v1.agent_pb2 import Agent
from runstream.v1.agent_service_pb2_grpc import AgentCommandControllerStub
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from multiprocessing.synchronize import Barrier

    from benchmarks.processes import ServerProcess

_DELTA_BYTES = 512


@dataclass(frozen=True, slots=True)
class Load:
    """What one load process does: which call, how many callers, each how many calls."""

    address: str
    noop: bool
    callers: int
    calls: int


@dataclass(frozen=True, slots=True)
class Result:
    """Calls per second, and how the server spent its time."""

    rate: float
    cpu_share: float
    cpu_us_per_call: float


async def _prepare(address: str, callers: int) -> list[str]:
    """Create one running execution for each caller."""
    async with aio.insecure_channel(address) as channel:
        agent = Agent()
        agent.metadata.name = "load"
        made = await AgentCommandControllerStub(channel).Apply(agent)
        executions = AgentExecutionCommandControllerStub(channel)
        ids = []
        for _ in range(callers):
            request = AgentExecution()
            request.spec.agent_id = made.metadata.id
            request.spec.message = "measure"
            execution = await executions.Create(request)
            start = AgentExecutionUpdateStatusInput(execution_id=execution.metadata.id)
            start.status.phase = EXECUTION_IN_PROGRESS
            await executions.UpdateStatus(start)
            ids.append(execution.metadata.id)
        return ids


def _delta(execution_id: str) -> AgentExecutionUpdateStatusInput:
    """One piece of text; the whole request is 512 bytes."""
    request = AgentExecutionUpdateStatusInput(execution_id=execution_id, view=RESOURCE_VIEW_BASIC)
    message = request.status.messages.add(id="answer")
    message.content_append = "x"
    message.content_append = "x" * (_DELTA_BYTES - request.ByteSize() - 2)
    return request


async def _run(load: Load, begin: Callable[[], object]) -> None:
    ids = [] if load.noop else await _prepare(load.address, load.callers)
    async with aio.insecure_channel(load.address) as channel:
        noop = partial(_check_call(channel), HealthCheckRequest())
        update = AgentExecutionCommandControllerStub(channel).UpdateStatus
        await noop()
        calls: list[Callable[[], Awaitable[object]]] = (
            [noop] * load.callers if load.noop else [partial(update, _delta(i)) for i in ids]
        )
        begin()
        await asyncio.gather(*(_repeat(call, load.calls) for call in calls))


def _check_call(channel: aio.Channel) -> Callable[[HealthCheckRequest], Awaitable[object]]:
    return channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )


async def _repeat(make: Callable[[], Awaitable[object]], calls: int) -> None:
    for _ in range(calls):
        await make()


def _process(load: Load, barrier: Barrier) -> None:
    os.sched_setaffinity(0, cores()[1])
    asyncio.run(_run(load, barrier.wait))


def _measure(target: ServerProcess, *, noop: bool, in_flight: int, calls: int, processes: int) -> Result:
    """Run the load processes once; the clock runs from when all are ready until the last one is done."""
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(processes + 1)
    callers = max(1, in_flight // processes)
    load = Load(target.address, noop, callers, calls // (callers * processes))
    workers = [spawn.Process(target=_process, args=(load, barrier)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    barrier.wait(timeout=60)
    begun, cpu = time.perf_counter(), target.cpu_seconds()
    for worker in workers:
        worker.join(timeout=300)
    took, used = time.perf_counter() - begun, target.cpu_seconds() - cpu
    if any(worker.exitcode for worker in workers):
        raise RuntimeError("a load process failed")
    done = load.calls * callers * processes
    return Result(done / took, used / took, used / done * 1e6)


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--calls", type=int, default=12_000, help="calls per measurement (default 12000)")
    options.add_argument("--rounds", type=int, default=3, help="measurements of each kind, in turns (default 3)")
    given, _ = options.parse_known_args()
    print(f"machine: {conditions()}")
    print(f"server on core {cores()[0]}, load on {cores()[1]}; {given.calls} calls per measurement,")
    print(f"{_DELTA_BYTES} B requests, BASIC answers, each commit synced; median of {given.rounds} rounds in turns\n")
    with tempfile.TemporaryDirectory() as folder, server(Path(folder) / "data") as target:
        for in_flight, processes in ((64, 2), (1, 1)):
            _compare(target, in_flight, processes, given)


def _compare(target: ServerProcess, in_flight: int, processes: int, given: argparse.Namespace) -> None:
    calls = given.calls if in_flight > 1 else given.calls // 6
    results: dict[bool, list[Result]] = {True: [], False: []}
    for _ in range(given.rounds):
        for noop, measured in results.items():
            measured.append(_measure(target, noop=noop, in_flight=in_flight, calls=calls, processes=processes))
    print(f"{in_flight} in flight             calls/s   server core busy   server CPU per call")
    for noop, measured in results.items():
        name = "no-op (health check)" if noop else "durable UpdateStatus"
        rate = statistics.median(result.rate for result in measured)
        share = statistics.median(result.cpu_share for result in measured)
        cpu = statistics.median(result.cpu_us_per_call for result in measured)
        print(f"  {name}   {rate:8.0f}   {share:15.0%}   {cpu:15.0f} us")
    noops, updates = (statistics.median(r.rate for r in results[noop]) for noop in (True, False))
    print(f"  ratio {updates / noops:.2f}\n")


if __name__ == "__main__":
    main()
