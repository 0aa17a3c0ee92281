"""Agents: functions that are agents, of whichever kind, and what the server is told about them."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from runstream.runner.exits import exits_contained
from runstream.runner.json_safe import to_struct
from runstream.v1 import agent_pb2

if TYPE_CHECKING:
    from runstream.runner.events import Event
    from runstream.runner.invocation import Invocation

#: An async generator that yields events, a coroutine, or a plain function; the latter two may return their answer.
AgentFunction = Callable[
    ["Invocation"],
    "AsyncIterator[Event] | Awaitable[str | None] | Iterator[Event] | str | None",
]


@dataclass(frozen=True, slots=True)
class Agent:
    """A function, and what the server is told about the agent when the runner has to create it there.

    `max_duration` is in seconds, or a timedelta. The options are those of `AgentSpec`, and have its defaults.
    """

    function: AgentFunction
    _: KW_ONLY
    instructions: str = ""
    description: str = ""
    tools: tuple[str, ...] = ()
    runtime: Mapping[str, object] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    max_duration: float | timedelta | None = None
    max_attempts: int = 0
    max_concurrent_executions: int = 0
    concurrent_in_session: bool = False
    resume_attempts: bool = False

    def resource(self, name: str, org: str) -> agent_pb2.Agent:
        """Return the agent as it is created on the server."""
        made = agent_pb2.Agent()
        made.metadata.name, made.metadata.org = name, org
        made.metadata.labels.update(self.labels)
        spec = made.spec
        spec.instructions, spec.description = self.instructions, self.description
        spec.tools.extend(self.tools)
        spec.max_attempts = self.max_attempts
        spec.max_concurrent_executions = self.max_concurrent_executions
        spec.concurrent_in_session, spec.resume_attempts = self.concurrent_in_session, self.resume_attempts
        if self.runtime:
            spec.runtime.CopyFrom(to_struct(self.runtime))
        if self.max_duration is not None:
            longest = self.max_duration
            spec.max_duration.FromTimedelta(longest if isinstance(longest, timedelta) else timedelta(seconds=longest))
        return made


async def invoke(function: AgentFunction, invocation: Invocation) -> None:
    """Run an agent to its end, and report what it yields or returns. Raises what it raises."""
    with exits_contained("the agent"):
        await _invoke(function, invocation)


async def _invoke(function: AgentFunction, invocation: Invocation) -> None:
    if _is(inspect.iscoroutinefunction, function) or _is(inspect.isasyncgenfunction, function):
        result = function(invocation)
    else:
        result = await invocation.in_thread(_plain, function, invocation)
    if isinstance(result, AsyncIterator):
        await _report_all(result, invocation)
        return
    if isinstance(result, Awaitable):
        result = await result
    if isinstance(result, str):
        await invocation.report.answer(result)
    elif result is not None:
        raise TypeError(f"an agent returns its answer as a str, or None, not {type(result).__name__}")


async def _report_all(events: AsyncIterator[Any], invocation: Invocation) -> None:
    """Report what an agent yields; after each, it may be paused."""
    try:
        async for event in events:
            await invocation.report.event(event)
            await invocation.safe_point()
    finally:
        if inspect.isasyncgen(events):
            await events.aclose()


def _plain(function: AgentFunction, invocation: Invocation) -> Any:  # noqa: ANN401  # whatever it returns
    """Call a plain function in its thread; a generator is run to its end there."""
    result = function(invocation)
    if not isinstance(result, Iterator):
        return result
    for event in result:
        invocation.wait(invocation.report.event(event))
        invocation.wait(invocation.safe_point())
    return None


def _is(kind: Callable[[Any], bool], function: AgentFunction) -> bool:
    return kind(function) or kind(getattr(type(function), "__call__", None))  # noqa: B004  # of an object that is called
