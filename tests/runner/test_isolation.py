"""Isolation: what belongs to one invocation is never seen in another one's messages, tools, logs or spans.

Every tree of executions has a user, a secret, a correlation id, a word and a budget that no other one has. Whatever was
told anywhere is searched for all of them, and may hold none but its own tree's.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest
from google.protobuf.json_format import MessageToJson
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from runstream.runner import (
    Agent,
    AgentConfiguration,
    AgentPool,
    ExecutionContext,
    Invocation,
    ToolBroke,
    ToolDispatcher,
    ToolRegistry,
    current_context,
)
from runstream.runner.context import Budget, SecretsFilter
from runstream.testing import local_server
from runstream.v1.agent_execution_pb2 import AgentExecution
from tests.process import ROUNDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from runstream.runner.agents import AgentFunction
    from runstream.testing import LocalServer

LOG = logging.getLogger("tests.isolation")
#: How many executions are made at once; those that they delegate come on top.
AT_ONCE: Final = 200
SECONDS: Final = 120.0
#: How deep the agents at the top go: twice nested.
DEEP: Final = 2
#: What one tree's budget has more than the one before; far more than any of them spends.
SPACE: Final = 1_000_000
FIRST_BUDGET: Final = 77_000_000 * SPACE
MARKS: Final = re.compile(r"(?:user|secret|order|word)-[0-9a-f]{12}|\b77000\d{9}\b")  # no part of an id


@dataclass(frozen=True)
class Caller:
    """Somebody for whom a tree of executions is made, and what nobody else has."""

    token: str
    budget: int

    def marks(self) -> set[str]:
        """Return all that is this one's."""
        return {f"{kind}-{self.token}" for kind in ("user", "order", "word")} | {_of_budget(self.budget)}

    def request(self, message: str, agent: str) -> AgentExecution:
        """Return an execution to be made."""
        made = AgentExecution()
        made.metadata.labels["for"] = self.token
        made.spec.message = f"word-{self.token} {message}"
        made.spec.agent_id = agent
        made.spec.runtime_env["TOKEN"].value = f"secret-{self.token}"
        made.spec.runtime_env["TOKEN"].is_secret = True
        context = made.spec.context
        context.user_id, context.correlation_id = f"user-{self.token}", f"order-{self.token}"
        context.budget.tokens = self.budget
        return made


def callers(count: int, random_: random.Random) -> list[Caller]:
    """Make up some."""
    tokens = {f"{random_.getrandbits(48):012x}": None for _ in range(count)}
    return [Caller(token, FIRST_BUDGET + (number + 1) * SPACE - 1) for number, token in enumerate(tokens)]


def marks(text: str) -> set[str]:
    """Return what is anybody's in a text; budgets by whose they are, however much was spent."""
    return {_of_budget(int(found)) if found.isdecimal() else found for found in MARKS.findall(text)}


def _of_budget(tokens: int) -> str:
    return f"budget-{tokens // SPACE}"


@dataclass
class Seen:
    """What agents and tools have seen, by the word of the message that they were given."""

    found: list[tuple[str, set[str]]] = field(default_factory=list)

    def note(self, word: str, context: ExecutionContext, *others: str) -> None:
        """Note what a context holds, and its secret; the secret is to come with its own tree's word."""
        secret = context.secret("TOKEN").replace("secret", "word")
        told = (context.user, context.correlation_id, str(context.budget.tokens), secret, *others)
        self.found.append((word, marks(" ".join(told))))


class Tools:
    """Tools that look at their context, and tell what they find there."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.registry = ToolRegistry()
        for tool in (self.whoami, self.blocks, self.breaks, self.asks):
            self.registry.add(tool)
        self.dispatcher = ToolDispatcher(self.registry)
        self.pool: AgentPool | None = None
        #: Where the agents at the top wait until all of them are at work.
        self.together: asyncio.Barrier | None = None

    async def whoami(self, word: str, context: ExecutionContext) -> dict[str, object]:
        """Tell for whom this is."""
        await asyncio.sleep(0)
        self._look(word, context)
        return {"word": word, "user": context.user, "budget": context.budget.tokens, "order": context.correlation_id}

    def blocks(self, word: str, context: ExecutionContext) -> str:
        """Tell it from a thread, and call another tool from there."""
        self._look(word, context)
        found = self.dispatcher.call_sync("whoami", {"word": word}, current_context())
        return f"{context.user} {found['user']}"

    async def breaks(self, word: str, context: ExecutionContext) -> None:
        """Fail, and tell why, secret and all."""
        self._look(word, context)
        raise ValueError(f"{word} of {context.user} has {context.secret('TOKEN')}")

    async def asks(self, word: str, depth: int, seed: int, context: ExecutionContext) -> str:
        """Have another agent of the same pool work within this tool."""
        self._look(word, context)
        assert self.pool is not None
        budget = Budget(tokens=(context.budget.tokens or 0) - 1)
        return await context.sub_agent(self.pool, f"{word} {depth} {seed}", name="within", budget=budget)

    def _look(self, word: str, context: ExecutionContext) -> None:
        self.seen.note(word, context, current_context().user)
        LOG.info("%s: %s with %s", context.root_execution, context.user, context.secret("TOKEN"))


class Worker:
    """An agent that keeps nothing: it uses tools and other agents, as its message says by a seed."""

    def __init__(self, configuration: AgentConfiguration, tools: Tools) -> None:
        self.configuration = configuration
        self.tools = tools

    async def __call__(self, invocation: Invocation) -> str:
        """Do as the message says: a word, how deep to go, and a seed."""
        word, depth, seed = invocation.message.split()
        context, random_ = invocation.context, random.Random(f"{word} {depth} {seed}")
        self.tools.seen.note(word, context, invocation.env["TOKEN"].replace("secret", "word"))
        LOG.info("%s: %s of %s", context.root_execution, word, invocation.env)
        if self.tools.together is not None and int(depth) == DEEP:
            await self.tools.together.wait()
        await context.report.usage("m", input_tokens=random_.randrange(9))
        if random_.random() < 0.6:
            await self.use(random_.choice(["whoami", "blocks", "breaks"]), word, context)
        await context.report.text(f"{word} for {context.user}, {context.left().tokens} left. ")
        if int(depth):
            await self.go_deeper(word, int(depth) - 1, random_, context)
        self.tools.seen.note(word, context, current_context().user)
        return f"{word} is done for {context.user}"

    async def use(self, tool: str, word: str, context: ExecutionContext) -> None:
        """Use a tool; one that breaks is told."""
        try:
            await self.tools.dispatcher.call(tool, {"word": word}, context)
        except ToolBroke as error:
            LOG.info("%s: %s", context.root_execution, error, exc_info=error)

    async def go_deeper(self, word: str, depth: int, random_: random.Random, context: ExecutionContext) -> None:
        """Have others work: in a tool, beside it, or as an execution of their own."""
        seed, agent = random_.randrange(1000), self.configuration.slug
        way = random_.choice(["tool", "tool", "sub_agent", "sub_agent", "delegate"])
        if way == "tool":
            arguments = {"word": word, "depth": depth, "seed": seed}
            answer = await self.tools.dispatcher.call("asks", arguments, context)
        elif way == "sub_agent":
            pool = self.tools.pool
            assert pool is not None
            parts = (context.sub_agent(pool, f"{word} {depth} {seed + part}", name=agent) for part in range(2 - depth))
            answer = " ".join(await asyncio.gather(*parts))
        else:
            answer = str(await context.delegate(agent, f"{word} {depth} {seed}", secrets=["TOKEN"]))
        await context.report.text(f"Heard: {answer}. ")


class Streaming(Worker):
    """The same, from a task of its own."""

    async def __call__(self, invocation: Invocation) -> str:
        """Do as the message says."""
        return await asyncio.create_task(super().__call__(invocation))


class Blocking(Worker):
    """The same, from a thread of its own."""

    async def __call__(self, invocation: Invocation) -> str:
        """Do as the message says."""

        def in_thread() -> str:
            return invocation.wait(super(Blocking, self).__call__(invocation))

        return str(await invocation.in_thread(in_thread))


AGENTS: Final[dict[str, type[Worker]]] = {"worker": Worker, "streaming": Streaming, "blocking": Blocking}


def pool_of(tools: Tools, most: int) -> AgentPool:
    """Return the one pool of all agents; what the test itself has them note is no change of theirs."""
    return AgentPool(
        lambda configuration: AGENTS[configuration.slug](configuration, tools), max_agents=most, ignore=("seen",)
    )


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Have the SDK's spans exported here, and nowhere else."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("runstream.runner.tracing._TRACER", provider.get_tracer("runstream.runner"))
    yield exporter
    provider.shutdown()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Log what the agents say, without secrets."""
    caplog.handler.addFilter(blanking := SecretsFilter())
    with caplog.at_level(logging.INFO, "tests.isolation"):
        yield caplog
    caplog.handler.removeFilter(blanking)


async def everything(server: LocalServer, of: Caller, ids: Iterable[str]) -> list[AgentExecution]:
    """Return all executions of a tree, whole, sub-executions included."""
    found, left = [], list(ids)
    while left:
        execution = (await server.handle(left.pop()).state()).execution
        found.append(execution)
        left += [entry.execution_id for entry in execution.status.sub_agent_executions if entry.execution_id]
    assert all(each.spec.context.user_id == f"user-{of.token}" for each in found)
    return found


def foreign(told: str, own: set[str]) -> set[str]:
    """Return what a text holds of anybody else, and secrets of anybody."""
    return marks(told) - own


async def make(
    server: LocalServer,
    made: list[Caller],
    random_: random.Random,
    *,
    depth: int,
    kinds: Mapping[str, type[Worker]] = AGENTS,
) -> dict[str, Caller]:
    """Have an execution made for each, all at once; return for whom which one is, when all have ended."""

    async def one(caller: Caller, agent: str, seed: int) -> tuple[str, Caller]:
        request = caller.request(f"{depth} {seed}", agent)
        state = await server.run(agent, request, within=SECONDS)
        assert state.expect().answer == f"word-{caller.token} is done for user-{caller.token}"
        return state.id, caller

    chosen = [(caller, random_.choice(sorted(kinds)), random_.randrange(10_000)) for caller in made]
    return dict(await asyncio.gather(*(one(*each) for each in chosen)))


async def expect_isolated(server: LocalServer, roots: dict[str, Caller], seen: Seen) -> int:
    """Search all that was reported for what is somebody else's; return how many executions there were."""
    count = 0
    for root, caller in roots.items():
        own = caller.marks()
        for execution in await everything(server, caller, [root]):
            count += 1
            told = MessageToJson(execution)
            assert foreign(told, own) == set()
            assert own <= marks(told), "and its own is there"
            assert execution.spec.context.root_execution_id in ("", root)
    by_word = {f"word-{caller.token}": caller.marks() for caller in roots.values()}
    assert [(word, found) for word, found in seen.found if found - by_word[word]] == []
    assert {word for word, _ in seen.found} == set(by_word)
    return count


def expect_quiet(roots: dict[str, Caller], log: pytest.LogCaptureFixture, spans: InMemorySpanExporter) -> None:
    """Search logs and spans."""
    lines = [log.handler.format(record) for record in log.records if record.name == LOG.name]
    assert len(lines) > len(roots)
    assert not any("secret-" in line for line in lines), "and no secret was logged by anybody"
    for line in lines:
        root = re.search(r"(aex_\w+): ", line)
        assert root is not None
        assert foreign(line, roots[root[1]].marks()) == set()
    finished = spans.get_finished_spans()
    assert {span.name.split()[0] for span in finished} == {"execution", "invoke_agent", "execute_tool"}
    traces: dict[int, str] = {}
    for span in finished:
        root_id = str((span.attributes or {})["runstream.execution.root_id"])
        assert foreign(span.to_json(), roots[root_id].marks()) == set()
        assert traces.setdefault(span.context.trace_id, root_id) == root_id, "one trace, one tree"
    assert set(traces.values()) == set(roots)


@pytest.mark.parametrize(("at_once", "most"), [(AT_ONCE, 4 * AT_ONCE), (AT_ONCE // 5, 5)])
@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_nothing_of_one_invocation_is_seen_in_another_however_many_run_at_once(
    seed: int, at_once: int, most: int, log: pytest.LogCaptureFixture, spans: InMemorySpanExporter
) -> None:
    random_ = random.Random(f"{seed} {at_once}")
    tools = Tools(seen := Seen())
    pool = tools.pool = pool_of(tools, most)
    tools.together = asyncio.Barrier(at_once) if most >= at_once else None
    async with local_server(timeout=SECONDS) as server:
        agents: dict[str, AgentFunction | Agent] = {name: Agent(pool, instructions=name) for name in AGENTS}
        await server.serve(agents, capacity=4 * AT_ONCE)
        roots = await make(server, callers(at_once, random_), random_, depth=DEEP)
        count = await expect_isolated(server, roots, seen)
        assert count > at_once
        stats = pool.stats
    expect_quiet(roots, log, spans)
    assert stats.in_use == stats.waiting == 0
    assert stats.idle <= most
    assert stats.reused > 0


class Leaky(Worker):
    """An agent with the fault of the second incident: it keeps whom it works for on itself."""

    last_user = "nobody"

    async def __call__(self, invocation: Invocation) -> str:
        """Greet the last one."""
        last, self.last_user = self.last_user, invocation.context.user
        await invocation.report.text(f"Welcome back, {last}. ")
        return await super().__call__(invocation)


async def in_sequence(
    server: LocalServer, made: list[Caller], random_: random.Random, tools: Tools, kinds: dict[str, type[Worker]]
) -> tuple[AgentPool, dict[str, Caller]]:
    """Have one pooled agent of each kind work for one after the other."""

    def build(configuration: AgentConfiguration) -> Worker:
        return kinds[configuration.slug](configuration, tools)

    pool = tools.pool = AgentPool(build, max_agents=4 * len(kinds), ignore=("seen",))
    await server.serve({name: Agent(pool) for name in kinds})
    roots: dict[str, Caller] = {}
    for caller in made:
        roots |= await make(server, [caller], random_, depth=1, kinds=kinds)
    return pool, roots


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_nothing_of_one_invocation_is_seen_in_the_next_one_of_the_same_agent(
    seed: int, log: pytest.LogCaptureFixture, spans: InMemorySpanExporter
) -> None:
    random_ = random.Random(f"sequence {seed}")
    tools = Tools(seen := Seen())
    async with local_server(timeout=SECONDS) as server:
        pool, roots = await in_sequence(server, callers(20, random_), random_, tools, AGENTS)
        await expect_isolated(server, roots, seen)
    assert pool.stats.reused >= len(roots) - len(AGENTS)
    expect_quiet(roots, log, spans)


async def test_an_agent_that_leaks_is_found_by_the_comparison() -> None:
    random_ = random.Random("leaky")
    tools = Tools(seen := Seen())
    async with local_server(check_pools=False) as server:
        made = callers(5, random_)
        pool, roots = await in_sequence(server, made, random_, tools, {"leaky": Leaky})
        assert pool.stats.reused > 0
        with pytest.raises(AssertionError, match=f"user-({'|'.join(caller.token for caller in made)})"):
            await expect_isolated(server, roots, seen)


async def test_an_agent_that_leaks_is_caught_by_the_check_of_the_pool_before_it_leaks() -> None:
    tools = Tools(Seen())
    pool = tools.pool = AgentPool(lambda configuration: Leaky(configuration, tools), ignore=("seen",))
    async with local_server() as server:
        await server.serve({"leaky": pool})
        for caller in callers(3, random.Random("leaky")):
            state = await server.run("leaky", caller.request("0 0", ""))
            assert (state.phase, state.reason) == ("failed", "AGENT_MUTATED")
            assert "last_user" in state.error
            assert foreign(MessageToJson(state.execution), caller.marks()) == set()


def test_the_comparison_finds_each_kind_of_mark() -> None:
    one, other = callers(2, random.Random(0))
    for told in (*(f"{kind}-{other.token}" for kind in ("user", "order", "word", "secret")), f"{other.budget - 7}.0"):
        assert foreign(f"{{'seen': '{told}'}}", one.marks())
    own = f"user-{one.token} order-{one.token} word-{one.token} {one.budget - 99} aex_01m7za77000123456789"
    assert foreign(own, one.marks()) == set()
    assert foreign(f"secret-{one.token}", one.marks()), "a secret is nobody's to see"
