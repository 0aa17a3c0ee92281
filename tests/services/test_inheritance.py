"""What a sub-execution takes over from its parent, and that it never has more: by Create, by Update, at any depth."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from grpc import aio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runstream.model.times import to_datetime
from runstream.model.tool_names import sanitised
from runstream.services.executions.inheritance import context_below, context_within
from runstream.storage.records import AGENT_EXECUTION
from runstream.storage.store import Transaction
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_COMPLETED,
    THOROUGHNESS_MEDIUM,
    THOROUGHNESS_QUICK,
    THOROUGHNESS_UNCAPPED,
    THOROUGHNESS_UNSPECIFIED,
    THOROUGHNESS_VERY_THOROUGH,
    AgentExecution,
    ExecutionBudget,
    ExecutionContext,
    Thoroughness,
)
from runstream.v1.agent_execution_service_pb2 import ListAgentExecutionsRequest
from runstream.v1.resource_pb2 import ResourceId
from tests.clock import FakeClock
from tests.families import below
from tests.making import agent, an_agent, delta, stored
from tests.process import ROUNDS
from tests.serving import INVALID, Refusal, refusal, serving

if TYPE_CHECKING:
    from tests.serving import Client, Serving


def asking(agent_id: str, context: ExecutionContext, parent_id: str = "") -> AgentExecution:
    """An execution to create with a context, perhaps below another."""
    made = below(parent_id, agent_id, call="call" if parent_id else "")
    made.spec.context.MergeFrom(context)
    return made


async def descend(client: Client, *contexts: ExecutionContext) -> list[ExecutionContext]:
    """Create an execution for each context, each the parent of the next; return what they got."""
    agent_id, parent_id, got = await an_agent(client), "", []
    for context in contexts:
        made = await client.executions.Create(asking(agent_id, context, parent_id))
        assert await stored(client, made.metadata.id) == made
        parent_id = made.metadata.id
        got.append(made.spec.context)
    return got


def some(*names: str) -> ExecutionContext:
    """A context that allows these tools alone, or none."""
    return ExecutionContext(allowed_tools=names, only_allowed_tools=True)


def tools_of(context: ExecutionContext) -> list[str] | None:
    """The tools that a context says it allows; None is all."""
    return list(context.allowed_tools) if context.only_allowed_tools else None


EVERYTHING = ExecutionContext()


async def test_a_list_of_tools_allows_no_others(client: Client) -> None:
    """The server says so of an execution without a parent, too; an empty list alone says nothing."""
    agent_id = await an_agent(client)
    for asked, expected in ((ExecutionContext(allowed_tools=["read"]), ["read"]), (EVERYTHING, None), (some(), [])):
        made = await client.executions.Create(asking(agent_id, asked))
        assert tools_of(made.spec.context) == expected
        assert await stored(client, made.metadata.id) == made


@pytest.mark.parametrize(
    ("parent", "asked", "expected"),
    [
        (EVERYTHING, EVERYTHING, None),
        (EVERYTHING, some("b", "a"), ["b", "a"]),
        (EVERYTHING, some(), []),
        (some("b", "a"), EVERYTHING, ["b", "a"]),
        (some("c", "b", "a"), some("a", "x", "c"), ["a", "c"]),
        (some("a"), some("b"), []),
        (some(), EVERYTHING, []),
        (some(), some("a"), []),
        (some("a"), some(), []),
    ],
)
async def test_a_sub_execution_may_use_what_both_allow(
    client: Client, parent: ExecutionContext, asked: ExecutionContext, expected: list[str] | None
) -> None:
    """In the order of its own list, or its parent's; what is below it is held to that, whatever it asks for."""
    contexts = await descend(client, parent, asked, EVERYTHING)
    assert [tools_of(context) for context in contexts[1:]] == [expected, expected]


async def test_tools_are_compared_by_their_sanitised_names(client: Client) -> None:
    """And stay as they were written by whoever lists them."""
    root = some("web.search", "\uff32ead", "x" * 70, "\u67e5\u8be2")
    asked = some("web search", "Read", "x" * 70, "x" * 66, "\u5220\u9664", "webXsearch")
    contexts = await descend(client, root, EVERYTHING, asked)
    assert tools_of(contexts[1]) == ["web.search", "\uff32ead", "x" * 70, "\u67e5\u8be2"]
    assert tools_of(contexts[2]) == ["web search", "Read", "x" * 70]


async def test_a_list_from_before_there_was_the_flag_limits_as_well(running: Serving) -> None:
    """A parent that was stored without `only_allowed_tools` still allows its sub-executions no others."""
    client = running.client
    agent_id = await an_agent(client)
    root = await client.executions.Create(asking(agent_id, some("read")))
    await store_as_before(running, root.metadata.id)
    made = await client.executions.Create(asking(agent_id, EVERYTHING, root.metadata.id))
    assert tools_of(made.spec.context) == ["read"]


async def test_an_execution_that_ended_before_there_was_the_flag_takes_labels(running: Serving) -> None:
    """Getting it, changing its labels and sending it back is still possible."""
    client = running.client
    made = await client.executions.Create(asking(await an_agent(client), some("read")))
    await client.executions.UpdateStatus(delta(made.metadata.id, phase=EXECUTION_COMPLETED))
    await store_as_before(running, made.metadata.id)
    request = await stored(client, made.metadata.id)
    request.metadata.labels["seen"] = "yes"
    assert dict((await client.executions.Update(request)).metadata.labels) == {"seen": "yes"}


async def store_as_before(running: Serving, execution_id: str) -> None:
    """Store an execution as a server did that knew no `only_allowed_tools`."""
    record = await running.store.durable.get(AGENT_EXECUTION, execution_id)
    assert record is not None
    record.spec.context.only_allowed_tools = False
    transaction = Transaction()
    transaction.put(AGENT_EXECUTION, execution_id, record)
    await running.store.commit(transaction)


@pytest.mark.parametrize(
    ("parent", "asked", "expected"),
    [
        (THOROUGHNESS_UNSPECIFIED, THOROUGHNESS_UNSPECIFIED, THOROUGHNESS_UNSPECIFIED),
        (THOROUGHNESS_UNSPECIFIED, THOROUGHNESS_QUICK, THOROUGHNESS_QUICK),
        (THOROUGHNESS_UNSPECIFIED, THOROUGHNESS_UNCAPPED, THOROUGHNESS_MEDIUM),
        (THOROUGHNESS_QUICK, THOROUGHNESS_UNSPECIFIED, THOROUGHNESS_QUICK),
        (THOROUGHNESS_QUICK, THOROUGHNESS_MEDIUM, THOROUGHNESS_QUICK),
        (THOROUGHNESS_UNCAPPED, THOROUGHNESS_VERY_THOROUGH, THOROUGHNESS_VERY_THOROUGH),
        (THOROUGHNESS_UNCAPPED, THOROUGHNESS_UNSPECIFIED, THOROUGHNESS_UNCAPPED),
    ],
)
async def test_a_sub_execution_is_never_more_thorough_than_its_parent(
    client: Client,
    parent: Thoroughness.ValueType,
    asked: Thoroughness.ValueType,
    expected: Thoroughness.ValueType,
) -> None:
    """It inherits what it does not say, and so does what is below it."""
    contexts = await descend(
        client, ExecutionContext(thoroughness=parent), ExecutionContext(thoroughness=asked), EVERYTHING
    )
    assert [context.thoroughness for context in contexts[1:]] == [expected, expected]


async def test_user_correlation_and_language_are_inherited(client: Client) -> None:
    """At every depth; the same value may be sent along, and a language of its own."""
    root = ExecutionContext(user_id="ada", correlation_id="order-7", language="de")
    same = ExecutionContext(user_id="ada", correlation_id="order-7", language="fr")
    contexts = await descend(client, root, EVERYTHING, same, EVERYTHING)
    assert {(context.user_id, context.correlation_id) for context in contexts} == {("ada", "order-7")}
    assert [context.language for context in contexts] == ["de", "de", "fr", "fr"]


async def of_org(client: Client, org: str, agent_id: str, parent_id: str = "") -> AgentExecution:
    """Create an execution of an organization, perhaps below another; return it."""
    request = asking(agent_id, EVERYTHING, parent_id)
    request.metadata.org = org
    return await client.executions.Create(request)


@pytest.mark.parametrize("org", ["acme", ""])
async def test_a_sub_execution_is_of_the_organization_of_its_parent(client: Client, org: str) -> None:
    """At every depth, left out or sent along; so is its session, and lists of the organization have both."""
    agent_id = await an_agent(client)
    root = await of_org(client, org, agent_id)
    child = await of_org(client, "", agent_id, root.metadata.id)
    last = await of_org(client, org, agent_id, child.metadata.id)
    for made in (root, child, last):
        after = await stored(client, made.metadata.id)
        assert (made.metadata.org, after.metadata.org) == (org, org)
        session = await client.session_queries.Get(ResourceId(value=made.spec.session_id))
        assert session.metadata.org == org
    listed = await client.queries.List(ListAgentExecutionsRequest(org=org))
    assert [each.metadata.id for each in listed.entries] == [each.metadata.id for each in (last, child, root)]


@pytest.mark.parametrize(("org", "other"), [("acme", "globex"), ("acme", "Acme"), ("", "acme")])
async def test_a_sub_execution_is_of_no_other_organization(client: Client, org: str, other: str) -> None:
    """Another one is refused, with whatever else differs, saying what the parent's is; nothing is stored."""
    agent_id = await an_agent(client)
    request = asking(agent_id, ExecutionContext(user_id="ada"))
    request.metadata.org = org
    root = await client.executions.Create(request)
    request = asking(agent_id, ExecutionContext(user_id="bob"), root.metadata.id)
    request.metadata.org = other
    told = await refusal(client.executions.Create(request))
    assert (told.code, told.reason) == (INVALID, "DIFFERS_FROM_PARENT")
    assert told.fields == {"metadata.org": "DIFFERS_FROM_PARENT", "spec.context.user_id": "DIFFERS_FROM_PARENT"}
    assert f"metadata.org: is {other!r}, but the parent's is {org!r}" in told.message
    assert await stored(client, root.metadata.id) == root
    assert len((await client.queries.List(ListAgentExecutionsRequest())).entries) == 1


async def test_an_agent_of_another_organization_may_help(client: Client) -> None:
    """Agents are shared: the sub-execution is its parent's organization's, whoever made the agent."""
    mine, theirs = [(await client.agents.Create(agent("helper", org=org))).metadata.id for org in ("acme", "globex")]
    root = await of_org(client, "acme", mine)
    made = await of_org(client, "", theirs, root.metadata.id)
    assert (made.metadata.org, made.spec.agent_id) == ("acme", theirs)


async def test_a_repeated_create_that_inherits_its_organization_creates_nothing(client: Client) -> None:
    """It answers as the first did, even when the parent is gone, from which the organization came."""
    agent_id = await an_agent(client)
    root = await of_org(client, "acme", agent_id)
    request, key = below(root.metadata.id, agent_id), (("idempotency-key", "k"),)
    first = await client.executions.Create(request, metadata=key)
    await client.executions.Delete(ResourceId(value=root.metadata.id))
    assert await client.executions.Create(request, metadata=key) == first
    assert first.metadata.org == "acme"


async def test_what_nobody_above_has_said_a_sub_execution_may_say(client: Client) -> None:
    """From there on it holds for all below."""
    contexts = await descend(client, EVERYTHING, ExecutionContext(user_id="ada"), EVERYTHING)
    assert [context.user_id for context in contexts] == ["", "ada", "ada"]
    assert not contexts[2].correlation_id


async def test_a_sub_execution_is_for_nobody_else(client: Client) -> None:
    """Another user or correlation is refused, both at once, saying what the parent's is; nothing is stored."""
    agent_id = await an_agent(client)
    root = await client.executions.Create(asking(agent_id, ExecutionContext(user_id="ada", correlation_id="order-7")))
    child = await client.executions.Create(asking(agent_id, EVERYTHING, root.metadata.id))
    before = await stored(client, child.metadata.id)
    for asked, names in (
        (ExecutionContext(user_id="bob"), ["user_id"]),
        (ExecutionContext(correlation_id="Order-7"), ["correlation_id"]),
        (ExecutionContext(user_id="bob", correlation_id="x"), ["user_id", "correlation_id"]),
    ):
        told = await refusal(client.executions.Create(asking(agent_id, asked, child.metadata.id)))
        assert (told.code, told.reason) == (INVALID, "DIFFERS_FROM_PARENT")
        assert told.fields == {f"spec.context.{name}": "DIFFERS_FROM_PARENT" for name in names}
        assert all(repr(getattr(before.spec.context, name)) in told.message for name in names)
    assert await stored(client, child.metadata.id) == before


async def test_baggage_attributes_and_statelessness_are_its_own(client: Client) -> None:
    """They stay as given, and are not inherited."""
    root = ExecutionContext(baggage={"a": "1"}, stateless=True)
    root.attributes["tier"] = "gold"
    contexts = await descend(client, root, ExecutionContext(baggage={"b": "2"}), ExecutionContext(stateless=True))
    assert [dict(context.baggage) for context in contexts] == [{"a": "1"}, {"b": "2"}, {}]
    assert [context.stateless for context in contexts] == [True, False, True]
    assert [len(context.attributes) for context in contexts] == [1, 0, 0]


class Family(NamedTuple):
    """A root and its sub-execution, as they were created."""

    root: AgentExecution
    child: AgentExecution


async def a_family(client: Client, root: ExecutionContext, child: ExecutionContext = EVERYTHING) -> Family:
    """Create a root and a sub-execution of it."""
    agent_id = await an_agent(client)
    above = await client.executions.Create(asking(agent_id, root))
    return Family(above, await client.executions.Create(asking(agent_id, child, above.metadata.id)))


async def updated(client: Client, made: AgentExecution, context: ExecutionContext) -> ExecutionContext:
    """Update an execution with a context; return what it got."""
    request = AgentExecution()
    request.metadata.id = made.metadata.id
    request.spec.message = made.spec.message
    request.spec.context.CopyFrom(context)
    return (await client.executions.Update(request)).spec.context


async def test_an_update_widens_no_sub_execution(client: Client) -> None:
    """Tools and thoroughness can become less; more is not given, and what is left out stays."""
    _, child = await a_family(client, ExecutionContext(allowed_tools=["a", "b"], thoroughness=THOROUGHNESS_MEDIUM))
    wide = ExecutionContext(allowed_tools=["b", "c"], thoroughness=THOROUGHNESS_UNCAPPED, language="de")
    steps = [
        (EVERYTHING, ["a", "b"], THOROUGHNESS_MEDIUM),
        (wide, ["b"], THOROUGHNESS_MEDIUM),
        (ExecutionContext(thoroughness=THOROUGHNESS_QUICK), ["b"], THOROUGHNESS_QUICK),
        (wide, ["b"], THOROUGHNESS_QUICK),
        (some(), [], THOROUGHNESS_QUICK),
        (wide, [], THOROUGHNESS_QUICK),
    ]
    for asked, tools, thoroughness in steps:
        got = await updated(client, child, asked)
        assert (tools_of(got), got.thoroughness) == (tools, thoroughness)


async def test_an_update_makes_a_sub_execution_of_an_unlimited_parent_smaller_alone(client: Client) -> None:
    """What may use everything may be told to use less, and from then on has that; unspecified counts as MEDIUM."""
    _, child = await a_family(client, EVERYTHING)
    assert tools_of(await updated(client, child, EVERYTHING)) is None
    got = await updated(client, child, ExecutionContext(allowed_tools=["a"], thoroughness=THOROUGHNESS_UNCAPPED))
    assert (tools_of(got), got.thoroughness) == (["a"], THOROUGHNESS_MEDIUM)
    assert tools_of(await updated(client, child, EVERYTHING)) == ["a"]


@pytest.mark.parametrize("root", [ExecutionContext(user_id="ada", correlation_id="order-7"), EVERYTHING])
async def test_an_update_makes_a_sub_execution_nobody_elses(client: Client, root: ExecutionContext) -> None:
    """User and correlation stay, left out or sent along; another is refused, even where there was none."""
    _, child = await a_family(client, root)
    before = await stored(client, child.metadata.id)
    for name, asked in (
        ("user_id", ExecutionContext(user_id="bob")),
        ("correlation_id", ExecutionContext(correlation_id="bob")),
    ):
        told = await refusal(updated(client, child, asked))
        assert (told.code, told.reason, list(told.fields)) == (INVALID, "IMMUTABLE_FIELD", [f"spec.context.{name}"])
    assert await stored(client, child.metadata.id) == before
    for asked in (EVERYTHING, root):
        got = await updated(client, child, asked)
        assert (got.user_id, got.correlation_id) == (root.user_id, root.correlation_id)


async def test_an_update_of_a_root_is_the_clients(client: Client) -> None:
    """Its tools, thoroughness and user can be any; a list still allows no others, and a sub-execution keeps its own."""
    root, child = await a_family(client, ExecutionContext(allowed_tools=["a"], user_id="ada"))
    other = ExecutionContext(allowed_tools=["b"], thoroughness=THOROUGHNESS_UNCAPPED, user_id="bob")
    got = await updated(client, root, other)
    assert (tools_of(got), got.thoroughness, got.user_id) == (["b"], THOROUGHNESS_UNCAPPED, "bob")
    assert tools_of(await updated(client, root, EVERYTHING)) is None
    assert (await stored(client, child.metadata.id)).spec.context == child.spec.context


async def test_a_finished_sub_execution_takes_labels_without_its_context(client: Client) -> None:
    """What is left out of the context of one that has ended counts as kept."""
    budget = ExecutionBudget(tokens=5)
    _, child = await a_family(client, ExecutionContext(allowed_tools=["a"], user_id="ada", budget=budget))
    await client.executions.UpdateStatus(delta(child.metadata.id, phase=EXECUTION_COMPLETED))
    request = AgentExecution()
    request.CopyFrom(child)
    request.metadata.revision = 0
    request.spec.ClearField("context")
    request.metadata.tags.append("seen")
    after = await client.executions.Update(request)
    assert (list(after.metadata.tags), after.spec.context) == (["seen"], child.spec.context)


NAMES = st.sampled_from(["read", "re.ad", "re_ad", "\uff52ead", "write", "write!", "x" * 64, "x" * 65])
BUDGETS = st.builds(
    ExecutionBudget,
    **{name: st.none() | st.integers(0, 5) for name in ("model_calls", "tool_calls", "tokens", "cost_micros", "depth")},
)
CONTEXTS = st.builds(
    ExecutionContext,
    allowed_tools=st.lists(NAMES, unique=True, max_size=5),
    only_allowed_tools=st.booleans(),
    thoroughness=st.sampled_from(list(Thoroughness.values())),
    budget=st.none() | BUDGETS,
    user_id=st.sampled_from(["", "", "ada", "bob"]),
    language=st.sampled_from(["", "de"]),
)


def check_within(inner: ExecutionContext, outer: ExecutionContext) -> None:
    """See that a context allows nothing that another does not."""
    wanted = None if tools_of(outer) is None else {sanitised(name) for name in outer.allowed_tools}
    if wanted is not None:
        assert inner.only_allowed_tools
        assert {sanitised(name) for name in inner.allowed_tools} <= wanted
    assert (inner.thoroughness or THOROUGHNESS_MEDIUM) <= (outer.thoroughness or THOROUGHNESS_MEDIUM)
    spent = {field.name: value for field, value in inner.budget.ListFields()}
    for field, most in outer.budget.ListFields():
        assert spent[field.name] <= most
    if outer.HasField("deadline"):
        assert inner.HasField("deadline")
        assert to_datetime(inner.deadline) <= to_datetime(outer.deadline)
    assert inner.user_id == outer.user_id or not outer.user_id


@given(CONTEXTS, CONTEXTS)
def test_nobody_gets_more_than_was_asked_for(own: ExecutionContext, limit: ExecutionContext) -> None:
    """Nor less than both allow: a tool that both list is there; both arguments stay as they were."""
    own.user_id = limit.user_id = ""
    before = (own.SerializeToString(deterministic=True), limit.SerializeToString(deterministic=True))
    got = context_within(own, limit)
    assert before == (own.SerializeToString(deterministic=True), limit.SerializeToString(deterministic=True))
    check_within(got, _completed(limit))
    if own.thoroughness:
        assert got.thoroughness <= own.thoroughness
    own_names, limit_names = ({sanitised(name) for name in each.allowed_tools} for each in (own, limit))
    if own_names and limit_names:
        assert {sanitised(name) for name in got.allowed_tools} == own_names & limit_names
    assert context_within(got, limit) == got


@given(st.lists(CONTEXTS, min_size=2, max_size=8))
def test_no_chain_of_contexts_widens(chain: list[ExecutionContext]) -> None:
    """Whatever is asked for at any depth, nobody has more than anybody above."""
    above = [_completed(chain[0])]
    for own in chain[1:]:
        parent = above[-1]
        if parent.budget.HasField("depth") and parent.budget.depth == 0:
            return
        own.user_id = own.user_id if not parent.user_id else ""
        got = context_below(own, parent)
        for ancestor in above:
            check_within(got, ancestor)
        above.append(got)


def _completed(context: ExecutionContext) -> ExecutionContext:
    """A context as the server completes that of a root."""
    made = ExecutionContext()
    made.CopyFrom(context)
    made.only_allowed_tools = made.only_allowed_tools or bool(made.allowed_tools)
    return made


class Step(NamedTuple):
    """A Create below one of the executions so far, or an Update of one."""

    creates: bool
    at: int
    asked: ExecutionContext
    seconds: int


#: No limit, or one that is never reached.
SECONDS = st.just(0) | st.integers(30, 90)
STEPS = st.builds(Step, st.booleans(), st.integers(0, 9), CONTEXTS, SECONDS)


@settings(max_examples=20 * ROUNDS, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CONTEXTS, st.lists(STEPS, min_size=3, max_size=12))
def test_no_chain_of_calls_widens(root: ExecutionContext, steps: list[Step]) -> None:
    """Whatever is created below whom and updated how: nobody has more than their parent, or than before."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_make_calls(Path(folder), root, steps))


async def _make_calls(folder: Path, root: ExecutionContext, steps: list[Step]) -> None:
    clock = FakeClock()
    async with serving(folder / "data", clock) as running:
        client = running.client
        agent_id = await an_agent(client)
        made = [await client.executions.Create(_limited(asking(agent_id, root), 60))]
        for step in steps:
            clock.advance(1)
            at = step.at % len(made)
            if step.creates:
                request = _limited(asking(agent_id, step.asked, made[at].metadata.id), step.seconds)
                answer = await _call(client.executions.Create, request)
                made += [answer] if answer is not None else []
            elif at > 0:  # a root is the client's
                request = _limited(asking("", step.asked), step.seconds)
                request.metadata.id = made[at].metadata.id
                answer = await _call(client.executions.Update, request)
            else:
                continue
            if answer is not None:
                check_within(answer.spec.context, made[at].spec.context)
                if not step.creates:
                    made[at] = answer


def _limited(request: AgentExecution, seconds: int) -> AgentExecution:
    if seconds:
        request.spec.context.max_duration.FromTimedelta(timedelta(seconds=seconds))
    return request


async def _call(method: Any, request: AgentExecution) -> AgentExecution | None:  # noqa: ANN401
    """Call a method; None when it was refused for the user or the depth, which is all that may be refused."""
    try:
        answer: AgentExecution = await method(request)
    except aio.AioRpcError as error:
        if Refusal(error).reason not in {"DIFFERS_FROM_PARENT", "DEPTH_EXCEEDED", "IMMUTABLE_FIELD"}:
            raise
        return None
    return answer
