"""The pool: what it builds, whom it lends it to, what it keeps, and what it never keeps."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import logging
import re
import threading
import weakref
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from runstream.runner import Agent, AgentConfiguration, AgentFailure, AgentMutated, AgentPool, Invocation
from runstream.runner.context import NoContext, current_context
from runstream.runner.pool import EnvironmentReference
from runstream.runner.pool.places import Claim, Place, Places
from runstream.testing import Ask, Hang, Script, local_server
from runstream.v1.resource_pb2 import ResourceReference

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from runstream.testing import LocalServer

MOST = 3
IDLE_SECONDS = 10.0
ANT = AgentConfiguration("agt_ant", 1, instructions="carry")
BEE = AgentConfiguration("agt_bee", 1, runtime={"wings": [4, {"clear": True}]})
CAT = AgentConfiguration("agt_cat", 1)


class Insect:
    """An agent that says what it is made of."""

    def __init__(self, configuration: AgentConfiguration) -> None:
        self.configuration = configuration

    async def __call__(self, invocation: Invocation) -> str:
        """Say it."""
        return f"{self.configuration.slug} {self.configuration.instructions} {invocation.message}"


@dataclass
class Now:
    """A clock that is moved by hand."""

    seconds: float = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.seconds


@dataclass
class Builder:
    """Builds insects, and remembers which."""

    built: list[AgentConfiguration] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    async def __call__(self, configuration: AgentConfiguration) -> Insect:
        """Build one."""
        self.built.append(configuration)
        return Insect(configuration)

    async def close(self, insect: Insect) -> None:
        """Remember that it has gone."""
        self.closed.append(insect.configuration.agent_id)


async def idle_tasks() -> None:
    """Let every task come as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


def by_somebody_else(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Start what works for nobody here: otherwise the pool takes it for work of whoever holds an agent."""
    return asyncio.get_running_loop().create_task(work, context=contextvars.Context())


class PlacesMachine(RuleBasedStateMachine):
    """Claims come, are nested, have their agent built or not, and leave, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.closed: list[Place] = []
        self.places = Places(MOST, self.closed.append, shared=False)
        self.claims: list[Claim] = []
        self.now = 0.0
        self.used: dict[int, float] = {}

    def holders(self) -> list[Claim]:
        """Return the claims that have a place."""
        return [claim for claim in self.claims if claim.place is not None]

    @rule(agent=st.integers(0, 3), revision=st.integers(1, 2), nested=st.booleans(), choice=st.integers(0, 99))
    def ask(self, agent: int, revision: int, nested: bool, choice: int) -> None:  # noqa: FBT001
        """Want an agent; maybe for somebody who has one."""
        holders = self.holders()
        above: frozenset[Claim] = frozenset()
        if nested and holders:
            holder = holders[choice % len(holders)]
            above = holder.above | {holder}
        first = not self.places.waiting
        claim = Claim(AgentConfiguration(f"agt_{agent}", revision), above)
        idle = [place for place in self.places.idle if place.configuration.digest == claim.configuration.digest]
        self.places.ask(claim)
        self.claims.append(claim)
        if first and idle:
            assert claim.place is idle[-1], "what is built already is used"
        for other in self.claims:  # it may have let in another one than itself
            self.build(other.place)

    def build(self, place: Place | None) -> None:
        """Have an agent in a place."""
        if place is not None and place.agent is None:
            place.agent = Insect(place.configuration)

    @precondition(lambda self: self.claims)
    @rule(choice=st.integers(0, 99), fit=st.booleans(), seconds=st.floats(0, 5))
    def leave(self, choice: int, fit: bool, seconds: float) -> None:  # noqa: FBT001
        """Leave the queue, or give back the agent; not before those beneath have left."""
        leaves = [claim for claim in self.claims if not any(claim in other.above for other in self.claims)]
        claim = leaves[choice % len(leaves)]
        place, waits = claim.place, bool(self.places.waiting)
        self.now += seconds
        self.places.leave(claim, self.now, fit=fit)
        self.claims.remove(claim)
        if place is not None and not fit:
            assert place in self.closed, "what may have stopped midway is not used again"
        if place is not None and fit and not waits and place not in self.closed:
            assert place is self.places.idle[-1]
        for other in self.claims:
            self.build(other.place)

    @rule(seconds=st.floats(0, 20))
    def sweep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.places.evict_idle(self.now - IDLE_SECONDS)
        assert all(place.idle_since > self.now - IDLE_SECONDS for place in self.places.idle)

    @invariant()
    def nobody_shares_an_agent(self) -> None:
        """One agent, one user."""
        assert all(len(place.users) == 1 for place in self.places.taken)
        agents = [id(place.agent) for place in (*self.places.taken, *self.places.idle)]
        assert len(set(agents)) == len(agents)
        assert {id(claim.place) for claim in self.holders()} == {id(place) for place in self.places.taken}

    @invariant()
    def everybody_has_an_agent_of_their_own_configuration(self) -> None:
        """What was asked for."""
        assert all(claim.place.configuration == claim.configuration for claim in self.holders() if claim.place)

    @invariant()
    def it_is_bounded(self) -> None:
        """Beyond the bound is only what works for somebody who holds a place within it."""
        held = len(self.places.taken) + len(self.places.idle)
        beneath = sum(bool(claim.above) for claim in self.holders())
        assert held <= max(MOST, MOST + beneath)
        assert held <= MOST or not self.places.idle

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        """Who waits, waits for somebody who does not wait for them."""
        if self.places.waiting:
            assert not self.places.idle
            assert len(self.places.taken) >= MOST
            waited_for = {each for claim in self.places.waiting for each in claim.above}
            assert any(claim not in waited_for for claim in self.holders())

    @invariant()
    def the_oldest_goes_first(self) -> None:
        """Idle agents stand in the order of their last use."""
        since = [place.idle_since for place in self.places.idle]
        assert since == sorted(since)
        assert all(place.agent is not None for place in self.places.idle)

    @invariant()
    def outdated_agents_do_not_stay(self) -> None:
        """Idle agents are of the newest revision that is known."""
        known = [place.configuration for place in (*self.places.taken, *self.places.idle)]
        assert not any(each.outdates(place.configuration) for place in self.places.idle for each in known)

    def teardown(self) -> None:
        """Have everybody leave: then nobody is counted as waiting."""
        for claim in sorted(self.claims, key=lambda claim: -len(claim.above)):
            self.places.leave(claim, self.now, fit=True)
        assert not self.places.taken
        assert not self.places.waiting
        assert len(self.places.idle) <= MOST
        assert all(claim.waiting_below == 0 for claim in self.claims)


TestPlaces = PlacesMachine.TestCase
TestPlaces.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_equal_configurations_have_one_digest_and_each_field_counts() -> None:
    same = AgentConfiguration("agt_bee", 1, runtime={"wings": (4, {"clear": True})})
    assert (same, same.digest) == (BEE, BEE.digest)
    changes: dict[str, Any] = {"agent_revision": 2, "runtime": {}, "tools": ("x",), "instance_revision": 3}
    changes["environments"] = (EnvironmentReference(slug="x"),)
    changes |= dict.fromkeys(("agent_id", "org", "name", "slug", "instructions", "instance_id"), "x")
    assert changes.keys() == {each.name for each in fields(AgentConfiguration) if each.init}
    assert len({BEE.digest, *(replace(BEE, **{name: value}).digest for name, value in changes.items())}) == 12
    with pytest.raises(TypeError):
        BEE.runtime["wings"][1]["clear"] = False
    with pytest.raises(TypeError):
        BEE.runtime["legs"] = 6  # type: ignore[index]


async def test_an_agent_is_used_by_one_at_a_time_and_then_by_the_next() -> None:
    builder = Builder()
    pool = AgentPool(builder, max_agents=2)
    async with pool.lease(ANT) as one, pool.lease(ANT) as other:
        assert one is not other
    async with pool.lease(ANT) as again:
        assert again is other or again is one
    assert builder.built == [ANT, ANT]
    assert (pool.stats.built, pool.stats.reused, pool.stats.idle, pool.stats.in_use) == (2, 1, 2, 0)


async def test_at_the_bound_the_least_recently_used_one_goes_and_otherwise_it_is_waited_for_in_order() -> None:
    builder = Builder()
    pool = AgentPool(builder, max_agents=2, close=builder.close)
    order: list[str] = []

    async def use(name: str, configuration: AgentConfiguration) -> None:
        async with pool.lease(configuration):
            order.append(name)

    await use("ant", ANT)
    await use("bee", BEE)
    await use("ant again", ANT)
    async with pool.lease(CAT):
        await idle_tasks()
        assert builder.closed == ["agt_bee"]
        async with pool.lease(ANT):
            waiting = [by_somebody_else(use(str(number), BEE)) for number in range(4)]
            await idle_tasks()
            assert pool.stats.waiting == 4
            waiting[1].cancel()
            await idle_tasks()
    await asyncio.wait(waiting)
    assert order == ["ant", "bee", "ant again", "0", "2", "3"]
    assert waiting[1].cancelled()
    assert pool.stats.in_use == pool.stats.waiting == 0
    assert pool.stats.idle == 2


async def test_what_is_idle_for_too_long_is_closed() -> None:
    now, builder = Now(), Builder()
    pool = AgentPool(builder, idle_seconds=IDLE_SECONDS, clock=now, close=builder.close)
    async with pool.lease(ANT):
        pass
    now.seconds = 6
    async with pool.lease(BEE):
        pass
    now.seconds = 11
    pool.sweep()
    await idle_tasks()
    assert builder.closed == ["agt_ant"]
    assert (pool.stats.idle, pool.stats.evicted) == (1, 1)


async def test_a_pool_that_nobody_uses_any_more_closes_what_is_idle_by_itself() -> None:
    closed = asyncio.Event()

    async def close(_: Insect) -> None:
        closed.set()

    pool = AgentPool(Builder(), idle_seconds=0.01, close=close)
    async with pool.lease(ANT):
        pass
    await closed.wait()
    assert pool.stats.idle == 0


async def test_a_newer_revision_takes_the_place_of_idle_ones_and_late_ones_are_not_kept() -> None:
    builder = Builder()
    pool = AgentPool(builder, close=builder.close)
    newer = replace(ANT, agent_revision=2)
    async with pool.lease(ANT):
        pass
    async with pool.lease(ANT), pool.lease(newer):
        pass
    async with pool.lease(ANT):
        pass
    assert [each.agent_revision for each in builder.built] == [1, 2, 1]
    assert pool.stats.idle == 1
    async with pool.lease(replace(newer, instance_id="ain_1", instance_revision=1)):
        assert pool.stats.idle == 1, "another instance of the agent"


async def test_a_failed_build_is_told_to_who_asked_and_frees_its_place() -> None:
    attempts = 0

    async def build(configuration: AgentConfiguration) -> Insect:
        nonlocal attempts
        attempts += 1
        await asyncio.sleep(0)
        if attempts == 1:
            raise OSError("no model")
        return Insect(configuration)

    async def use() -> str:
        async with pool.lease(ANT):
            return "used"

    pool = AgentPool(build, max_agents=1)
    results = await asyncio.gather(use(), use(), use(), return_exceptions=True)
    assert [str(result) for result in results] == ["no model", "used", "used"]
    assert (pool.stats.built, pool.stats.in_use) == (1, 0)


@pytest.mark.parametrize("returned", [None, "an agent", Agent(Script("x"))])
async def test_what_is_no_agent_is_refused(returned: Any) -> None:  # noqa: ANN401  # anything
    pool = AgentPool(lambda _: returned)
    with pytest.raises(TypeError, match="can be called"):
        async with pool.lease(ANT):
            pass
    assert pool.stats.in_use == pool.stats.idle == 0


async def test_an_exit_in_a_build_ends_nobody_else() -> None:
    def build(_: AgentConfiguration) -> Insect:
        raise SystemExit(3)

    with pytest.raises(RuntimeError, match=r"the pool's function called exit\(3\)"):
        async with AgentPool(build).lease(ANT):
            pass


async def test_a_build_that_nobody_waits_for_is_cancelled_or_kept_if_it_cannot_be() -> None:
    begun, go_on = threading.Event(), threading.Event()
    cancelled = asyncio.Event()

    def slow(configuration: AgentConfiguration) -> Insect:
        begun.set()
        go_on.wait()
        return Insect(configuration)

    async def hangs(_: AgentConfiguration) -> Insect:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    async def use(pool: AgentPool) -> None:
        async with pool.lease(ANT):
            pass

    in_thread, in_loop = AgentPool(slow, max_agents=1), AgentPool(hangs, max_agents=1)
    tasks = [asyncio.create_task(use(pool)) for pool in (in_thread, in_loop)]
    await asyncio.to_thread(begun.wait)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await cancelled.wait()
    await idle_tasks()
    assert in_loop.stats.in_use == 0
    assert in_thread.stats.in_use == 1, "the thread goes on, and so its place is taken"
    go_on.set()
    await use(in_thread)
    assert (in_thread.stats.built, in_thread.stats.idle) == (1, 1)


async def test_a_build_sees_no_context_of_any_invocation() -> None:
    seen: list[str] = []

    def look(configuration: AgentConfiguration) -> Insect:
        with pytest.raises(NoContext):
            current_context()
        seen.append(configuration.slug)
        return Insect(configuration)

    async def look_here(configuration: AgentConfiguration) -> Insect:
        return look(configuration)

    async with local_server() as server:
        agents = {"ant": AgentPool(look), "bee": AgentPool(look_here)}
        await server.serve(agents)
        assert (await server.run("ant", "x")).expect().answer == "ant  x"
        assert (await server.run("bee", "y")).expect().answer == "bee  y"
    assert seen == ["ant", "bee"]


async def test_shared_agents_are_used_by_several_at_a_time_and_built_once() -> None:
    builder = Builder()
    pool = AgentPool(builder, max_agents=1, shared=True, close=builder.close)
    together = asyncio.Barrier(5)

    async def use() -> object:
        async with pool.lease(ANT) as agent:
            await together.wait()
            return agent

    used = await asyncio.gather(*(use() for _ in range(5)))
    assert len(set(used)) == len(builder.built) == 1
    with pytest.raises(OSError, match="midway"):
        async with pool.lease(ANT):
            raise OSError("midway")
    assert pool.stats.idle == 1, "whoever uses it beside is not held up by it either"
    async with pool.lease(BEE):
        await idle_tasks()
    assert builder.closed == ["agt_ant"]


async def test_one_who_works_for_a_holder_does_not_wait_for_the_holder() -> None:
    builder = Builder()
    pool = AgentPool(builder, max_agents=2)

    async def nested(depth: int) -> int:
        async with pool.lease(ANT):
            await asyncio.sleep(0)
            inner = await nested(depth - 1) if depth else 0
            return inner + 1

    assert await asyncio.gather(*(nested(3) for _ in range(20))) == [4] * 20
    assert pool.stats.in_use == pool.stats.waiting == 0
    assert pool.stats.idle <= 2


async def test_a_fan_out_keeps_to_the_bound() -> None:
    pool = AgentPool(Builder(), max_agents=4)
    most = 0

    async def part() -> None:
        nonlocal most
        async with pool.lease(BEE):
            most = max(most, pool.stats.in_use)
            await asyncio.sleep(0)

    async with pool.lease(ANT):
        await asyncio.gather(*(part() for _ in range(50)))
    assert most == 4


async def test_a_closed_pool_lends_nothing_and_closes_what_comes_back() -> None:
    builder = Builder()
    pool = AgentPool(builder, max_agents=2, close=builder.close)
    async with pool.lease(ANT):
        async with pool.lease(BEE):
            pass
        async with pool.lease(CAT):
            waiting = by_somebody_else(pool.lease(BEE).__aenter__())
            await idle_tasks()
            await pool.aclose()
            with pytest.raises(RuntimeError, match="closed"):
                await waiting
            with pytest.raises(RuntimeError, match="closed"):
                await pool.lease(ANT).__aenter__()
    await pool.aclose()
    assert sorted(builder.closed) == ["agt_ant", "agt_bee", "agt_cat"]
    assert (pool.stats.in_use, pool.stats.idle) == (0, 0)


async def test_errors_of_closing_are_logged_and_plain_closes_run_in_threads(caplog: pytest.LogCaptureFixture) -> None:
    threads: list[threading.Thread] = []

    def close(_: object) -> None:
        threads.append(threading.current_thread())
        raise OSError("stuck")

    pool = AgentPool(Builder(), close=close)
    async with pool.lease(ANT):
        pass
    with caplog.at_level(logging.ERROR):
        await pool.aclose()
    assert "could not be closed" in caplog.text
    assert threads != [threading.main_thread()]


def test_in_another_loop_a_pool_begins_anew() -> None:
    builder = Builder()
    pool = AgentPool(builder, close=builder.close)

    async def use() -> None:
        async with pool.lease(ANT):
            with pytest.raises(RuntimeError, match="another event loop"):
                await asyncio.to_thread(asyncio.run, elsewhere())
        await idle_tasks()

    async def elsewhere() -> None:
        async with pool.lease(ANT):
            raise AssertionError

    asyncio.run(use())
    asyncio.run(use())
    assert len(builder.built) == 2
    assert builder.closed == ["agt_ant"]


def test_a_bound_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        AgentPool(Builder(), max_agents=0)


class Forgetful:
    """An agent that has seen invocations, and keeps none."""

    def __init__(self, seen: list[weakref.ref[object]]) -> None:
        self.seen = seen

    async def __call__(self, invocation: Invocation) -> str:
        """Remember it weakly."""
        self.seen.append(weakref.ref(invocation))
        return invocation.message


async def test_the_pool_keeps_nothing_of_an_invocation() -> None:
    seen: list[weakref.ref[object]] = []
    pool = AgentPool(lambda _: Forgetful(seen), check=False)
    async with local_server() as server:
        for number in range(3):
            assert (await server.run(pool, str(number))).expect().answer == str(number)
        await idle_tasks()
        gc.collect()
        assert [each() for each in seen] == [None] * 3
    assert (pool.stats.built, pool.stats.reused) == (1, 2)


async def test_executions_of_one_runner_reuse_agents_until_there_is_a_new_revision() -> None:
    builder = Builder()
    pool = AgentPool(builder, close=builder.close)
    agent = Agent(pool, instructions="carry", runtime={"legs": 6}, tools=("lift",))
    async with local_server() as server:
        await server.serve({"ant": agent})
        for number in range(3):
            assert (await server.run("ant", str(number))).expect().answer == f"ant carry {number}"
        await update(server, "ant", "rest")
        assert (await server.run("ant", "now")).expect().answer == "ant rest now"
        await idle_tasks()
    one, other = builder.built
    assert (one.slug, one.runtime, one.tools) == ("ant", {"legs": 6}, ("lift",))
    assert one.agent_id == other.agent_id
    assert one.agent_revision < other.agent_revision
    assert builder.closed == [one.agent_id]
    assert pool.stats.idle == 1


async def update(server: LocalServer, slug: str, instructions: str) -> None:
    """Give an agent other instructions."""
    agent = await server.client.agent_queries.GetByReference(ResourceReference(slug=slug))
    agent.spec.instructions = instructions
    await server.client.agents.Update(agent)


async def fails(_: Invocation) -> None:
    """Fail."""
    raise AgentFailure("NO_LUCK")


async def test_an_agent_that_has_failed_is_not_used_again() -> None:
    gone: list[object] = []
    pool = AgentPool(lambda _: fails, close=gone.append)
    async with local_server() as server:
        assert (await server.run(pool)).reason == "NO_LUCK"
        await pool.aclose()
    assert gone == [fails]


async def test_an_agent_that_was_cancelled_is_not_used_again() -> None:
    gone: list[object] = []
    hangs = Script("Begun.", Hang())
    pool = AgentPool(lambda _: hangs, close=gone.append)
    async with local_server() as server:
        handle = await server.start(pool)
        await handle.until_said("Begun.")
        await handle.cancel()
        assert (await handle.result()).phase == "cancelled"
        await pool.aclose()
    assert gone == [hangs]


async def test_an_agent_that_was_paused_is_not_used_again() -> None:
    gone: list[object] = []
    asks = Script(Ask("Go on?"))
    pool = AgentPool(lambda _: asks, close=gone.append)
    async with local_server() as server:
        handle = await server.start(pool)
        await handle.until("waiting_for_input")
        await handle.pause()
        await handle.until("paused")
        await handle.resume()
        await handle.answer("yes")
        (await handle.result()).expect()
        assert (pool.stats.built, pool.stats.idle) == (2, 1)
    assert gone == [asks]


class Curious:
    """An agent that keeps whom it last worked for."""

    def __init__(self) -> None:
        self.last_user = ""
        self.cache: dict[str, str] = {}

    async def __call__(self, invocation: Invocation) -> str:
        """Tell whom it worked for before."""
        before, self.last_user = self.last_user, invocation.message
        return before


async def test_an_agent_that_changes_itself_fails_what_it_works_on_and_is_gone() -> None:
    pool = AgentPool(lambda _: Curious())
    async with local_server() as server:
        state = await server.run(pool, "ada")
        assert (state.phase, state.reason) == ("failed", "AGENT_MUTATED")
        assert "last_user" in state.error
        assert "ada" not in state.error
        assert pool.stats.idle == 0
    async with local_server(check_pools=False) as server:
        assert (await server.run(pool, "ada")).expect().answer == ""
        assert (await server.run(pool, "bob")).expect().answer == "ada"


async def test_a_check_is_on_when_it_is_asked_for_and_leaves_out_what_it_is_told_to() -> None:
    async def use(agent: Any, attribute: str) -> None:  # noqa: ANN401  # any agent
        agent.cache[attribute] = attribute

    async with AgentPool(lambda _: Curious()).lease(ANT) as agent:
        await use(agent, "x")
    for shared in (False, True):
        checking = AgentPool(lambda _: Curious(), check=True, shared=shared)
        with pytest.raises(AgentMutated) as caught:
            async with checking.lease(ANT) as agent:
                await use(agent, "secret")
        assert caught.value.paths == ("cache",)
        assert "secret" not in str(caught.value)
        assert (checking.stats.idle, checking.stats.in_use) == (0, 0)
    async with AgentPool(lambda _: Curious(), check=True, ignore=("cache",)).lease(ANT) as agent:
        await use(agent, "x")


async def test_pools_nest_in_executions_that_are_delegated_too() -> None:
    async def build(_: AgentConfiguration) -> Callable[[Invocation], Awaitable[str]]:
        return chain

    async def chain(invocation: Invocation) -> str:
        depth = int(invocation.message)
        if not depth:
            return "."
        if depth % 2:
            return f"{depth}{await invocation.context.sub_agent(pool, str(depth - 1), name='chain')}"
        return f"{depth}{await invocation.context.delegate('chain', str(depth - 1))}"

    pool = AgentPool(build, max_agents=1)
    async with local_server() as server:
        await server.serve({"chain": pool})
        states = await asyncio.gather(*(server.run("chain", "4") for _ in range(3)))
    assert [state.expect().answer for state in states] == ["4321."] * 3
    assert pool.stats.idle <= 1


async def test_a_plain_function_and_a_generator_are_pooled_as_any_agent() -> None:
    def plain(invocation: Invocation) -> str:
        return f"plain {invocation.message}"

    async def streams(invocation: Invocation):  # type: ignore[no-untyped-def]  # noqa: ANN202  # an async generator
        yield "streams "
        yield invocation.message

    async with local_server() as server:
        for function in (plain, streams):
            state = await server.run(AgentPool(lambda _, function=function: function), "x", name=function.__name__)  # type: ignore[misc]
            assert state.expect().answer == f"{function.__name__} x"


async def test_the_pool_of_the_page_is_one_and_every_option_is_told() -> None:
    page = (Path(__file__).parents[2] / "docs" / "runners.md").read_text(encoding="utf-8")
    section = page.partition("## Expensive agents: the pool")[2].partition("\n## ")[0]
    names: dict[str, Any] = {"Agent": Agent, "agents": {}}
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(compile(block, "runners.md", "exec"), names)  # noqa: S102  # our own page
    async with local_server() as server:
        await server.serve(names["agents"])
        for told in ("tides: shelf B4", "moons: shelf unknown"):
            assert (await server.run("librarian", told.partition(":")[0])).expect().answer == told
    assert names["librarians"].stats.reused == 1
    options = inspect.signature(AgentPool).parameters.keys() - {"build", "clock"}
    assert [name for name in options if f"`{name}`" not in section] == []


async def test_an_agent_that_works_on_in_its_thread_is_closed_when_that_has_ended_and_not_before() -> None:
    go_on, told = threading.Event(), []
    closed = asyncio.Event()

    class Blocks:
        def __call__(self, _: Invocation) -> None:
            go_on.wait()
            told.append("ended")

    async def close(_: Blocks) -> None:
        told.append("closed")
        closed.set()

    pool = AgentPool(lambda _: Blocks(), max_agents=1, close=close)
    async with local_server() as server:
        state = await server.run(pool, max_duration=0.05)
        assert state.reason == "DEADLINE_EXCEEDED"
        assert (pool.stats.in_use, told) == (1, [])
        go_on.set()
        await closed.wait()
    assert told == ["ended", "closed"]
    assert pool.stats.in_use == 0
