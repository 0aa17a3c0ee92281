"""Whatever a framework streams, what is told of it is whole: each entry with an id of its own, and none left open."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st

from runstream.adapters.narration import Narration
from runstream.model.deltas import ENDED_TOOL_CALLS
from runstream.model.merge import Stamp, merge_status
from runstream.runner import Agent, AgentFailure, Paused
from runstream.runner.aside import aside
from runstream.runner.bridge import Bridge
from runstream.runner.context import Budget, BudgetExceeded, build_context
from runstream.runner.invocation import Environment, Invocation, Setting
from runstream.runner.mailbox import Mailbox
from runstream.runner.tools import ToolNotAllowed
from runstream.v1.agent_execution_pb2 import (
    SUB_AGENT_CANCELLED,
    SUB_AGENT_COMPLETED,
    SUB_AGENT_FAILED,
    TODO_COMPLETED,
    TODO_PENDING,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_FAILED,
    TOOL_CALL_INTERRUPTED,
    TOOL_CALL_PENDING,
    TOOL_CALL_RUNNING,
    AgentExecutionStatus,
    SubAgentStatus,
    ToolCall,
    ToolCallStatus,
)
from runstream.v1.runner_pb2 import Assignment

if TYPE_CHECKING:
    from runstream.testing import LocalServer


ENDED_SUB_AGENTS = {SUB_AGENT_COMPLETED, SUB_AGENT_FAILED, SUB_AGENT_CANCELLED}


class Told:
    """An invocation outside of any execution, and the deltas that are reported in it."""

    def __init__(self, recorded: AgentExecutionStatus | None = None, **given: Any) -> None:  # noqa: ANN401  # of a context
        self.deltas: list[AgentExecutionStatus] = []
        work = aside(given.get("budget"), hear=self._hear)
        assignment = Assignment(attempt=1)
        if recorded is not None:
            assignment.execution.status.CopyFrom(recorded)
        setting = Setting(assignment, Environment(), Mailbox(), Bridge())
        self.invocation = Invocation(setting, build_context(work=work, **given), "go")

    def _hear(self, delta: AgentExecutionStatus) -> None:
        copy = AgentExecutionStatus()
        copy.CopyFrom(delta)
        self.deltas.append(copy)

    @property
    def status(self) -> AgentExecutionStatus:
        """What the deltas come to, one after the other."""
        state = AgentExecutionStatus()
        for revision, delta in enumerate(self.deltas, start=1):
            merge_status(state, delta, Stamp(revision, 1, ""), ["todos"] if delta.todos else [])
        return state


FAST = settings(max_examples=200, deadline=None)
IDS = st.sampled_from(["a", "b"])
OWNERS = st.sampled_from(["", "a", "b", "unknown"])
STEPS = st.one_of(
    st.tuples(st.just("text"), OWNERS, IDS),
    st.tuples(st.just("tool_asked"), OWNERS, IDS),
    st.tuples(st.just("tool_running"), OWNERS, IDS),
    st.tuples(st.just("tool_ended"), OWNERS, IDS),
    st.tuples(st.just("sub_agent"), OWNERS, IDS),
    st.tuples(st.just("sub_agent_ended"), OWNERS, IDS),
    st.tuples(st.just("usage"), OWNERS, IDS),
)
ENDS = st.sampled_from(
    [None, ValueError("broke"), AgentFailure("OVER", "It is over."), Paused(), asyncio.CancelledError()]
)


async def narrate(told: Told, steps: list[tuple[str, str, str]], end: BaseException | None) -> int:
    """Tell all that, and end it so; return how many tools were asked for that were not open."""
    asked = 0
    with suppress(BaseException):
        async with Narration(told.invocation) as narration:
            for step, owner, key in steps:
                before = narration.id_of(key, owner)
                if step == "text":
                    await narration.text("word ", message=key, owner=owner)
                elif step == "tool_asked":
                    await narration.tool_asked(key, "look", {"at": 1}, owner=owner)
                    asked += before != narration.id_of(key, owner)
                elif step == "sub_agent":
                    await narration.sub_agent(key, "finder", "find", owner=owner)
                elif step == "usage":
                    await narration.usage(key, input_tokens=1, owner=owner)
                else:
                    await getattr(narration, step)(key, owner=owner)
            if end is not None:
                raise end
    return asked


@FAST
@given(st.lists(STEPS, max_size=30), ENDS)
def test_nothing_is_left_open_and_no_two_entries_share_an_id(
    steps: list[tuple[str, str, str]], end: BaseException | None
) -> None:
    async def tell() -> tuple[Told, int]:
        told = Told()
        return told, await narrate(told, steps, end)

    told, asked = asyncio.run(tell())
    status = told.status
    assert len(status.tool_calls) == asked
    assert all(
        call.status in ENDED_TOOL_CALLS and call.completed_at and call.name == "look" for call in status.tool_calls
    )
    assert all(sub.status in ENDED_SUB_AGENTS and sub.completed_at for sub in status.sub_agent_executions)
    assert sum(message.content.count("word ") for message in status.messages) == sum(
        step == "text" for step, *_ in steps
    )
    owners = {"", *(sub.id for sub in status.sub_agent_executions)}
    entries: list[Any] = [*status.messages, *status.tool_calls, *status.usage]
    assert {entry.owner_id for entry in entries} <= owners


@FAST
@given(st.lists(STEPS, max_size=30), ENDS)
def test_what_has_ended_is_not_touched_again(steps: list[tuple[str, str, str]], end: BaseException | None) -> None:
    async def tell() -> Told:
        told = Told()
        await narrate(told, steps, end)
        return told

    stages: dict[str, list[int]] = {}
    for call in (call for delta in asyncio.run(tell()).deltas for call in delta.tool_calls):
        stages.setdefault(call.id, []).append(call.status)
    for told in stages.values():
        assert told[0] == TOOL_CALL_PENDING
        assert not ENDED_TOOL_CALLS.intersection(told[:-1])
        assert told == sorted(told[:-1]) + told[-1:]


async def test_an_id_that_comes_again_is_another_entry() -> None:
    told = Told()
    async with Narration(told.invocation) as narration:
        for number in range(3):
            await narration.tool_asked("c", "look", {"number": number})
            await narration.tool_ended("c", result=number)
    assert [(call.id, call.result) for call in told.status.tool_calls] == [("c", "0"), ("c-2", "1"), ("c-3", "2")]


async def test_two_narrations_of_one_attempt_share_their_ids() -> None:
    told = Told()
    for _ in range(2):
        async with Narration(told.invocation) as narration:
            await narration.text("word", message="m")
            await narration.usage("u")
            await narration.tool_asked("c", "look", {})
            await narration.sub_agent("c", "finder", "find")
    status = told.status
    for entries in (status.messages, status.usage, status.tool_calls, status.sub_agent_executions):
        assert len(entries) == 2


async def test_a_sub_agents_entries_are_its_own_and_nested_in_its_call() -> None:
    told = Told()
    async with Narration(told.invocation) as narration:
        await narration.tool_asked("c", "delegate", {})
        await narration.sub_agent("c", "finder", "find it")
        await narration.text("Looking.", message="m", owner="c")
        await narration.tool_asked("c", "look", "{}", owner="c", message="m")
        await narration.usage("u", owner="c")
        await narration.tool_ended("c", owner="c", result="seen")
        await narration.sub_agent_ended("c", output="found")
        await narration.tool_ended("c", result="found")
    status = told.status
    (sub,) = status.sub_agent_executions
    outer, inner = status.tool_calls
    assert (sub.call_id, sub.input, sub.output) == (outer.id, "find it", "found")
    assert (inner.owner_id, inner.parent_call_id, inner.message_id) == (sub.id, outer.id, status.messages[0].id)
    assert status.messages[0].owner_id == status.usage[0].owner_id == sub.id
    assert (outer.owner_id, outer.parent_call_id) == ("", "")


@pytest.mark.parametrize(
    ("end", "call", "sub_agent"),
    [
        (None, (TOOL_CALL_FAILED, "NO_RESULT"), SUB_AGENT_FAILED),
        (ValueError("broke"), (TOOL_CALL_FAILED, ""), SUB_AGENT_FAILED),
        (AgentFailure("OVER", "It is over."), (TOOL_CALL_FAILED, "OVER"), SUB_AGENT_FAILED),
        (Paused(), (TOOL_CALL_INTERRUPTED, ""), SUB_AGENT_CANCELLED),
        (asyncio.CancelledError(), (TOOL_CALL_INTERRUPTED, ""), SUB_AGENT_CANCELLED),
    ],
)
async def test_what_is_open_ends_as_the_run_does(
    end: BaseException | None, call: tuple[int, str], sub_agent: int
) -> None:
    told = Told()
    await narrate(told, [("tool_asked", "", "a"), ("sub_agent", "", "a"), ("tool_asked", "a", "b")], end)
    assert [(each.status, each.reason) for each in told.status.tool_calls] == [call, call]
    assert [sub.status for sub in told.status.sub_agent_executions] == [sub_agent]


async def test_the_call_that_ends_the_run_is_told_apart_from_those_that_it_cuts_short() -> None:
    told = Told()
    error = ValueError("broke")
    with suppress(ValueError):
        async with Narration(told.invocation) as narration:
            await narration.tool_asked("a", "look", {})
            await narration.tool_asked("b", "look", {})
            await narration.tool_ended("a", error=error)
            raise error
    first, second = told.status.tool_calls
    assert (first.status, first.error) == (TOOL_CALL_FAILED, "ValueError: broke")
    assert (second.status, second.error) == (TOOL_CALL_INTERRUPTED, "")


@pytest.mark.parametrize(
    ("args", "kept"),
    [
        ('{"a": 1}', {"a": 1}),
        ("", {}),
        (None, {}),
        ("no json", {"_raw": "no json"}),
        ("[1]", {"_raw": "[1]"}),
    ],
)
async def test_arguments_are_kept_as_they_came(args: str | None, kept: dict[str, object]) -> None:
    told = Told()
    async with Narration(told.invocation) as narration:
        await narration.tool_asked("a", "look", args)
    assert MessageToDict(told.status.tool_calls[0].args) == kept


async def test_a_tool_that_is_not_allowed_or_too_much_has_failed_and_is_raised() -> None:
    told = Told(allowed_tools=["look"], budget=Budget(tool_calls=1))
    async with Narration(told.invocation) as narration:
        with pytest.raises(ToolNotAllowed):
            await narration.tool_asked("a", "touch", {})
        await narration.tool_asked("b", "look", {})
        with pytest.raises(BudgetExceeded):
            await narration.tool_asked("c", "look", {})
        await narration.tool_ended("b", result="seen")
    assert [(call.status, call.reason) for call in told.status.tool_calls] == [
        (TOOL_CALL_FAILED, "TOOL_NOT_ALLOWED"),
        (TOOL_CALL_COMPLETED, ""),
        (TOOL_CALL_FAILED, "BUDGET_EXCEEDED"),
    ]


async def test_no_sub_agent_works_deeper_than_the_budget_allows() -> None:
    told = Told(budget=Budget(depth=1))
    async with Narration(told.invocation) as narration:
        await narration.sub_agent("a", "finder", "find")
        with pytest.raises(BudgetExceeded):
            await narration.sub_agent("b", "finder", "find", owner="a")


async def test_todos_are_told_whole_with_ids_of_their_own_and_a_sub_agents_are_not() -> None:
    told = Told()
    async with Narration(told.invocation) as narration:
        await narration.todos([("a", "pending"), ("a", "pending"), ("b", "pending")])
        await narration.sub_agent("c", "finder", "find")
        await narration.todos([("private", "pending")], owner="c")
        before = set(told.status.todos)
        await narration.todos([("a", "completed"), ("c", "odd")])
        await narration.sub_agent_ended("c", output="found")
    todos = told.status.todos
    assert len(before) == 3
    assert {(todo.content, todo.status, todo.position) for todo in todos.values()} == {
        ("a", TODO_COMPLETED, 0),
        ("c", TODO_PENDING, 1),
    }
    assert len(before & set(todos)) == 1
    assert told.status.sub_agent_executions[0].status == SUB_AGENT_COMPLETED


async def test_the_answer_is_said_unless_it_was_said_last() -> None:
    told = Told()
    async with Narration(told.invocation) as narration:
        await narration.text("42", message="m")
        await narration.answer("42")
        await narration.answer("")
        await narration.answer("43")
    assert [message.content for message in told.status.messages] == ["42", "43"]


@pytest.mark.parametrize(
    ("status", "args", "same"),
    [
        (TOOL_CALL_INTERRUPTED, 1, True),
        (TOOL_CALL_RUNNING, 1, True),
        (TOOL_CALL_INTERRUPTED, 2, False),
        (TOOL_CALL_COMPLETED, 1, False),
        (TOOL_CALL_FAILED, 1, False),
    ],
)
async def test_a_call_that_was_cut_short_is_gone_on_with_and_no_other(status: int, args: int, *, same: bool) -> None:
    before = AgentExecutionStatus(tool_calls=[ToolCall(id="c", name="look", status=ToolCallStatus.ValueType(status))])
    before.tool_calls[0].args["at"] = args
    told = Told(before)
    async with Narration(told.invocation) as narration:
        await narration.tool_asked("c", "look", {"at": 1})
        assert narration.id_of("c") == ("c" if same else "c-2")


@pytest.mark.parametrize(("begun", "gone_on"), [(False, ["c", "d"]), (True, ["e", "f"])])
async def test_a_call_that_had_not_begun_is_gone_on_with_by_what_it_is(*, begun: bool, gone_on: list[str]) -> None:
    before = AgentExecutionStatus(
        tool_calls=[ToolCall(id=each, name="look", started_at="then" if begun else "") for each in ("c", "d")]
    )
    told = Told(before)
    async with Narration(told.invocation) as narration:
        for each in ("e", "f"):
            await narration.tool_asked(each, "look", {})
        assert [narration.id_of(each) for each in ("e", "f")] == gone_on


@pytest.mark.parametrize(
    ("status", "task", "same"),
    [
        (SUB_AGENT_CANCELLED, "find", True),
        (SUB_AGENT_CANCELLED, "seek", False),
        (SUB_AGENT_COMPLETED, "find", False),
    ],
)
async def test_a_sub_agent_that_was_cut_short_is_gone_on_with_and_no_other(
    status: int, task: str, *, same: bool
) -> None:
    before = AgentExecutionStatus(tool_calls=[ToolCall(id="c", name="ask", status=TOOL_CALL_INTERRUPTED)])
    before.sub_agent_executions.add(
        id="s", name="finder", input="find", call_id="c", status=SubAgentStatus.ValueType(status)
    )
    told = Told(before)
    async with Narration(told.invocation) as narration:
        await narration.tool_asked("c", "ask", {})
        await narration.sub_agent("c", "finder", task)
    assert [sub.id for sub in told.status.sub_agent_executions] == ["s" if same else "c"]


async def test_a_secret_in_an_error_is_blanked(runstream_server: LocalServer) -> None:
    async def agent(invocation: Invocation) -> None:
        async with Narration(invocation) as narration:
            await narration.tool_asked("c", "look", {})
            await narration.tool_ended("c", error=f"refused {invocation.env['KEY']}")

    state = await runstream_server.run(agent, "go", secrets={"KEY": "hunter2-hunter2"})
    assert "hunter2" not in state.tools[0].error
    assert state.tools[0].error.startswith("refused ")


async def test_ids_that_are_too_long_are_replaced(runstream_server: LocalServer) -> None:
    async def agent(invocation: Invocation) -> None:
        async with Narration(invocation) as narration:
            await narration.text("word", message="m" * 9_000)
            await narration.tool_asked("c" * 9_000, "look" * 9_000, {})
            await narration.tool_ended("c" * 9_000, result="r" * 9_000_000)

    (await runstream_server.run(Agent(agent), "go")).expect()
