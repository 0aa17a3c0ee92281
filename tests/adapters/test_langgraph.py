"""Graphs of LangGraph, agents of LangChain and deepagents, as agents of a runner."""

# ruff: noqa: E402  # a framework that is missing is found out before it is imported
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import pytest

from runstream.runner import Agent
from runstream.runner.context import current_context
from runstream.testing import Gate
from runstream.testing.state import waiting_calls
from runstream.v1.agent_execution_pb2 import (
    TODO_COMPLETED,
    TODO_IN_PROGRESS,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_FAILED,
    TOOL_CALL_PENDING,
    TOOL_CALL_SKIPPED,
    AgentExecution,
)
from runstream.v1.agent_execution_pb2 import TOOL_CALL_WAITING_APPROVAL as WAITING
from tests.adapters import scenario
from tests.adapters.frameworks import require

require("langgraph")
require("langchain")
require("deepagents")

from deepagents import create_deep_agent
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware, TodoListMiddleware
from langchain.tools import ToolRuntime  # noqa: TC002  # LangChain looks at the annotations of tools
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.messages.tool import invalid_tool_call
from langchain_core.tools import ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt

from runstream.adapters.langgraph import LangGraphAgent
from runstream.testing.langchain import ScriptedChatModel, call, say

if TYPE_CHECKING:
    from runstream.runner import Invocation
    from runstream.testing import LocalServer, State


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def broken() -> str:
    """Fail, so that the model is told."""
    raise ToolException("it is broken")


broken.handle_tool_error = True


@tool
def measure(at: Any) -> str:  # noqa: ANN401  # anything
    """Measure a place."""
    return "wide" if isinstance(at, scenario.Place) else str(at)


@tool
async def hang() -> None:
    """Never end."""
    await asyncio.Event().wait()


@tool
def crash() -> None:
    """Fail, so that the run ends."""
    raise RuntimeError("crashed")


@dataclass
class Mine:
    """What a graph of somebody's has as its context."""

    execution: str


SUM = call("add", a=1, b=2)
RESEARCHER = ScriptedChatModel(script=[say("Looking.", SUM), say("Found 3.")])


def scripted() -> LangGraphAgent:
    model = ScriptedChatModel(
        script=[
            say("Let me add.", SUM),
            say("", SUM),
            say("", call("broken")),
            say("", call("nosuch")),
            say("", call("measure", at=scenario.Place("here"))),
            say("", *(call("task", description=task, subagent_type="researcher") for task in scenario.TASKS)),
            say("All done."),
        ]
    )
    researcher = {"name": "researcher", "description": "Looks.", "system_prompt": "Look.", "model": RESEARCHER}
    graph = create_deep_agent(model, [add, broken, measure], subagents=[{**researcher, "tools": [add]}])
    return LangGraphAgent(graph)


async def test_a_deep_agent_leaves_what_a_plain_function_does() -> None:
    assert await scenario.whole(scripted()) == scenario.WHOLE


def alone(name: str) -> LangGraphAgent:
    """An agent that calls one tool."""
    return LangGraphAgent(create_agent(ScriptedChatModel(script=[say("", call(name)), say("Went on.")]), [hang, crash]))


async def test_an_agent_is_cancelled_inside_a_tool() -> None:
    assert await scenario.cancelled(alone("hang")) == scenario.CANCELLED


async def test_an_agent_meets_its_deadline_inside_a_tool() -> None:
    assert await scenario.overdue(alone("hang")) == scenario.OVERDUE


async def test_a_tool_whose_error_ends_the_run_has_failed_by_it() -> None:
    assert await scenario.crashed(alone("crash")) == scenario.CRASHED


async def test_a_graph_built_by_hand_is_told_too(runstream_server: LocalServer) -> None:
    """Its tools are one node, so nobody knows when each begins; its sub-graph is a node, and no sub-agent."""
    model = ScriptedChatModel(script=[say("Adding.", SUM, call("add", a=2, b=2)), say("3 and 4.")])

    async def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    inner = StateGraph(MessagesState)
    inner.add_node("think", think)
    inner.set_entry_point("think")
    graph = StateGraph(MessagesState)
    graph.add_node("agent", inner.compile())
    graph.add_node("tools", ToolNode([add]))
    graph.add_conditional_edges("agent", tools_condition)
    graph.add_edge("tools", "agent")
    graph.set_entry_point("agent")
    state = await runstream_server.run(LangGraphAgent(graph.compile()), "go")
    assert state.expect().texts == ["Adding.", "3 and 4."]
    assert [(each.name, each.result, each.status) for each in state.tools] == [
        ("add", "3", TOOL_CALL_COMPLETED),
        ("add", "4", TOOL_CALL_COMPLETED),
    ]
    assert {each.owner_id for each in state.tools} == {""}


async def test_a_graph_without_messages_is_given_its_input_and_asked_for_its_answer(
    runstream_server: LocalServer,
) -> None:
    class Words(TypedDict):
        text: str

    graph = StateGraph(Words)
    graph.add_node("shout", lambda state: {"text": state["text"].upper()})
    graph.set_entry_point("shout")
    agent = LangGraphAgent(
        graph.compile(), input=lambda invocation: {"text": invocation.message}, output=lambda state: state["text"]
    )
    assert (await runstream_server.run(agent, "hear me")).expect().texts == ["HEAR ME"]


async def test_todos_are_told_whole_and_a_sub_agents_are_its_own(runstream_server: LocalServer) -> None:
    def todos(*states: str) -> dict[str, Any]:
        return call("write_todos", todos=[{"content": f"step {n}", "status": s} for n, s in enumerate(states)])

    model = ScriptedChatModel(
        script=[
            say("", todos("pending", "pending", "pending")),
            say("", call("task", description="look", subagent_type="researcher")),
            say("", todos("completed", "in_progress")),
            say("Done."),
        ]
    )
    private = ScriptedChatModel(script=[say("", todos("completed")), say("Looked.")])
    researcher = {"name": "researcher", "description": "Looks.", "system_prompt": "Look.", "model": private}
    planning = TodoListMiddleware()
    graph = create_deep_agent(model, subagents=[{**researcher, "middleware": [planning]}], middleware=[planning])
    state = (await runstream_server.run(LangGraphAgent(graph), "go")).expect()
    told = sorted(state.status.todos.values(), key=lambda todo: todo.position)
    assert [(todo.content, todo.status) for todo in told] == [
        ("step 0", TODO_COMPLETED),
        ("step 1", TODO_IN_PROGRESS),
    ]
    assert all(each.status == TOOL_CALL_COMPLETED for each in state.tools)


def asking(*, per_call: bool = False, history: str = "server") -> LangGraphAgent:
    """An agent whose tool `add` a person has to allow, twice at once."""
    script = [say("May I?", SUM, call("add", a=2, b=2)), say("Done.")]
    people = HumanInTheLoopMiddleware({"add": True}, **({"interrupt_mode": "per_call"} if per_call else {}))
    graph = create_agent(ScriptedChatModel(script=script), [add], middleware=[people], checkpointer=InMemorySaver())
    return LangGraphAgent(graph, history=history)  # type: ignore[arg-type]  # one of two


@pytest.mark.parametrize("per_call", [False, True])
async def test_what_people_are_to_decide_is_asked_as_approvals(
    runstream_server: LocalServer, *, per_call: bool
) -> None:
    handle = await runstream_server.start(asking(per_call=per_call), "go")
    waiting = await handle.until(lambda state: len(waiting_calls(state.execution)) == 2)
    first, second = waiting.tools
    await handle.approve(first.id)
    await handle.reject(second.id, "too much")
    state = (await handle.result()).expect()
    assert state.texts == ["May I?", "Done."]
    assert [(each.status, each.result) for each in state.tools] == [
        (TOOL_CALL_COMPLETED, "3"),
        (TOOL_CALL_SKIPPED, ""),
    ]


@pytest.mark.parametrize("history", ["server", "thread"])
async def test_a_question_outlasts_a_pause_and_is_not_asked_twice(runstream_server: LocalServer, history: str) -> None:
    handle = await runstream_server.start(asking(history=history), "go")
    waiting = await handle.until(lambda state: len(waiting_calls(state.execution)) == 2)
    first, second = waiting.tools
    await handle.approve(first.id)
    await handle.pause()
    await handle.until("paused")
    await handle.resume()
    await handle.until("waiting_for_approval")
    await handle.skip(second.id)
    state = (await handle.result()).expect()
    assert [(each.id, each.status, each.result) for each in state.tools] == [
        (first.id, TOOL_CALL_COMPLETED, "3"),
        (second.id, TOOL_CALL_SKIPPED, ""),
    ]
    assert state.attempt == 2
    assert state.texts == ["May I?", "Done."]


def standing(state: State) -> dict[str, int]:
    """Where the calls stand, by the names of their tools."""
    return {each.name: each.status for each in state.tools}


@pytest.mark.parametrize("history", ["server", "thread"])
@pytest.mark.parametrize("mode", ["batched", "per_call"])
async def test_a_call_that_is_approved_after_its_runner_was_lost_is_made(
    runstream_server: LocalServer, mode: str, history: str
) -> None:
    ran: list[str] = []
    heard: list[list[str]] = []

    @tool
    def drop(x: int) -> str:
        """Drop it."""
        ran.append(f"drop {x}")
        return "dropped"

    @tool
    def count(x: int) -> str:
        """Count it."""
        ran.append(f"count {x}")
        return "counted"

    def script(messages: list[Any]) -> AIMessage:
        heard.append([message.text for message in messages])
        return say("Done.") if len(messages) > 1 else say("Well.", call("drop", x=1), call("count", x=2))

    people = HumanInTheLoopMiddleware({"drop": True}, interrupt_mode=mode)
    model = ScriptedChatModel(script=script)
    graph = create_agent(model, [drop, count], middleware=[people], checkpointer=InMemorySaver())
    agent = LangGraphAgent(graph, history=history)  # type: ignore[arg-type]  # one of two
    handle = await runstream_server.start(agent, "go")
    others = TOOL_CALL_COMPLETED if mode == "per_call" else TOOL_CALL_PENDING
    await handle.until(lambda state: standing(state) == {"drop": WAITING, "count": others})
    await runstream_server.lose_runners()
    await handle.approve()
    state = (await handle.result()).expect()
    assert sorted((each.name, each.result) for each in state.tools) == [("count", "counted"), ("drop", "dropped")]
    assert sorted(ran) == ["count 2", "drop 1"]
    assert state.texts == ["Well.", "Done."]
    assert sorted(filter(None, heard[-1])) == ["Well.", "counted", "dropped", "go"]


async def test_a_graph_that_cannot_go_on_where_it_was_has_its_model_told_and_asks_nobody_twice(
    runstream_server: LocalServer,
) -> None:
    heard: list[list[str]] = []

    def think(state: MessagesState) -> dict[str, Any]:
        heard.append([f"{message.type}: {message.text}" for message in state["messages"]])
        answered = any(message.type == "tool" and message.text == "3" for message in state["messages"])
        return {
            "messages": [AIMessage("Done.") if answered else AIMessage("Adding.", tool_calls=[call("add", a=1, b=2)])]
        }

    def use(state: MessagesState) -> dict[str, Any]:
        (asked,) = state["messages"][-1].tool_calls
        decision = interrupt({**asked, "type": "tool_approval", "tool_call_id": asked["id"]})
        assert decision == {"type": "approve"}
        return {"messages": [ToolMessage("3", tool_call_id=asked["id"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("use", use)
    graph.add_conditional_edges("think", lambda state: "use" if state["messages"][-1].tool_calls else END)
    graph.add_edge("use", "think")
    graph.set_entry_point("think")
    handle = await runstream_server.start(LangGraphAgent(graph.compile(checkpointer=InMemorySaver())), "go")
    await handle.until("waiting_for_approval")
    await runstream_server.lose_runners()
    await handle.approve()
    state = (await handle.result()).expect()
    assert [(each.name, each.status, each.result) for each in state.tools] == [("add", TOOL_CALL_COMPLETED, "3")]
    assert heard[1][:2] == ["human: go", "ai: Adding."]
    assert heard[1][2].startswith("tool: The call was interrupted")


@pytest.mark.parametrize("history", ["server", "thread"])
@pytest.mark.parametrize("lost", [False, True])
async def test_what_was_done_beside_an_interrupt_is_told_once(
    runstream_server: LocalServer, history: str, *, lost: bool
) -> None:
    ran: list[str] = []

    @tool
    def ask() -> str:
        """Ask."""
        return f"they said {interrupt('What?')}"

    @tool
    def count() -> str:
        """Count."""
        ran.append("count")
        return str(len(ran))

    def script(messages: list[Any]) -> AIMessage:
        return say("Done.") if len(messages) > 1 else say("", call("ask", id="a"), call("count", id="c"))

    graph = create_agent(ScriptedChatModel(script=script), [ask, count], checkpointer=InMemorySaver())
    request = AgentExecution()
    request.spec.message = "go"
    request.spec.context.budget.tool_calls = 2
    agent = LangGraphAgent(graph, history=history)  # type: ignore[arg-type]  # one of two
    handle = await runstream_server.start(agent, request)
    await handle.until("waiting_for_input")
    if lost:
        await runstream_server.lose_runners()
    await handle.answer("well")
    state = (await handle.result()).expect()
    assert [(each.name, each.result) for each in state.tools] == [("ask", "they said well"), ("count", "1")]
    assert ran == ["count"]


async def test_two_calls_with_one_id_are_two_calls(runstream_server: LocalServer) -> None:
    calls = [call("add", id="x", a=1, b=2), call("add", id="x", a=2, b=2)]
    agent = LangGraphAgent(create_agent(ScriptedChatModel(script=[say("", *calls), say("Done.")]), [add]))
    state = (await runstream_server.run(agent, "go")).expect()
    assert sorted((each.args["a"], each.status, each.result) for each in state.tools) == [
        (1, TOOL_CALL_COMPLETED, "3"),
        (2, TOOL_CALL_COMPLETED, "4"),
    ]


async def test_a_graph_that_could_not_go_on_with_the_answer_asks_nobody(runstream_server: LocalServer) -> None:
    people = HumanInTheLoopMiddleware({"add": True})
    graph = create_agent(ScriptedChatModel(script=[say("", SUM), say("Done.")]), [add], middleware=[people])
    state = await runstream_server.run(LangGraphAgent(graph), "go")
    assert (state.phase, state.reason) == ("failed", "CHECKPOINTER_MISSING")
    assert "compile it with a checkpointer" in state.error
    assert [each.status for each in state.tools] == [TOOL_CALL_FAILED]


async def test_a_tool_that_calls_exit_ends_the_run_and_not_the_runner(runstream_server: LocalServer) -> None:
    @tool
    async def leave() -> str:
        """Leave."""
        sys.exit(3)

    @tool
    def leave_from_a_thread() -> str:
        """Leave."""
        raise KeyboardInterrupt

    for each, error in ((leave, "called exit(3)"), (leave_from_a_thread, "raised KeyboardInterrupt")):
        graph = create_agent(ScriptedChatModel(script=[say("", call(each.name))]), [each])
        outer = StateGraph(MessagesState)
        outer.add_node("agent", graph)
        outer.set_entry_point("agent")
        for served in (graph, outer.compile()):
            state = await runstream_server.run(LangGraphAgent(served), "go")
            assert (state.phase, state.error) == ("failed", f"RuntimeError: the tool {error}")
        assert "_arun" not in vars(each)


async def test_what_a_tool_reports_by_itself_stands_under_its_call(runstream_server: LocalServer) -> None:
    @tool
    async def look(at: str) -> str:
        """Look."""
        async with current_context().report.tool("see", {"at": at}):
            pass
        return f"{current_context().parent_call}"

    @tool
    def look_in_a_thread(at: str) -> str:
        """Look."""
        return f"{current_context().parent_call} {at}".partition(" ")[0]

    looks = [
        say("Looking.", *(call(name, at=at) for name in ("look", "look_in_a_thread") for at in "ab")),
        say("Seen."),
    ]
    below = {"name": "looker", "description": "Looks.", "system_prompt": "Look.", "tools": [look, look_in_a_thread]}
    asks = (call("task", description=task, subagent_type="looker") for task in scenario.TASKS)
    model = ScriptedChatModel(script=[looks[0], say("", *asks), say("Done.")])
    subagents = [{**below, "model": ScriptedChatModel(script=looks)}]
    served = [
        create_agent(ScriptedChatModel(script=looks), [look, look_in_a_thread]),
        create_deep_agent(model, [look, look_in_a_thread], subagents=subagents),
        by_hand(ScriptedChatModel(script=looks), [look, look_in_a_thread]),
    ]
    for graph, times in zip(served, (1, 3, 1), strict=True):
        state = (await runstream_server.run(LangGraphAgent(graph), "go")).expect()
        looked = [each for each in state.tools if each.name.startswith("look")]
        assert len(looked) == 4 * times
        assert [each.result for each in looked] == [each.id for each in looked]
        ids = [each.id for each in looked if each.name == "look"]
        assert sorted(each.parent_call_id for each in state.tools if each.name == "see") == sorted(ids)


def by_hand(model: ScriptedChatModel, tools: list[Any]) -> Any:  # noqa: ANN401  # a graph
    """A graph of two nodes, of which one runs all tools."""

    async def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("tools", ToolNode(tools))
    graph.add_conditional_edges("think", tools_condition)
    graph.add_edge("tools", "think")
    graph.set_entry_point("think")
    return graph.compile()


async def test_the_model_is_not_told_in_the_name_of_a_tool(runstream_server: LocalServer) -> None:
    """The context of a tool's call is left with the tool, also where the graph runs it in its own task."""
    seen: list[str | None] = []

    def script(messages: list[Any]) -> AIMessage:
        seen.append(current_context().parent_call)
        return [say("", SUM), say("Done.")][len(messages) > 1]

    graph = create_agent(ScriptedChatModel(script=script), [add])
    (await runstream_server.run(LangGraphAgent(graph), "go")).expect()
    assert seen == [None, None]


class Words(TypedDict):
    """A state without messages."""

    text: str


def shouting() -> Any:  # noqa: ANN401  # a graph that is not compiled
    graph = StateGraph(Words)
    graph.add_node("shout", lambda state: {"text": state["text"].upper()})
    graph.set_entry_point("shout")
    return graph


@pytest.mark.parametrize(
    ("graph", "error", "told"),
    [
        (shouting(), TypeError, r"expected a compiled graph, .*, not a StateGraph: compile\(\) it"),
        ("a graph", TypeError, "not a str"),
        (None, TypeError, "not None"),
        (shouting().compile(), ValueError, "has no messages: give LangGraphAgent an input="),
    ],
)
def test_what_cannot_be_run_is_refused_when_it_is_given(graph: object, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        LangGraphAgent(graph)


@pytest.mark.parametrize(
    ("agent", "told"),
    [
        (LangGraphAgent(lambda _: None), "must return a compiled graph, not None"),
        (LangGraphAgent(lambda _: shouting()), "not a StateGraph: compile() it"),
        (LangGraphAgent(lambda _: shouting().compile()), "give LangGraphAgent an input="),
        (LangGraphAgent(shouting().compile(), input=lambda _: {"text": "go"}), "give LangGraphAgent an output="),
    ],
)
async def test_what_turns_out_to_be_no_agent_fails_with_the_reason(
    runstream_server: LocalServer, agent: LangGraphAgent, told: str
) -> None:
    state = (await runstream_server.run(agent, "go")).expect("failed")
    assert told in state.error


@pytest.mark.parametrize(("output", "texts"), [({"is": 3}, ['{"is": 3}']), (3, ["3"]), (None, [])])
async def test_an_output_that_is_no_text_is_the_answer_as_json(
    runstream_server: LocalServer,
    output: object,
    texts: list[str],
) -> None:
    agent = LangGraphAgent(shouting().compile(), input=lambda _: {"text": "go"}, output=lambda _: output)
    assert (await runstream_server.run(agent, "go")).expect().texts == texts


@pytest.mark.parametrize("history", ["server", "thread"])
async def test_any_other_interrupt_asks_for_input(runstream_server: LocalServer, history: str) -> None:
    def ask(state: MessagesState) -> dict[str, Any]:
        _ = state
        place = interrupt({"question": "Where to?"})
        day = interrupt("When?")
        return {"messages": [AIMessage(f"To {place}, on {day}.")]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.set_entry_point("ask")
    agent = LangGraphAgent(graph.compile(checkpointer=InMemorySaver()), history=history)  # type: ignore[arg-type]
    handle = await runstream_server.start(agent, "go")
    await handle.until_said("Where to?")
    await handle.answer("Rome")
    await handle.until_said("When?")
    await handle.until("waiting_for_input")
    await handle.pause()
    await handle.until("paused")
    await handle.resume()
    await handle.answer("Monday")
    state = (await handle.result()).expect()
    assert state.texts == ["Where to?", "Rome", "When?", "Monday", "To Rome, on Monday."]


def remembering(history: str) -> tuple[LangGraphAgent, list[list[str]]]:
    """An agent, and what its model has been told each time."""
    heard: list[list[str]] = []

    def script(messages: list[Any]) -> AIMessage:
        heard.append([message.text for message in messages])
        return say(f"You said {messages[-1].text}.")

    graph = create_agent(ScriptedChatModel(script=script), [], checkpointer=InMemorySaver())
    return LangGraphAgent(graph, history=history), heard  # type: ignore[arg-type]  # one of two


@pytest.mark.parametrize("history", ["server", "thread"])
async def test_a_session_goes_on_and_nothing_is_told_twice(runstream_server: LocalServer, history: str) -> None:
    agent, heard = remembering(history)
    first = (await runstream_server.run(agent, "one")).expect()
    second = (await runstream_server.run(agent, "two", session=first.session_id)).expect()
    (await runstream_server.run(agent, "other")).expect()
    assert second.answer == "You said two."
    assert heard == [["one"], ["one", "You said one.", "two"], ["other"]]


@pytest.mark.parametrize("history", ["server", "thread"])
async def test_an_agent_that_is_resumed_knows_what_it_has_done(runstream_server: LocalServer, history: str) -> None:
    heard: list[list[str]] = []
    gate = Gate()

    def script(messages: list[Any]) -> AIMessage:
        heard.append([f"{message.type}: {message.text}" for message in messages])
        return [say("Adding.", SUM), say("", call("wait")), say("Done.")][len(messages) // 2]

    @tool
    async def wait() -> str:
        """Wait."""
        await current_context().report.text("Waiting.")
        await gate.passed()
        return "waited"

    graph = create_agent(ScriptedChatModel(script=script), [add, wait], checkpointer=InMemorySaver())
    agent = LangGraphAgent(graph, history=history)  # type: ignore[arg-type]  # one of two
    handle = await runstream_server.start(agent, "go")
    await handle.until_said("Waiting.")
    await handle.pause()
    gate.open()
    await handle.until("paused")
    await handle.resume()
    state = (await handle.result()).expect()
    assert state.texts == ["Adding.", "Waiting.", "Done."]
    assert [(each.name, each.status) for each in state.tools] == [
        ("add", TOOL_CALL_COMPLETED),
        ("wait", TOOL_CALL_COMPLETED),
    ]
    assert heard[-1][:3] == ["human: go", "ai: Adding.", "tool: 3"]
    assert heard[-1][-1] == "tool: waited"


async def test_a_tool_that_is_not_allowed_does_not_run_and_the_model_is_told(
    runstream_server: LocalServer, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[str] = []

    @tool
    def forbidden() -> str:
        """Do what must not be done."""
        ran.append("forbidden")
        return "done"

    model = ScriptedChatModel(script=[say("", call("forbidden"), SUM), say("I see.")])
    agent = Agent(LangGraphAgent(create_agent(model, [add, forbidden])), tools=("add",))
    state = (await runstream_server.run(agent, "go")).expect()
    assert [(each.name, each.status, each.reason) for each in state.tools] == [
        ("forbidden", TOOL_CALL_FAILED, "TOOL_NOT_ALLOWED"),
        ("add", TOOL_CALL_COMPLETED, ""),
    ]
    assert ran == []
    assert state.answer == "I see."
    assert "callback" not in caplog.text


@pytest.mark.parametrize(("limit", "calls"), [("model_calls", 2), ("tool_calls", 2), ("tokens", 1)])
async def test_a_budget_ends_the_run(runstream_server: LocalServer, limit: str, calls: int) -> None:
    model = ScriptedChatModel(script=lambda _: say("Again.", call("add", a=1, b=2)))
    request = AgentExecution()
    request.spec.message = "go"
    setattr(request.spec.context.budget, limit, calls)
    state = await runstream_server.run(LangGraphAgent(create_agent(model, [add])), request)
    assert (state.phase, state.reason) == ("failed", "BUDGET_EXCEEDED")
    assert all(each.completed_at for each in state.tools)


async def test_too_many_steps_end_the_run(runstream_server: LocalServer) -> None:
    model = ScriptedChatModel(script=lambda _: say("", call("add", a=1, b=2)))
    agent = LangGraphAgent(create_agent(model, [add]), config={"recursion_limit": 5})
    state = await runstream_server.run(agent, "go")
    assert (state.phase, state.reason) == ("failed", "LIMIT_EXCEEDED")


async def test_a_tool_is_given_the_context_of_its_run(runstream_server: LocalServer) -> None:
    @tool
    def look(runtime: ToolRuntime[Mine]) -> str:
        """Look at the context."""
        return f"{runtime.context.execution} {current_context().execution}"

    def build(invocation: Invocation) -> Any:  # noqa: ANN401  # a graph
        assert invocation.message == "go"
        return create_agent(
            ScriptedChatModel(script=[say("", call("look")), say("Seen.")]), [look], context_schema=Mine
        )

    await runstream_server.serve({"looker": LangGraphAgent(build, context=lambda context: Mine(context.execution))})
    states = await asyncio.gather(*(runstream_server.run("looker", "go") for _ in range(10)))
    assert [state.tools[0].result for state in states] == [f"{state.id} {state.id}" for state in states]


async def test_arguments_that_are_no_json_are_kept_and_the_call_has_failed(runstream_server: LocalServer) -> None:
    model = ScriptedChatModel(
        script=[AIMessage("", invalid_tool_calls=[invalid_tool_call(name="add", args="no json", id="c-1")])]
    )
    state = await runstream_server.run(LangGraphAgent(create_agent(model, [add])), "go")
    (asked,) = state.tools
    assert (asked.status, asked.reason, asked.args["_raw"]) == (TOOL_CALL_FAILED, "TOOL_ARGUMENTS_INVALID", "no json")


async def test_sub_agents_within_sub_agents_are_told_apart_though_their_calls_have_the_same_ids(
    runstream_server: LocalServer,
) -> None:
    @tool
    async def dig(place: str) -> str:
        """Have somebody dig."""
        deepest = create_agent(
            ScriptedChatModel(script=[say("Deepest.", call("add", id="x", a=1, b=2)), say(place)]), [add]
        )
        inner = create_agent(
            ScriptedChatModel(script=[say("Deeper.", call("deeper", id="x")), say(place)]), [deeper(deepest)]
        )
        return str((await inner.ainvoke({"messages": [("user", "dig")]}))["messages"][-1].text)

    def deeper(agent: Any) -> Any:  # noqa: ANN401  # of LangChain
        @tool("deeper")
        async def within() -> str:
            """Dig deeper."""
            return str((await agent.ainvoke({"messages": [("user", "dig")]}))["messages"][-1].text)

        return within

    calls = (call("dig", id=side, place=side) for side in ("x", "y"))
    model = ScriptedChatModel(script=[say("", *calls), say("Dug.")])
    state = (await runstream_server.run(LangGraphAgent(create_agent(model, [dig])), "go")).expect()
    subs = {sub.id: sub for sub in state.status.sub_agent_executions}
    calls_by_id = {each.id: each for each in state.tools}
    assert sorted(each.name for each in state.tools) == ["add", "add", "deeper", "deeper", "dig", "dig"]
    for each in state.tools:
        assert each.status == TOOL_CALL_COMPLETED
        above = {"dig": "", "deeper": "dig", "add": "deeper"}[each.name]
        asker = calls_by_id[subs[each.owner_id].call_id].name if each.owner_id else ""
        assert asker == above
        assert each.parent_call_id == (subs[each.owner_id].call_id if each.owner_id else "")
    assert {calls_by_id[sub.call_id].result for sub in subs.values()} == {"x", "y"}


@pytest.mark.parametrize("lost", [False, True])
async def test_what_a_sub_agent_may_not_do_unasked_is_asked_in_its_name(
    runstream_server: LocalServer, *, lost: bool
) -> None:
    model = ScriptedChatModel(script=[say("", call("task", description="look", subagent_type="adder")), say("Done.")])
    adder = {"name": "adder", "description": "Adds.", "system_prompt": "Add.", "model": RESEARCHER, "tools": [add]}
    graph = create_deep_agent(model, subagents=[{**adder, "interrupt_on": {"add": True}}], checkpointer=InMemorySaver())
    handle = await runstream_server.start(LangGraphAgent(graph), "go")
    await handle.until("waiting_for_approval")
    if lost:
        await runstream_server.lose_runners()
    await handle.approve("add")
    state = (await handle.result()).expect()
    (sub,) = state.status.sub_agent_executions
    assert [(each.name, each.owner_id, each.status) for each in state.tools] == [
        ("task", "", TOOL_CALL_COMPLETED),
        ("add", sub.id, TOOL_CALL_COMPLETED),
    ]
    assert state.texts == [*(["Looking."] * (1 + lost)), "Found 3.", "Done."]


async def test_a_graph_is_a_sub_agent_of_any_agent(runstream_server: LocalServer) -> None:
    graph = LangGraphAgent(create_agent(RESEARCHER, [add]))

    async def agent(invocation: Invocation) -> str:
        return "They say: " + await invocation.context.sub_agent(graph, "look", name="researcher")

    state = (await runstream_server.run(agent, "go")).expect()
    (sub,) = state.status.sub_agent_executions
    assert (sub.name, sub.output) == ("researcher", "Found 3.")
    assert [message.owner_id for message in state.status.messages] == [sub.id, sub.id, ""]
    assert state.tools[0].owner_id == sub.id
    assert state.answer == "They say: Found 3."
