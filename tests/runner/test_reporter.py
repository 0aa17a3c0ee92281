"""What an agent reports is what the execution holds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from runstream.runner.json_safe import TOO_DEEP
from runstream.runner.tools import LONGEST_RESULT
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    MESSAGE_AI,
    MESSAGE_THINKING,
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
    AgentMessage,
    ComponentMetadata,
    TodoItem,
    ToolCall,
    Usage,
)
from tests.runner.served import said, serving_agents

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from runstream.runner import Event, Invocation


async def test_text_streams_into_one_message_until_something_else_begins(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        report = invocation.report
        for piece in ("one ", "two ", "three"):
            await report.text(piece)
        await report.text("hm", kind="thinking")
        async with report.tool("look"):
            pass
        await report.usage("m", input_tokens=1)
        await report.text("four")

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    assert said(state) == ["one two three", "hm", "four"]
    assert [message.type for message in state.status.messages] == [MESSAGE_AI, MESSAGE_THINKING, MESSAGE_AI]
    assert state.status.tool_calls[0].message_id == state.status.messages[1].id


async def test_text_that_comes_together_is_one_change(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        for number in range(200):
            await invocation.report.text(f"{number} ")

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
        changes = await served.changes(state.metadata.id)
    assert said(state) == ["".join(f"{number} " for number in range(200))]
    assert [change.terminal for change in changes][-1]
    assert len(changes) < 10


async def test_a_message_of_any_length_arrives_whole(tmp_path: Path) -> None:
    """Longer than one delta may be; with characters of four bytes, which no split may break."""
    text = "0123456789😀" * 800_000

    async def agent(invocation: Invocation) -> None:
        message = await invocation.report.message(text, metadata={"source": {"a", "b"}})
        await message.text("the end")

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    assert said(state) == [f"{text}the end"]
    assert list(state.status.messages[0].metadata["source"]) == ["a", "b"]  # type: ignore[arg-type]  # a list


async def test_an_empty_message_is_there_before_its_text(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        first = await invocation.report.message(id="first")
        second = await invocation.report.message(id="second")
        await second.text("2")
        await first.text("1")

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    assert [(message.id, message.content) for message in state.status.messages] == [("first", "1"), ("second", "2")]


async def test_text_that_utf8_cannot_write_is_mended(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        await invocation.report.text("\ud83d\ude00 \ud800")

    async with serving_agents(tmp_path / "data", agent) as served:
        assert said(await served.result()) == ["😀 \ufffd"]


@dataclass
class Place:
    """Something that an agent passes to a tool."""

    name: str


async def test_a_tool_goes_through_its_stages_with_times_and_result(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        component = ComponentMetadata(component_type="map")
        async with invocation.report.tool("look", {"at": Place("here")}, id="c-1", component=component) as call:
            assert call.approved
            call.result = {"found": [1, 2]}

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
        changes = await served.changes(state.metadata.id)
    (call,) = state.status.tool_calls
    assert (call.id, call.name, call.result, call.error) == ("c-1", "look", '{"found": [1, 2]}', "")
    assert call.args["at"]["name"] == "here"  # type: ignore[index]  # a struct
    assert call.component_metadata.component_type == "map"
    assert call.status == TOOL_CALL_COMPLETED
    assert call.started_at <= call.completed_at
    stages = [call.status for change in changes for call in change.status.tool_calls]
    assert stages == [TOOL_CALL_PENDING, TOOL_CALL_RUNNING, TOOL_CALL_COMPLETED]


async def test_what_a_tool_raises_is_reported_and_raised(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> str:
        with pytest.raises(LookupError):
            async with invocation.report.tool("look"):
                raise LookupError("nothing is here")
        return "went on"

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    (call,) = state.status.tool_calls
    assert (call.status, call.error) == (TOOL_CALL_FAILED, "LookupError: nothing is here")
    assert call.completed_at
    assert said(state) == ["went on"]


async def test_a_tool_runs_only_once_the_server_has_it_on_disk(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        async with invocation.report.tool("look", id="c-1") as call:
            state = await served.in_phase(invocation.execution.metadata.id, EXECUTION_IN_PROGRESS)
            call.result = str(state.status.tool_calls[0].status == TOOL_CALL_RUNNING)

    async with serving_agents(tmp_path / "data", agent) as served:
        assert (await served.result()).status.tool_calls[0].result == "True"


async def test_results_and_arguments_are_cut_with_a_mark(tmp_path: Path) -> None:
    deep: object = 1
    for _ in range(40):
        deep = [deep]

    async def agent(invocation: Invocation) -> None:
        async with invocation.report.tool("look", {"deep": deep, "long": "x" * 9_000_000}) as call:
            call.result = "y" * 9_000_000

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    (call,) = state.status.tool_calls
    assert len(call.result.encode()) <= LONGEST_RESULT
    assert call.result.endswith("of 9000000 bytes are missing]")
    assert "of 9000000 bytes are missing]" in str(call.args)
    assert TOO_DEEP.removeprefix("[…") in str(call.args)


async def test_tools_run_side_by_side(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        async with invocation.report.tool("outer") as outer, invocation.report.tool("inner") as inner:
            inner.result, outer.result = "in", "out"

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    assert [(call.name, call.result) for call in state.status.tool_calls] == [("outer", "out"), ("inner", "in")]


async def test_todos_are_told_in_place_of_those_before_and_marked(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        await invocation.report.todos(["dropped", "dropped too", "dropped as well"])
        await invocation.report.todos({"plan": "make a plan", "act": "act on it"})
        await invocation.report.todo("plan", "completed")
        await invocation.report.flush()

    async with serving_agents(tmp_path / "data", agent) as served:
        todos = (await served.result()).status.todos
    assert {key: (todo.content, todo.status, todo.position) for key, todo in todos.items()} == {
        "plan": ("make a plan", TODO_COMPLETED, 0),
        "act": ("act on it", TODO_PENDING, 1),
    }


async def test_todos_can_be_items_of_the_api(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        await invocation.report.todos([TodoItem(id="a", content="done", status=TODO_COMPLETED), "next"])

    async with serving_agents(tmp_path / "data", agent) as served:
        todos = (await served.result()).status.todos
    assert {key: (todo.content, todo.status) for key, todo in todos.items()} == {
        "a": ("done", TODO_COMPLETED),
        "2": ("next", TODO_PENDING),
    }


async def test_a_sub_agent_speaks_in_its_own_name(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        async with invocation.report.sub_agent("finder", "find it", id="s-1") as sub:
            await sub.report.text("looking")
            async with sub.report.tool("look"):
                pass
            await sub.report.usage("small", output_tokens=2)
            sub.output = "found"
        with pytest.raises(ValueError, match="broken"):
            async with invocation.report.sub_agent("breaker"):
                raise ValueError("broken")

    async with serving_agents(tmp_path / "data", agent) as served:
        status = (await served.result()).status
    finder, breaker = status.sub_agent_executions
    assert (finder.input, finder.output, finder.status) == ("find it", "found", SUB_AGENT_COMPLETED)
    assert (breaker.status, breaker.error) == (SUB_AGENT_FAILED, "ValueError: broken")
    assert [message.owner_id for message in status.messages] == ["s-1"]
    assert status.tool_calls[0].owner_id == status.usage[0].owner_id == "s-1"


async def test_usage_is_counted_per_entry(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        await invocation.report.usage("m", input_tokens=5, output_tokens=7, cached_tokens=1, cost_micros=9)
        await invocation.report.usage("m", input_tokens=1, id="total")
        await invocation.report.usage("m", input_tokens=2, id="total")

    async with serving_agents(tmp_path / "data", agent) as served:
        first, total = (await served.result()).status.usage
    assert (first.model, first.input_tokens, first.output_tokens, first.cached_tokens) == ("m", 5, 7, 1)
    assert (first.cost_micros, total.input_tokens) == (9, 2)


async def test_messages_of_the_api_are_reported_as_they_are(tmp_path: Path) -> None:
    async def agent(_: Invocation) -> AsyncIterator[Event]:
        yield "text"
        yield AgentMessage(type=MESSAGE_AI, content="message")
        yield ToolCall(name="look", status=TOOL_CALL_COMPLETED, result="seen")
        yield Usage(model="m", input_tokens=3)
        yield AgentExecutionStatus(messages=[AgentMessage(id="x", content="1")], usage=[Usage(model="n")])

    async with serving_agents(tmp_path / "data", agent) as served:
        status = (await served.result()).status
    assert [message.content for message in status.messages] == ["text", "message", "1"]
    assert status.tool_calls[0].result == "seen"
    assert [usage.model for usage in status.usage] == ["m", "n"]


async def test_an_agent_sets_no_phase(tmp_path: Path) -> None:
    async def agent(_: Invocation) -> AsyncIterator[Event]:
        yield AgentExecutionStatus(phase=EXECUTION_COMPLETED)

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    assert (state.status.phase, state.status.reason) == (EXECUTION_FAILED, "AGENT_ERROR")
    assert "sets no phase" in state.status.error


async def test_a_report_that_the_server_refuses_fails_the_agent(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        await invocation.report.event(ToolCall(id="x" * 300))
        await invocation.report.flush()

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    assert (state.status.phase, state.status.reason) == (EXECUTION_FAILED, "REPORT_REFUSED")
    assert "status.tool_calls[0].id" in state.status.error


@pytest.mark.parametrize("kind", ["message", "tool"])
async def test_an_agent_whose_last_report_is_refused_has_not_completed(tmp_path: Path, kind: str) -> None:
    """Nobody is left who could be told; the rest of its text arrives nevertheless."""

    async def agent(invocation: Invocation) -> None:
        await invocation.report.text("before")
        if kind == "message":
            await invocation.report.message("after", id="x" * 300)
        else:
            await invocation.report.event(ToolCall(id="x" * 300))

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    assert (state.status.phase, state.status.reason) == (EXECUTION_FAILED, "REPORT_REFUSED")
    assert ".id" in state.status.error
    assert said(state) == (["before"] if kind == "tool" else [])


async def test_a_tool_that_is_given_up_is_interrupted(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> str:
        begun = asyncio.Event()

        async def use() -> None:
            async with invocation.report.tool("slow"):
                begun.set()
                await asyncio.Event().wait()

        using = asyncio.create_task(use())
        await begun.wait()
        using.cancel()
        await asyncio.wait({using})
        return "too slow"

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
        changes = await served.changes(state.metadata.id)
    assert said(state) == ["too slow"]
    assert [call.status for call in state.status.tool_calls] == [TOOL_CALL_INTERRUPTED]
    # By the agent, and not by its end.
    assert not any(change.terminal for change in changes if change.status.tool_calls)
