"""Agent pool: builds agents, lends them to one invocation at a time, and keeps them for the next."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from runstream.runner.agents import invoke
from runstream.runner.bridge import Bridge
from runstream.runner.context.value import bridge_of
from runstream.runner.errors import AgentMutated
from runstream.runner.exits import exits_contained
from runstream.runner.pool.checks import watch
from runstream.runner.pool.configuration import AgentConfiguration
from runstream.runner.pool.places import Claim, Place, Places

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator

    from runstream.runner.agents import AgentFunction
    from runstream.runner.invocation import Invocation

    Build = Callable[[AgentConfiguration], AgentFunction | Awaitable[AgentFunction]]
    Close = Callable[[Any], Awaitable[None] | None]

_LOG = logging.getLogger(__name__)

#: What is used from here on up, of all pools: whoever works beneath must not wait for it.
_HELD: Final = contextvars.ContextVar[frozenset[Claim]]("runstream pooled agents in use", default=frozenset())


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStats:
    """What a pool has done, and how it stands."""

    built: int
    #: How often an agent was used that had been built before.
    reused: int
    #: How many idle agents had to go: for another one to have its place, for their age, or for a newer revision.
    evicted: int
    idle: int
    #: Those that are being built included.
    in_use: int
    waiting: int


class AgentPool:
    """Agents that are expensive to build. The pool is an agent function: `Runner(…, agents={"a": AgentPool(build)})`.

    `build` is given an `AgentConfiguration`, which is all that a pooled agent may be made of, and returns an agent
    function. It may be a coroutine; a plain function runs in a thread. It sees no context of any invocation. An agent
    is used by one invocation at a time, then by the next one of the same configuration; `shared` says that it is safe
    to use by several at a time. What belongs to an invocation, the agent is given with each call, and nowhere else.

    There are at most `max_agents`. When all are in use, invocations wait in order; when some are idle, the one that was
    used least recently goes. An agent that works beneath another one of the pool, as its sub-agent or for an execution
    that it has delegated, is let in over the bound when nobody could go on otherwise. Agents that were idle for
    `idle_seconds`, and those of earlier revisions, go too. An agent whose invocation has raised, or was cancelled or
    paused, is not used again, unless it is shared: it may have stopped midway; its place is free once no thread of that
    run is at work any more. `close`, plain or a coroutine, is called with each agent that goes; its errors are logged.

    With `check`, an invocation whose agent has changed its own attributes fails with AgentMutated, and the agent goes;
    attributes named in `ignore` may change. Unless given, that is so under `runstream.testing` and not otherwise.

    A pool works in one event loop at a time. In another one it begins anew: what was idle is closed, not used.
    """

    def __init__(  # noqa: PLR0913  # each is an option
        self,
        build: Build,
        *,
        max_agents: int = 16,
        idle_seconds: float = 300.0,
        shared: bool = False,
        close: Close | None = None,
        check: bool | None = None,
        ignore: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Build nothing yet. `clock` is monotonic, in seconds. ValueError for a `max_agents` below 1."""
        if max_agents < 1:
            raise ValueError(f"max_agents must be at least 1, not {max_agents}")
        self._build, self._close = build, close
        self._most, self._shared = max_agents, shared
        self._idle_seconds, self._clock = idle_seconds, clock
        self._check, self._ignore = check, frozenset(ignore)
        self._places = Places(max_agents, self._retire, shared=shared)
        self._built = self._reused = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def __call__(self, invocation: Invocation) -> None:
        """Have an agent of the pool do what is to be done. The pool keeps nothing of the invocation."""
        context = invocation.context
        parent = context.parent_execution if context.parent_execution != context.execution else None
        claim = self._claim(AgentConfiguration.of(invocation), context.execution, parent)
        async with self._lent(claim, bridge_of(context)) as agent:
            await invoke(agent, invocation)

    @asynccontextmanager
    async def lease(self, configuration: AgentConfiguration) -> AsyncIterator[AgentFunction]:
        """Lend an agent for the length of the block, once there is one. Raises what building it raises."""
        async with self._lent(self._claim(configuration)) as agent:
            yield agent

    @property
    def stats(self) -> PoolStats:
        """What the pool has done so far, and how it stands."""
        places = self._places
        return PoolStats(
            built=self._built,
            reused=self._reused,
            evicted=places.evicted,
            idle=len(places.idle),
            in_use=len(places.taken),
            waiting=len(places.waiting),
        )

    def sweep(self) -> None:
        """Have the agents go that have been idle for too long; the pool does so by itself."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._places.evict_idle(self._clock() - self._idle_seconds)
        self._set_timer()

    async def aclose(self) -> None:
        """Close what is idle, and lend nothing more; what is in use is closed when it comes back. Whoever waits fails.

        Returns when all that is idle has been closed.
        """
        self._settle_in(asyncio.get_running_loop())
        self._closed = True
        for claim in self._places.waiting:
            if claim.turn is not None and not claim.turn.done():
                claim.turn.set_exception(_closed())
        self._places.evict_idle(float("inf"))
        building = {place.building for place in self._places.taken}
        await asyncio.gather(*(self._tasks - building), return_exceptions=True)

    def _claim(
        self, configuration: AgentConfiguration, execution: str = "", parent_execution: str | None = None
    ) -> Claim:
        above = _HELD.get()
        if parent_execution:
            for each in self._places.of_execution(parent_execution):
                above |= each.above | {each}
        return Claim(configuration, above, execution)

    @asynccontextmanager
    async def _lent(self, claim: Claim, bridge: Bridge | None = None) -> AsyncIterator[AgentFunction]:
        places = self._enter(claim)
        fit = True
        try:
            agent = await self._agent(claim)
            fit = self._shared
            look_again = watch(agent, self._check, self._ignore)
            with _held(claim):
                yield agent
            changed = look_again()
            fit = not changed
            if changed:
                raise AgentMutated(changed)
        finally:
            if fit or bridge is None:
                self._leave(places, claim, fit=fit)
            else:  # a plain function that was cancelled works on in its thread, with the agent
                bridge.when_left(partial(self._leave, places, claim, fit=fit))

    def _enter(self, claim: Claim) -> Places:
        """Queue a claim; return what it is queued in."""
        if self._closed:
            raise _closed()
        loop = asyncio.get_running_loop()
        self._settle_in(loop)
        self._places.evict_idle(self._clock() - self._idle_seconds)
        claim.turn = loop.create_future()
        self._places.ask(claim)
        return self._places

    async def _agent(self, claim: Claim) -> AgentFunction:
        """Wait for a place, and have the agent built if there is none."""
        if claim.turn is not None:
            await claim.turn
        place = claim.place
        if place is None:
            raise _closed()
        if place.agent is not None:
            self._reused += 1
            return place.agent
        if place.building is None:
            place.building = self._spawn(_built(self._build, place.configuration))
            place.building.add_done_callback(lambda task: self._have(place, task))
        else:
            self._reused += 1
        return await asyncio.shield(place.building)  # others may wait for it too, and a thread does not stop

    def _have(self, place: Place, task: asyncio.Task[AgentFunction]) -> None:
        """Take what was built, or note that it was not. Whoever has asked for it is told by the task."""
        place.building = None
        if task.cancelled() or task.exception() is not None:
            place.fit = False
        else:
            place.agent = task.result()
            self._built += 1
        place.fit = place.fit and not self._closed
        self._places.built(place, self._clock())
        self._set_timer()

    def _leave(self, places: Places, claim: Claim, *, fit: bool) -> None:
        place = claim.place
        if place is not None and place.building is not None and len(place.users) == 1 and _is_async(self._build):
            place.fit = False  # nobody wants it any more
            place.building.cancel()
        places.leave(claim, self._clock(), fit=fit and not self._closed)
        self._set_timer()

    def _retire(self, place: Place) -> None:
        """Close an agent that goes, in its own time."""
        agent, place.agent = place.agent, None
        if self._close is not None and agent is not None:
            self._spawn(self._close_logged(self._close, agent))

    async def _close_logged(self, close: Close, agent: AgentFunction) -> None:
        try:
            await _called(close, agent)
        except Exception:  # noqa: BLE001  # nobody is there who could do anything about it
            _LOG.exception("an agent of the pool could not be closed")

    def _settle_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin anew in another loop: what was built in an earlier one may hold on to it."""
        if self._loop is loop:
            return
        before, self._loop, self._timer = self._loop, loop, None
        if before is None:
            return
        left = self._places
        if (left.taken or left.waiting) and not before.is_closed():
            self._loop = before
            raise RuntimeError("the pool is at work in another event loop; make a pool for each")
        self._places, self._tasks = Places(self._most, self._retire, shared=self._shared), set()
        left.evict_idle(float("inf"))
        self._places.evicted = left.evicted

    def _set_timer(self) -> None:
        """Come back when the agent that has been idle for longest has been so for too long."""
        idle = self._places.idle
        if self._timer is not None or not idle or self._idle_seconds == float("inf") or self._loop is None:
            return  # one that comes too early sets another
        seconds = max(0.0, idle[0].idle_since + self._idle_seconds - self._clock())
        self._timer = self._loop.call_later(seconds, self.sweep, context=contextvars.Context())

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task that sees no context of any invocation: not the current one, nor its trace and its baggage."""
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


@contextmanager
def _held(claim: Claim) -> Iterator[None]:
    before = _HELD.get()
    _HELD.set(claim.above | {claim})
    try:
        yield
    finally:
        _HELD.set(before)  # not reset: a block may be left in another context than it was entered in


async def _called(function: Callable[[Any], Any], given: object) -> Any:  # noqa: ANN401  # whatever it returns
    """Call a function of the user's: a plain one in a thread, since it may block."""
    with exits_contained("the pool's function"):
        if _is_async(function):
            return await function(given)
        result = await Bridge().in_thread(function, given)
        return await result if inspect.isawaitable(result) else result


async def _built(build: Build, configuration: AgentConfiguration) -> AgentFunction:
    agent = await _called(build, configuration)
    if not callable(agent):
        raise TypeError(f"build returns an agent function, or another object that can be called, not {agent!r}")
    return agent  # type: ignore[no-any-return]  # of whatever kind


def _is_async(function: Callable[..., Any]) -> bool:
    called = getattr(type(function), "__call__", None)  # noqa: B004  # of an object that is called
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def _closed() -> RuntimeError:
    return RuntimeError("the pool is closed")
