"""What the context and tool layer costs, as a share of an invocation.

The same agent, which uses a tool a few times, is run in two ways, in turns: it reports its tool calls itself, or it has
a dispatcher call the tool in a child context of its own, with the arguments validated, and all spans. No tracer is set
up. A server on one core; the runner and the client in this process, on the others.

- an invocation: Create is called, until the terminal change is seen.
- processor: what this process has used meanwhile, runner and client together.
- alone: each part of the layer by itself, over and over, without a server.
- the sum of these parts for one invocation: a context is made of the assignment, two spans, a child, and the tool calls
  by the dispatcher less the same calls reported directly. It is a lower bound: between the calls of a real invocation
  the processor's caches go cold. What counts is how much more the layered invocation takes than the direct one.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from grpc import aio

from benchmarks.clients import Clients, terminal
from benchmarks.figure import Figure, Measurement
from benchmarks.server_process import server
from benchmarks.spread import Spread
from runstream.runner import Runner, ToolDispatcher, ToolRegistry, build_context
from runstream.runner.tracing import spanned
from runstream.v1.runner_pb2 import Assignment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.figure import Run
    from runstream.runner import ExecutionContext, Invocation

#: How often the agent uses its tool.
TOOLS: Final = 4
_REGISTRY: Final = ToolRegistry()
_DISPATCHER: Final = ToolDispatcher(_REGISTRY)


@_REGISTRY.tool
async def add(one: int, other: int) -> int:
    """Add two numbers."""
    return one + other


async def direct(invocation: Invocation) -> str:
    """Use the tool, and report it."""
    for number in range(TOOLS):
        await _reported(number, invocation.context)
    return "done"


async def layered(invocation: Invocation) -> str:
    """Have the tool called in a child context."""
    child = invocation.context.child()
    for number in range(TOOLS):
        await _dispatched(number, child)
    return "done"


async def _reported(number: int, context: ExecutionContext) -> None:
    async with context.report.tool("add", {"one": number, "other": 1}) as call:
        call.result = await add(number, 1)


async def _dispatched(number: int, context: ExecutionContext) -> None:
    await _DISPATCHER.call("add", {"one": number, "other": 1}, context)


class Measured:
    """The times of one way, in seconds."""

    def __init__(self) -> None:
        self.took: list[float] = []
        self.used: list[float] = []

    async def one(self, clients: Clients, slug: str) -> None:
        """Have one execution run, and note what it took."""
        begun, used = time.perf_counter(), time.process_time()
        await clients.seen(await clients.create(slug), terminal)
        self.took.append(time.perf_counter() - begun)
        self.used.append(time.process_time() - used)


async def _invocations(address: str, count: int) -> dict[str, Measured]:
    """Run both ways in turns, one execution at a time; first a few that do not count."""
    runner = Runner(address, agents={"direct": direct, "layered": layered}, drain_timeout=1)
    serving = asyncio.create_task(runner.serve())
    async with aio.insecure_channel(address) as channel:
        clients = Clients(channel)
        await clients.find_agents("direct", "layered")
        await _in_turns(clients, 20)
        ways = await _in_turns(clients, count)
    await runner.stop()
    with suppress(asyncio.CancelledError):
        await serving
    return ways


async def _in_turns(clients: Clients, count: int) -> dict[str, Measured]:
    ways = {"direct": Measured(), "layered": Measured()}
    for number in range(count):
        for slug in sorted(ways, reverse=bool(number % 2)):  # neither is always the first
            await ways[slug].one(clients, slug)
    return ways


def _assignment() -> Assignment:
    """Return an assignment with as much context as people give."""
    made = Assignment(attempt=1)
    made.execution.metadata.id = made.execution.spec.context.root_execution_id = "aex_01m7z8kh30kcmnvt0d0d9qj7hc"
    made.execution.spec.session_id, made.agent.metadata.id = "ses_1", "agt_1"
    asked = made.execution.spec.context
    asked.user_id, asked.correlation_id, asked.language = "ada", "order-7", "de"
    asked.allowed_tools.extend(["add", "subtract"])
    asked.budget.tokens, asked.budget.tool_calls = 1_000_000_000, 1_000_000_000
    asked.attributes.update({"tenant": "acme", "tags": ["a", "b"]})
    made.remaining.FromSeconds(3_600)
    return made


async def _alone(times: int) -> dict[str, float]:
    """Return what each part takes by itself, in seconds: the median of a few rounds, in turns."""
    assignment = _assignment()
    context = build_context(assignment=assignment)

    async def build() -> None:
        build_context(assignment=assignment)

    async def child() -> None:
        context.child()

    async def span() -> None:
        with spanned("invoke_agent", "adder", context):
            pass

    parts: dict[str, Callable[[], Awaitable[None]]] = {
        "build_context, of an assignment": build,
        "context.child": child,
        "a span": span,
        "report.tool": lambda: _reported(1, context),
        "dispatcher.call": lambda: _dispatched(1, context),
    }
    rounds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(9):
        for name, part in parts.items():
            begun = time.perf_counter()
            for _ in range(times):
                await part()
            rounds[name].append((time.perf_counter() - begun) / times)
    return {name: statistics.median(each) for name, each in rounds.items()}


def measure(run: Run) -> Measurement:
    """Measure whole invocations, and each part of the layer by itself."""
    invocations, times = run.of(400, 40), run.of(500, 100)
    with server(run.scratch / "context", **run.settings) as target:
        ways = asyncio.run(_invocations(target.address, invocations))
    return _told(ways["direct"], ways["layered"], asyncio.run(_alone(times)), invocations)


def _told(plain: Measured, layer: Measured, parts: dict[str, float], invocations: int) -> Measurement:
    usual = statistics.median(plain.took)
    used = _more(plain.used, layer.used) / statistics.median(plain.used)
    return Measurement(
        figures=[
            Figure(
                "context and tool layer, of an invocation's time", _more(plain.took, layer.took) / usual * 100, "%", 5
            ),
            Figure("  of the processor time of runner and client", used * 100, "%"),
            Figure("  an invocation reported directly, p50", usual * 1e3, "ms"),
            Figure("  the layer's parts alone and warm, summed", _sum(parts) * 1e6, "us"),
        ],
        conditions=f"{TOOLS} tool calls an invocation, one at a time, both ways in turns, {invocations} times; no"
        " tracer; runner and client in one process",
        spreads={
            "direct, s": Spread.of(plain.took),
            "layered, s": Spread.of(layer.took),
        },
        seen={"alone, s": parts},
    )


def _sum(parts: dict[str, float]) -> float:
    """Return what the parts of one invocation take by themselves."""
    call = parts["dispatcher.call"] - parts["report.tool"]
    return parts["build_context, of an assignment"] + parts["context.child"] + 2 * parts["a span"] + TOOLS * call


def _more(one: list[float], other: list[float]) -> float:
    """Return how much more the other took than the one beside it, whatever else the machine was doing then."""
    return statistics.median(after - before for before, after in zip(one, other, strict=True))
