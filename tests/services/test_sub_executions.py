"""Sub-executions: their place in the tree, what they may spend, and the entry that their parents have of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.model.phases import TERMINAL
from runstream.services.executions.budgets import budget_below
from runstream.services.executions.parents import LONGEST_TEXT
from runstream.services.resource_types import parent_term
from runstream.storage.records import AGENT_EXECUTION
from runstream.storage.store import Query
from runstream.v1.agent_execution_pb2 import (
    CHANGE_AUTHOR_SYSTEM,
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_TERMINATED,
    EXECUTION_WAITING_FOR_INPUT,
    MESSAGE_AI,
    SUB_AGENT_CANCELLED,
    SUB_AGENT_COMPLETED,
    SUB_AGENT_FAILED,
    SUB_AGENT_IN_PROGRESS,
    SUB_AGENT_PENDING,
    AgentExecution,
    AgentExecutionStatus,
    ExecutionBudget,
    ExecutionPhase,
    SubAgentStatus,
)
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    GetAgentExecutionRequest,
    ListAgentExecutionsRequest,
    TerminateAgentExecutionInput,
    WatchAgentExecutionRequest,
)
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC, ResourceId
from tests.attached import attached
from tests.families import a_child, below, entry_of
from tests.making import (
    NOWHERE,
    a_running_execution,
    an_agent,
    an_execution,
    an_execution_in,
    delta,
    execution,
    stored,
)
from tests.serving import INVALID, MISSING, PRECONDITION, Client, Serving, refusal, serving

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 8


async def how_many(client: Client) -> int:
    """How many executions there are."""
    return len((await client.queries.List(ListAgentExecutionsRequest(page_size=1000))).entries)


async def watched(client: Client, execution_id: str, after: int) -> list[int]:
    """The authors of the changes of an execution that has ended, after a revision."""
    stream = client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id, after_revision=after))
    return [change.author async for change in stream]


async def test_an_execution_without_a_parent_is_the_root_of_a_tree(client: Client) -> None:
    """It names itself as the root and stands at depth 0, whatever the client says."""
    request = below("", await an_agent(client))
    request.spec.context.parent_call_id = ""
    request.spec.context.root_execution_id = "made up"
    request.spec.context.depth = 5
    made = await client.executions.Create(request)
    assert (made.spec.context.root_execution_id, made.spec.context.depth) == (made.metadata.id, 0)
    assert await stored(client, made.metadata.id) == made


async def test_a_sub_execution_has_its_place_in_the_tree(running: Serving) -> None:
    """Parent, call, root and depth stand in it, at every level, and the parent's index finds it."""
    client = running.client
    root = await a_running_execution(client)
    child = await stored(client, await a_child(client, root, agent="child"))
    grandchild = await stored(client, await a_child(client, child.metadata.id, agent="grandchild"))
    for made, parent, depth in ((child, root, 1), (grandchild, child.metadata.id, 2)):
        context = made.spec.context
        assert (context.parent_execution_id, context.parent_call_id) == (parent, "call")
        assert (context.root_execution_id, context.depth) == (root, depth)
        query = Query(AGENT_EXECUTION, ((parent_term(parent),),))
        assert await running.store.scan(query, limit=10) == [made.metadata.id]


async def test_the_parent_learns_of_it_in_the_same_commit(client: Client) -> None:
    """The entry is one change of the parent, by the server, made with the sub-execution; head and fold agree."""
    parent = await a_running_execution(client)
    request = below(parent, await an_agent(client, "Helper"), call="t1", message="find the keys")
    child = (await client.executions.Create(request)).metadata.id
    state = await stored(client, parent)
    entry = await entry_of(client, parent, child)
    assert state.metadata.revision == 3
    assert (entry.id, entry.execution_id, entry.call_id) == (child, child, "t1")
    assert (entry.name, entry.input, entry.status) == ("Helper", "find the keys", SUB_AGENT_PENDING)
    assert (entry.revision, entry.output, entry.completed_at) == (3, "", "")
    basic = await client.queries.Get(GetAgentExecutionRequest(value=parent, view=RESOURCE_VIEW_BASIC))
    state.status.ClearField("sub_agent_executions")
    assert basic == state
    assert basic.status.audit.status_audit.event == "sub_agent_updated"
    await client.executions.Terminate(TerminateAgentExecutionInput(id=parent))
    assert (await watched(client, parent, 2))[0] == CHANGE_AUTHOR_SYSTEM


async def test_a_call_and_its_parent_go_together(client: Client) -> None:
    """One without the other is refused, naming what is missing; nothing is stored."""
    parent = await a_running_execution(client)
    agent_id = (await stored(client, parent)).spec.agent_id
    for parent_id, call, missing in ((parent, "", "parent_call_id"), ("", "t1", "parent_execution_id")):
        told = await refusal(client.executions.Create(below(parent_id, agent_id, call=call)))
        assert (told.code, told.reason) == (INVALID, "PARENT_AND_CALL")
        assert list(told.fields) == [f"spec.context.{missing}"]
    assert await how_many(client) == 1
    assert (await stored(client, parent)).metadata.revision == 2


async def test_a_parent_must_exist(client: Client) -> None:
    """An unknown parent is refused, and nothing is stored."""
    told = await refusal(client.executions.Create(below(f"aex_{NOWHERE}", await an_agent(client))))
    assert (told.code, told.reason) == (MISSING, "PARENT_NOT_FOUND")
    assert told.metadata == {"id": f"aex_{NOWHERE}"}
    assert await how_many(client) == 0


@pytest.mark.parametrize("phase", sorted(TERMINAL))
async def test_a_parent_that_has_ended_has_no_more(client: Client, phase: ExecutionPhase.ValueType) -> None:
    """Nothing can be asked for by what has ended; nothing is stored, and the parent stays as it was."""
    parent = await an_execution_in(client, phase)
    before = await stored(client, parent)
    told = await refusal(client.executions.Create(below(parent, before.spec.agent_id)))
    assert (told.code, told.reason) == (PRECONDITION, "PARENT_ENDING")
    assert told.metadata == {"id": parent, "phase": ExecutionPhase.Name(phase)}
    assert await how_many(client) == 1
    assert await stored(client, parent) == before


async def test_a_parent_that_is_being_cancelled_has_no_more(client: Client) -> None:
    """From the request to cancel on, whether its runner has heard of it or not."""
    parent = await a_running_execution(client)
    before = await client.executions.Cancel(CancelAgentExecutionInput(id=parent))
    told = await refusal(client.executions.Create(below(parent, before.spec.agent_id)))
    assert (told.code, told.reason) == (PRECONDITION, "PARENT_ENDING")
    assert "being cancelled" in told.message
    assert await stored(client, parent) == before


@pytest.mark.parametrize("phase", [EXECUTION_PAUSED, EXECUTION_WAITING_FOR_INPUT])
async def test_a_parent_need_not_be_at_work(client: Client, phase: ExecutionPhase.ValueType) -> None:
    """Any parent that has not ended can have sub-executions."""
    parent = await an_execution_in(client, phase)
    child = await a_child(client, parent)
    assert (await entry_of(client, parent, child)).status == SUB_AGENT_PENDING
    assert (await stored(client, parent)).status.phase == phase


async def test_a_tree_is_as_deep_as_the_server_allows(client: Client) -> None:
    """The last level that is allowed is made, the next is refused, and nothing of it is stored."""
    last = await a_running_execution(client)
    for _ in range(LIMIT):
        last = await a_child(client, last)
    before = await stored(client, last)
    assert before.spec.context.depth == LIMIT
    told = await refusal(client.executions.Create(below(last, before.spec.agent_id)))
    assert (told.code, told.reason) == (PRECONDITION, "DEPTH_EXCEEDED")
    assert told.metadata == {"id": last, "depth": str(LIMIT)}
    assert await how_many(client) == LIMIT + 1
    assert await stored(client, last) == before


async def test_the_depth_is_a_setting(tmp_path: Path) -> None:
    """A server that allows no levels has no sub-executions."""
    async with serving(tmp_path / "data", max_depth=0) as running:
        parent = await a_running_execution(running.client)
        agent_id = (await stored(running.client, parent)).spec.agent_id
        told = await refusal(running.client.executions.Create(below(parent, agent_id)))
    assert told.reason == "DEPTH_EXCEEDED"


async def test_a_budget_limits_the_depth(client: Client) -> None:
    """Each level takes one from `budget.depth`; at 0 there is nothing below, and nothing of it is stored."""
    agent_id = await an_agent(client)
    request = below("", agent_id, call="", budget=ExecutionBudget(depth=2))
    root = (await client.executions.Create(request)).metadata.id
    first = await client.executions.Create(below(root, agent_id))
    second = await client.executions.Create(below(first.metadata.id, agent_id, budget=ExecutionBudget(depth=9)))
    assert (first.spec.context.budget.depth, second.spec.context.budget.depth) == (1, 0)
    told = await refusal(client.executions.Create(below(second.metadata.id, agent_id)))
    assert (told.code, told.reason) == (PRECONDITION, "DEPTH_EXCEEDED")
    assert await how_many(client) == 3
    assert (await stored(client, second.metadata.id)).metadata.revision == 1


async def test_nobody_may_spend_more_than_their_parent(client: Client) -> None:
    """Each field is the lesser of the two; what is unset is unlimited; what counts is told and stored."""
    agent_id = await an_agent(client)
    budget = ExecutionBudget(model_calls=10, tokens=500, cost_micros=0)
    root = (await client.executions.Create(below("", agent_id, call="", budget=budget))).metadata.id
    own = ExecutionBudget(model_calls=20, tokens=100, tool_calls=7)
    child = await client.executions.Create(below(root, agent_id, budget=own))
    heir = await client.executions.Create(below(root, agent_id))
    free = await client.executions.Create(below("", agent_id, call=""))
    assert child.spec.context.budget == ExecutionBudget(model_calls=10, tokens=100, tool_calls=7, cost_micros=0)
    assert heir.spec.context.budget == budget
    assert not free.spec.context.HasField("budget")
    assert await stored(client, child.metadata.id) == child


BUDGETS = st.builds(
    ExecutionBudget,
    **{name: st.none() | st.integers(0, 5) for name in ("model_calls", "tool_calls", "tokens", "cost_micros", "depth")},
)


def limits_of(budget: ExecutionBudget) -> dict[str, int]:
    """What a budget limits, field by field."""
    return {field.name: value for field, value in budget.ListFields()}


@given(st.lists(BUDGETS, min_size=1, max_size=8))
def test_no_chain_of_budgets_grows(chain: list[ExecutionBudget]) -> None:
    """Whatever is asked for at any depth: no field ever exceeds that of anyone above, or what was asked for."""
    above = [chain[0]]
    for own in chain[1:]:
        parent = above[-1]
        if parent.HasField("depth") and parent.depth == 0:
            return
        got = budget_below(own, parent)
        spent = limits_of(got)
        for ancestor in (own, *above):
            for name, most in limits_of(ancestor).items():
                assert 0 <= spent[name] <= most
        assert set(spent) == {name for budget in (own, parent) for name in limits_of(budget)}
        if parent.HasField("depth"):
            assert got.depth < parent.depth
        above.append(got)


async def test_the_entry_follows_the_sub_execution(client: Client) -> None:
    """Begun, waiting, ended: the parent has it in the commit that does it, with the last answer of the agent itself."""
    parent = await a_running_execution(client)
    child = await a_child(client, parent)
    begun = await client.executions.UpdateStatus(delta(child, phase=EXECUTION_IN_PROGRESS))
    entry = await entry_of(client, parent, child)
    assert (entry.status, entry.started_at) == (SUB_AGENT_IN_PROGRESS, begun.status.started_at)
    revision = (await stored(client, parent)).metadata.revision
    said = AgentExecutionStatus()
    said.messages.add(id="1", type=MESSAGE_AI, content="first")
    said.messages.add(id="2", type=MESSAGE_AI, content="by the door")
    said.messages.add(id="3", type=MESSAGE_AI, content="not me", owner_id="sub")
    said.messages.add(id="4", type=MESSAGE_AI)
    await client.executions.UpdateStatus(delta(child, said))
    await client.executions.UpdateStatus(delta(child, phase=EXECUTION_WAITING_FOR_INPUT))
    assert (await stored(client, parent)).metadata.revision == revision, "nothing that the entry tells has changed"
    await client.executions.UpdateStatus(delta(child, phase=EXECUTION_IN_PROGRESS))
    ended = await client.executions.UpdateStatus(delta(child, phase=EXECUTION_COMPLETED))
    entry = await entry_of(client, parent, child)
    assert (entry.status, entry.output) == (SUB_AGENT_COMPLETED, "by the door")
    assert (entry.completed_at, entry.error) == (ended.status.completed_at, "")
    assert (await stored(client, parent)).metadata.revision == revision + 1


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        (EXECUTION_FAILED, SUB_AGENT_FAILED),
        (EXECUTION_CANCELLED, SUB_AGENT_CANCELLED),
        (EXECUTION_TERMINATED, SUB_AGENT_CANCELLED),
    ],
)
async def test_the_entry_tells_how_it_ended(
    client: Client, phase: ExecutionPhase.ValueType, expected: SubAgentStatus.ValueType
) -> None:
    """An end that is not COMPLETED stands in the entry with its error, and without an answer."""
    parent = await a_running_execution(client)
    child = await a_child(client, parent)
    said = AgentExecutionStatus(phase=phase, error="no keys")
    said.messages.add(id="1", type=MESSAGE_AI, content="hm")
    await client.executions.UpdateStatus(delta(child, said))
    entry = await entry_of(client, parent, child)
    assert (entry.status, entry.error, entry.output) == (expected, "no keys", "")
    assert entry.completed_at


async def test_long_texts_are_cut_in_the_entry(client: Client) -> None:
    """At most 64 KiB of a message or an answer stand in the parent, cut between characters."""
    parent = await a_running_execution(client)
    long = "é" * LONGEST_TEXT
    request = below(parent, (await stored(client, parent)).spec.agent_id, message="x" + long)
    child = (await client.executions.Create(request)).metadata.id
    await client.executions.UpdateStatus(delta(child, phase=EXECUTION_IN_PROGRESS))
    said = AgentExecutionStatus(phase=EXECUTION_COMPLETED)
    said.messages.add(id="1", type=MESSAGE_AI, content=long)
    await client.executions.UpdateStatus(delta(child, said))
    entry = await entry_of(client, parent, child)
    assert entry.input == "x" + long[: LONGEST_TEXT // 2 - 1]
    assert entry.output == long[: LONGEST_TEXT // 2]
    assert (await stored(client, child)).status.messages[0].content == long


async def test_a_repeated_create_makes_one_entry(client: Client) -> None:
    """A repeat with its idempotency key answers as before, and the parent is not touched."""
    parent = await a_running_execution(client)
    request = below(parent, (await stored(client, parent)).spec.agent_id)
    key = (("idempotency-key", "k"),)
    first = await client.executions.Create(request, metadata=key)
    before = await stored(client, parent)
    assert await client.executions.Create(request, metadata=key) == first
    assert await stored(client, parent) == before
    assert len(before.status.sub_agent_executions) == 1


async def test_what_is_deleted_before_its_end_is_cancelled_in_the_parent(client: Client) -> None:
    """The entry of a live one becomes CANCELLED in the same commit; that of one that had ended stays."""
    parent = await a_running_execution(client)
    live, done = await a_child(client, parent), await a_child(client, parent)
    await client.executions.UpdateStatus(delta(done, phase=EXECUTION_IN_PROGRESS))
    await client.executions.UpdateStatus(delta(done, phase=EXECUTION_COMPLETED))
    before = await entry_of(client, parent, done)
    await client.executions.Delete(ResourceId(value=live))
    revision = (await stored(client, parent)).metadata.revision
    await client.executions.Delete(ResourceId(value=done))
    gone = await entry_of(client, parent, live)
    assert (gone.status, gone.error) == (SUB_AGENT_CANCELLED, "The execution was deleted.")
    assert gone.completed_at
    assert await entry_of(client, parent, done) == before
    assert (await stored(client, parent)).metadata.revision == revision


async def test_a_parent_that_is_gone_or_has_ended_takes_nothing_more(client: Client) -> None:
    """A sub-execution whose parent was deleted or has ended can still end, and be deleted."""
    gone, over = await a_running_execution(client, agent="gone"), await a_running_execution(client, agent="over")
    orphans = [await a_child(client, gone), await a_child(client, over)]
    await client.executions.Delete(ResourceId(value=gone))
    ended = await client.executions.UpdateStatus(delta(over, phase=EXECUTION_COMPLETED))
    assert ended.status.sub_agent_executions[0].status == SUB_AGENT_CANCELLED
    for orphan in orphans:
        await client.executions.Delete(ResourceId(value=orphan))
    assert await stored(client, over) == ended


async def test_an_update_does_not_move_it_in_the_tree(client: Client) -> None:
    """Parent and call are fixed; what the server says of the tree stays, sent along or left out."""
    parent = await a_running_execution(client)
    other = await an_execution(client, agent="other")
    child = await stored(client, await a_child(client, parent))
    for name, value in (("parent_execution_id", other), ("parent_call_id", "t2")):
        request = AgentExecution()
        request.CopyFrom(child)
        setattr(request.spec.context, name, value)
        told = await refusal(client.executions.Update(request))
        assert (told.code, told.reason) == (INVALID, "IMMUTABLE_FIELD")
        assert list(told.fields) == [f"spec.context.{name}"]
    assert await stored(client, child.metadata.id) == child
    request = AgentExecution()
    request.metadata.id = child.metadata.id
    request.spec.message = "other words"
    request.spec.context.root_execution_id, request.spec.context.depth = other, 7
    updated = await client.executions.Update(request)
    assert updated.spec.context == child.spec.context
    assert updated.spec.message == "other words"


async def test_an_update_gives_nobody_more_to_spend(client: Client) -> None:
    """The budget of a sub-execution can become smaller, not larger; that of a root is the client's."""
    agent_id = await an_agent(client)
    budget = ExecutionBudget(tokens=100)
    root = await client.executions.Create(below("", agent_id, call="", budget=budget))
    child = await client.executions.Create(below(root.metadata.id, agent_id))

    async def updated(made: AgentExecution, wanted: ExecutionBudget) -> ExecutionBudget:
        request = AgentExecution()
        request.metadata.id = made.metadata.id
        request.spec.CopyFrom(made.spec)
        request.spec.context.budget.CopyFrom(wanted)
        return (await client.executions.Update(request)).spec.context.budget

    assert await updated(child, ExecutionBudget(tokens=500)) == budget
    assert await updated(child, ExecutionBudget()) == budget
    assert await updated(child, ExecutionBudget(tokens=50, tool_calls=3)) == ExecutionBudget(tokens=50, tool_calls=3)
    assert await updated(root, ExecutionBudget(tokens=500)) == ExecutionBudget(tokens=500)


async def test_an_attempt_that_is_over_begins_no_sub_execution(client: Client) -> None:
    agent_id = await an_agent(client)
    parent = (await client.executions.Create(execution(agent_id=agent_id))).metadata.id
    async with attached(client) as runner:
        await runner.assignment()
        request = execution(agent_id=agent_id)
        request.spec.context.parent_execution_id, request.spec.context.parent_call_id = parent, "call"
        request.spec.context.parent_attempt = 2
        before = await stored(client, parent)
        refused = await refusal(client.executions.Create(request))
        assert (refused.code, refused.reason) == (PRECONDITION, "STALE_ATTEMPT")
        assert await stored(client, parent) == before
        request.spec.context.parent_attempt = 1
        assert (await client.executions.Create(request)).spec.context.depth == 1
