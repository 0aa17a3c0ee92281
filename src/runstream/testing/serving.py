"""Serving: the runners of a local server, and the agents that they serve."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from runstream.model.slugs import slugify_name
from runstream.runner import Agent, Runner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runstream.runner import AgentFunction

#: How many executions a runner works on at a time: more than a test has.
CAPACITY: Final = 100


class Serving:
    """The runners that a test has started, each in a task of its own."""

    def __init__(self, address: str, seconds: float) -> None:
        """Serve for the server at `address`; a runner has so many seconds to attach."""
        self._address = address
        self._seconds = seconds
        self._runners: dict[Runner, asyncio.Task[None]] = {}
        #: Agents by slug.
        self._agents: dict[str, AgentFunction | Agent] = {}
        #: Held while an agent is being served, so that another use of it finds it served.
        self._beginning = asyncio.Lock()

    def __iter__(self) -> Iterator[Runner]:
        return iter(tuple(self._runners))

    async def serve(self, agents: Mapping[str, AgentFunction | Agent], capacity: int = CAPACITY) -> Runner:
        """Start a runner, and return it when it is attached. Raises `RunnerRefused`."""
        runner = Runner(self._address, agents, capacity=capacity)
        task = self._runners[runner] = asyncio.create_task(runner.serve(), name=f"runner of {', '.join(agents)}")
        attached = asyncio.create_task(runner.attached())
        try:
            done, _ = await asyncio.wait({task, attached}, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            attached.cancel()
        if task in done:
            del self._runners[runner]
            task.result()
        if not done:
            raise AssertionError(f"a runner of {', '.join(agents)} did not attach in {self._seconds:g} s")
        self._agents.update({slugify_name(name): agent for name, agent in agents.items()})
        return runner

    async def slug_of(self, agent: AgentFunction | Agent, name: str) -> str:
        """Return the slug that an agent is served under, after having it served if it was not."""
        wanted = slugify_name(name)
        async with self._beginning:
            for slug, known in self._agents.items():
                if known == agent and slug == (wanted or slug):
                    return slug
            if wanted in self._agents:
                raise ValueError(f"another agent is called {name!r} already")
            slug = wanted or self._free(agent)
            await self.serve({slug: agent})
            return slug

    async def stop(self) -> None:
        """Stop all runners. Raises what one of them ended with."""
        for runner in self:
            await runner.stop()
        results = await asyncio.gather(*self._runners.values(), return_exceptions=True)
        for error in results:
            if error is not None:
                raise error

    def _free(self, agent: AgentFunction | Agent) -> str:
        """Return a slug made of the function's name that no agent has."""
        function = agent.function if isinstance(agent, Agent) else agent
        named = getattr(function, "__name__", type(function).__name__)
        first = slugify_name(named) or "agent"
        number, slug = 1, first
        while slug in self._agents:
            number += 1
            slug = f"{first}-{number}"
        return slug
