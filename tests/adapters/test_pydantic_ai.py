"""Agents of pydantic-ai as agents of a runner."""

# ruff: noqa: E402  # a framework that is missing is found out before it is imported

from __future__ import annotations

import asyncio
import importlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runstream.runner import Agent
from runstream.runner.context import NoContext, current_context
from runstream.testing import Gate
from runstream.testing.state import waiting_calls
from runstream.v1.agent_execution_pb2 import (
    MESSAGE_AI,
    MESSAGE_THINKING,
    SUB_AGENT_COMPLETED,
    SUB_AGENT_FAILED,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_FAILED,
    TOOL_CALL_INTERRUPTED,
    TOOL_CALL_SKIPPED,
    AgentExecution,
)
from runstream.v1.agent_execution_pb2 import TOOL_CALL_WAITING_APPROVAL as WAITING
from tests.adapters import scenario
from tests.adapters.frameworks import require

require("pydantic_ai")

import pydantic_ai
from pydantic_ai import ModelRetry, RunContext, Tool
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models.function import DeltaThinkingPart, DeltaToolCall, FunctionModel
from pydantic_ai.usage import UsageLimits

from runstream.adapters.pydantic_ai import PydanticAIAgent, sub_agent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from runstream.runner import Invocation
    from runstream.testing import LocalServer, State

#: What a model streams in one response: tokens, and pieces of tool calls.
Response = list[Any]

#: The lines in which it differs from a plain function, and why.
DIFFERENCES = {
    # The framework refuses the two before a tool has run, so their reason is known.
    "agent calls nosuch(): FAILED error": "agent calls nosuch(): FAILED TOOL_UNKNOWN error",
    # What a model streams is text. Some is no JSON, and the framework runs no tool with it.
    "agent calls measure(…): COMPLETED 'wide'": "agent calls measure(…): FAILED TOOL_ARGUMENTS_INVALID error",
}


def scripted(*responses: Response) -> FunctionModel:
    """A model that streams one response after the other, in every run."""
    return answering(lambda messages: responses[sum(isinstance(message, ModelResponse) for message in messages)])


def answering(respond: Callable[[list[Any]], Response]) -> FunctionModel:
    """A model that streams what this returns for the messages so far."""

    async def stream(messages: list[Any], info: object) -> AsyncIterator[Any]:
        _ = info
        for piece in respond(messages):
            yield piece

    return FunctionModel(stream_function=stream, model_name="fake")


def use(name: str, args: str = "{}", *, id: str = "", place: int = 1) -> dict[int, DeltaToolCall]:  # noqa: A002
    """A piece of a response that calls a tool; `place` tells calls of one response apart."""
    return {place: DeltaToolCall(name, args, tool_call_id=id or f"{name}-{place}")}


async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def broken() -> str:
    """Fail, so that the model is told."""
    raise ModelRetry("it is broken")


def measure(at: str) -> str:
    """Measure a place."""
    return at


async def hang() -> None:
    """Never end."""
    await asyncio.Event().wait()


def crash() -> None:
    """Fail, so that the run ends."""
    raise RuntimeError("crashed")


@dataclass
class Mine:
    """What tools are given as their own context."""

    execution: str


SUM = use("add", '{"a": 1, "b": 2}')
RESEARCHER = pydantic_ai.Agent(scripted(["Look", "ing.", SUM], ["Found ", "3."]), tools=[add])


async def researcher(ctx: RunContext[Any], task: str) -> str:
    """Look into a task."""
    return str(await sub_agent(ctx, RESEARCHER, task, name="researcher"))


def whole() -> PydanticAIAgent:
    model = scripted(
        ["Let me ", "add.", SUM],
        [SUM],
        [use("broken")],
        [use("nosuch")],
        [use("measure", "somewhere")],
        [use("researcher", f'{{"task": "{task}"}}', place=place) for place, task in enumerate(scenario.TASKS)],
        ["All ", "done."],
    )
    return PydanticAIAgent(pydantic_ai.Agent(model, tools=[add, broken, measure, researcher]))


def alone(name: str) -> PydanticAIAgent:
    """An agent that calls one tool."""
    return PydanticAIAgent(pydantic_ai.Agent(scripted([use(name)], ["Went on."]), tools=[hang, crash]))


async def test_an_agent_leaves_what_a_plain_function_does() -> None:
    assert await scenario.whole(whole()) == scenario.expected(scenario.WHOLE, DIFFERENCES)


async def test_an_agent_is_cancelled_inside_a_tool() -> None:
    assert await scenario.cancelled(alone("hang")) == scenario.CANCELLED


async def test_an_agent_meets_its_deadline_inside_a_tool() -> None:
    assert await scenario.overdue(alone("hang")) == scenario.OVERDUE


async def test_a_tool_whose_error_ends_the_run_has_failed_by_it() -> None:
    assert await scenario.crashed(alone("crash")) == scenario.CRASHED


async def test_what_else_was_at_work_when_a_tool_ended_the_run_was_interrupted(runstream_server: LocalServer) -> None:
    begun = Gate()

    async def wait() -> None:
        begun.open()
        await asyncio.Event().wait()

    async def fail() -> None:
        await begun.passed()
        raise RuntimeError("crashed")

    model = scripted([use("wait", place=1), use("fail", place=2)])
    state = await runstream_server.run(PydanticAIAgent(pydantic_ai.Agent(model, tools=[wait, fail])), "go")
    assert (state.phase, state.error) == ("failed", "RuntimeError: crashed")
    assert [(each.name, each.status, each.error) for each in state.tools] == [
        ("wait", TOOL_CALL_INTERRUPTED, ""),
        ("fail", TOOL_CALL_FAILED, "RuntimeError: crashed"),
    ]


async def test_thoughts_are_messages_of_their_own(runstream_server: LocalServer) -> None:
    thoughts = [{0: DeltaThinkingPart(content="Hm, ")}, {0: DeltaThinkingPart(content="well.")}]
    state = await runstream_server.run(PydanticAIAgent(pydantic_ai.Agent(scripted([*thoughts, "Yes", "."]))), "go")
    told = [(message.type, message.content) for message in state.status.messages]
    assert told == [(MESSAGE_THINKING, "Hm, well."), (MESSAGE_AI, "Yes.")]


async def test_an_output_that_is_no_text_is_the_answer_as_json(runstream_server: LocalServer) -> None:
    @dataclass
    class Place:
        name: str

    agent = pydantic_ai.Agent(scripted([use("final_result", '{"name": "Rome"}')]), output_type=Place)
    state = (await runstream_server.run(PydanticAIAgent(agent), "go")).expect()
    assert state.texts == ['{"name": "Rome"}']
    assert state.tools == []


async def test_a_session_goes_on_and_the_system_prompt_with_it(runstream_server: LocalServer) -> None:
    heard: list[list[str]] = []

    def respond(messages: list[Any]) -> Response:
        heard.append([part.content for message in messages for part in message.parts])
        return [f"You said {heard[-1][-1]}."]

    agent = PydanticAIAgent(pydantic_ai.Agent(answering(respond), system_prompt="Be kind."))
    first = (await runstream_server.run(agent, "one")).expect()
    await runstream_server.run(agent, "two", session=first.session_id)
    await runstream_server.run(agent, "other")
    assert heard == [["Be kind.", "one"], ["Be kind.", "one", "You said one.", "two"], ["Be kind.", "other"]]


async def test_an_agent_that_is_resumed_knows_what_it_has_done(runstream_server: LocalServer) -> None:
    heard: list[list[str]] = []
    gate = Gate()

    def respond(messages: list[Any]) -> Response:
        heard.append([str(getattr(part, "content", part.part_kind)) for message in messages for part in message.parts])
        responses: list[Response] = [["Adding.", SUM], [use("wait")], ["Done."]]
        return responses[sum(isinstance(message, ModelResponse) for message in messages)]

    async def wait() -> str:
        await current_context().report.text("Waiting.")
        await gate.passed()
        return "waited"

    agent = PydanticAIAgent(pydantic_ai.Agent(answering(respond), tools=[add, wait]))
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
    assert heard[-1][:4] == ["go", "Adding.", "tool-call", "3"]
    assert heard[-1][-1] == "waited"


async def test_a_tool_that_needs_an_approval_is_asked_about(runstream_server: LocalServer) -> None:
    model = scripted(["May I?", use("add", '{"a": 1, "b": 2}'), use("add", '{"a": 2, "b": 2}', place=2)], ["Done."])
    agent = PydanticAIAgent(pydantic_ai.Agent(model, tools=[Tool(add, requires_approval=True)]))
    handle = await runstream_server.start(agent, "go")
    first, second = (await handle.until(lambda state: len(state.tools) == 2)).tools
    await handle.until(lambda state: len(waiting_calls(state.execution)) == 1)
    await handle.approve(first.id)
    await handle.until(lambda state: [each.id for each in waiting_calls(state.execution)] == [second.id])
    await handle.pause()
    await handle.until("paused")
    await handle.resume()
    await handle.reject(second.id, "too much")
    state = (await handle.result()).expect()
    assert [(each.id, each.status, each.result) for each in state.tools] == [
        (first.id, TOOL_CALL_COMPLETED, "3"),
        (second.id, TOOL_CALL_SKIPPED, ""),
    ]
    assert state.answer == "Done."


def unsure(*, gated: tuple[str, ...] = ("drop",)) -> tuple[PydanticAIAgent, list[str], list[list[str]]]:
    """An agent that calls two tools at once, of which some need approvals; what has run, and what its model heard."""
    ran: list[str] = []
    heard: list[list[str]] = []

    def drop(x: int) -> str:
        ran.append(f"drop {x}")
        return "dropped"

    def count(x: int) -> str:
        ran.append(f"count {x}")
        return "counted"

    def respond(messages: list[Any]) -> Response:
        heard.append([str(getattr(part, "content", part.part_kind)) for message in messages for part in message.parts])
        if any(isinstance(message, ModelResponse) for message in messages):
            return ["Done."]
        return ["Well.", use("drop", '{"x": 1}', place=1), use("count", '{"x": 2}', place=2)]

    tools = [Tool(each, requires_approval=each.__name__ in gated) for each in (drop, count)]
    return PydanticAIAgent(pydantic_ai.Agent(answering(respond), tools=tools)), ran, heard


def standing(state: State) -> dict[str, int]:
    """Where the calls stand, by the names of their tools."""
    return {each.name: each.status for each in state.tools}


@pytest.mark.parametrize("resume_attempts", [False, True])
async def test_a_call_that_is_approved_after_its_runner_was_lost_is_made(
    runstream_server: LocalServer, *, resume_attempts: bool
) -> None:
    agent, ran, heard = unsure()
    handle = await runstream_server.start(Agent(agent, resume_attempts=resume_attempts), "go")
    await handle.until(lambda state: standing(state) == {"drop": WAITING, "count": TOOL_CALL_COMPLETED})
    await runstream_server.lose_runners()
    await handle.approve()
    state = (await handle.result()).expect()
    assert sorted((each.name, each.result) for each in state.tools) == [("count", "counted"), ("drop", "dropped")]
    assert sorted(ran) == ["count 2", "drop 1"]
    assert state.texts == ["Well.", "Done."]
    assert sorted(heard[-1]) == sorted(["go", "Well.", "tool-call", "counted", "tool-call", "dropped"])
    assert len(state.status.usage) == 2


async def test_a_call_that_is_rejected_after_a_pause_is_not_made_and_the_model_is_told(
    runstream_server: LocalServer,
) -> None:
    agent, ran, heard = unsure()
    handle = await runstream_server.start(agent, "go")
    await handle.until(lambda state: standing(state) == {"drop": WAITING, "count": TOOL_CALL_COMPLETED})
    await handle.pause()
    await handle.until("paused")
    await handle.resume()
    await handle.reject(comment="too much")
    state = (await handle.result()).expect()
    assert standing(state) == {"drop": TOOL_CALL_SKIPPED, "count": TOOL_CALL_COMPLETED}
    assert ran == ["count 2"]
    assert state.texts == ["Well.", "Done."]
    assert "too much" in heard[-1]


async def test_of_two_calls_that_wait_each_is_asked_about_once_whatever_is_lost_between(
    runstream_server: LocalServer,
) -> None:
    agent, ran, _ = unsure(gated=("drop", "count"))
    handle = await runstream_server.start(agent, "go")
    state = await handle.until(lambda state: len(state.tools) == 2 and len(waiting_calls(state.execution)) == 1)
    first, second = state.tools
    await runstream_server.lose_runners()
    await handle.approve(first.id)
    await handle.until(lambda state: [each.id for each in waiting_calls(state.execution)] == [second.id])
    await runstream_server.lose_runners()
    await handle.reject(second.id)
    state = (await handle.result()).expect()
    assert [(each.id, each.status) for each in state.tools] == [
        (first.id, TOOL_CALL_COMPLETED),
        (second.id, TOOL_CALL_SKIPPED),
    ]
    assert ran == ["drop 1"]
    assert state.texts == ["Well.", "Done."]


async def test_what_was_decided_for_a_sub_agent_holds_when_it_begins_anew(runstream_server: LocalServer) -> None:
    ran: list[int] = []

    def drop(x: int) -> str:
        ran.append(x)
        return "dropped"

    below = pydantic_ai.Agent(
        answering(lambda messages: ["Found."] if len(messages) > 1 else [use("drop", '{"x": 1}')]),
        tools=[Tool(drop, requires_approval=True)],
        name="below",
    )

    async def ask(ctx: RunContext[Any]) -> str:
        return str(await sub_agent(ctx, below, "look"))

    agent = PydanticAIAgent(pydantic_ai.Agent(scripted([use("ask")], ["Well."]), tools=[ask]))
    handle = await runstream_server.start(agent, "go")
    await handle.until("waiting_for_approval")
    await runstream_server.lose_runners()
    await handle.approve()
    state = (await handle.result()).expect()
    assert [(sub.name, sub.output) for sub in state.status.sub_agent_executions] == [("below", "Found.")]
    assert [each.result for each in state.tools] == ["Found.", "dropped"]
    assert ran == [1]
    assert state.answer == "Well."


async def test_a_tool_that_calls_exit_has_failed_and_ends_nothing_else(runstream_server: LocalServer) -> None:
    async def leave() -> None:
        sys.exit(3)

    def leave_from_a_thread() -> None:
        raise KeyboardInterrupt

    for tool, error in ((leave, "the tool called exit(3)"), (leave_from_a_thread, "the tool raised KeyboardInterrupt")):
        agent = PydanticAIAgent(pydantic_ai.Agent(scripted([use(tool.__name__)]), tools=[tool]))
        state = await runstream_server.run(agent, "go")
        assert (state.phase, state.error) == ("failed", f"RuntimeError: {error}")
        assert [each.error for each in state.tools] == [state.error]


async def test_calls_at_once_that_are_too_many_end_the_run_and_are_told(runstream_server: LocalServer) -> None:
    calls = [use("add", '{"a": 1, "b": 2}', place=place) for place in range(3)]
    agent = PydanticAIAgent(pydantic_ai.Agent(scripted(calls, ["Done."]), tools=[add]))
    state = await runstream_server.run(agent, limited(tool_calls=2))
    assert (state.phase, state.reason) == ("failed", "BUDGET_EXCEEDED")
    assert [each.reason for each in state.tools if each.status == TOOL_CALL_FAILED] != []
    assert len(state.tools) == 3
    assert all(each.completed_at for each in state.tools)


def test_an_option_that_there_is_not_is_refused_when_it_is_given() -> None:
    with pytest.raises(TypeError, match="PydanticAIAgent has no option 'foo'"):
        PydanticAIAgent(RESEARCHER, foo=1)


async def test_a_tool_that_is_not_allowed_does_not_run_and_the_model_is_told(runstream_server: LocalServer) -> None:
    ran: list[str] = []

    def forbidden() -> None:
        ran.append("forbidden")

    model = scripted([use("forbidden"), use("add", '{"a": 1, "b": 2}', place=2)], ["I see."])
    agent = Agent(PydanticAIAgent(pydantic_ai.Agent(model, tools=[add, forbidden])), tools=("add",))
    state = (await runstream_server.run(agent, "go")).expect()
    assert [(each.name, each.status, each.reason) for each in state.tools] == [
        ("forbidden", TOOL_CALL_FAILED, "TOOL_NOT_ALLOWED"),
        ("add", TOOL_CALL_COMPLETED, ""),
    ]
    assert ran == []
    assert state.answer == "I see."


def limited(**budget: int) -> AgentExecution:
    """What is asked, within a budget."""
    request = AgentExecution()
    request.spec.message = "go"
    for name, limit in budget.items():
        setattr(request.spec.context.budget, name, limit)
    return request


@pytest.mark.parametrize(("limit", "calls"), [("model_calls", 2), ("tool_calls", 2), ("tokens", 1)])
async def test_a_budget_ends_the_run(runstream_server: LocalServer, limit: str, calls: int) -> None:
    agent = PydanticAIAgent(pydantic_ai.Agent(answering(lambda _: ["Again.", SUM]), tools=[add]))
    state = await runstream_server.run(agent, limited(**{limit: calls}))
    assert (state.phase, state.reason) == ("failed", "BUDGET_EXCEEDED")
    assert len(state.status.usage) <= 3
    assert all(each.completed_at for each in state.tools)


async def test_a_limit_of_the_frameworks_own_ends_the_run(runstream_server: LocalServer) -> None:
    agent = pydantic_ai.Agent(answering(lambda _: ["Again.", SUM]), tools=[add])
    served = PydanticAIAgent(agent, usage_limits=UsageLimits(request_limit=2))
    state = await runstream_server.run(served, limited(model_calls=9))
    assert (state.phase, state.reason) == ("failed", "LIMIT_EXCEEDED")


async def test_a_timeout_of_the_frameworks_own_ends_the_run(runstream_server: LocalServer) -> None:
    agent = PydanticAIAgent(pydantic_ai.Agent(scripted([use("hang")]), tools=[hang]), timeout=0.01)
    state = await runstream_server.run(agent, "go")
    assert (state.phase, state.reason) == ("failed", "DEADLINE_EXCEEDED")
    assert all(each.completed_at for each in state.tools)


async def test_a_model_that_asks_for_nonsense_ends_the_run(runstream_server: LocalServer) -> None:
    agent = pydantic_ai.Agent(answering(lambda _: [use("nosuch")]), tools=[add])
    state = await runstream_server.run(PydanticAIAgent(agent), "go")
    assert (state.phase, state.reason) == ("failed", "MODEL_ERROR")


async def test_a_sub_agent_spends_of_the_same_budget_and_fails_alone(runstream_server: LocalServer) -> None:
    async def delegate(ctx: RunContext[Any]) -> str:
        try:
            return str(await sub_agent(ctx, failing, "look", name="failing"))
        except RuntimeError as error:
            return f"it failed: {error}"

    failing = pydantic_ai.Agent(scripted([use("crash")]), tools=[crash])
    agent = pydantic_ai.Agent(scripted([use("delegate")], ["Well."]), tools=[delegate])
    state = (await runstream_server.run(PydanticAIAgent(agent), limited(model_calls=3, depth=1))).expect()
    (sub,) = state.status.sub_agent_executions
    assert (sub.status, sub.error) == (SUB_AGENT_FAILED, "RuntimeError: crashed")
    assert [(each.name, each.status, each.result) for each in state.tools] == [
        ("delegate", TOOL_CALL_COMPLETED, "it failed: crashed"),
        ("crash", TOOL_CALL_FAILED, ""),
    ]
    none_below = await runstream_server.run(PydanticAIAgent(agent), limited(depth=0))
    assert (none_below.phase, none_below.reason) == ("failed", "BUDGET_EXCEEDED")


async def test_one_tool_may_run_several_sub_agents_at_once(runstream_server: LocalServer) -> None:
    async def ask_both(ctx: RunContext[Any]) -> str:
        found = await asyncio.gather(*(sub_agent(ctx, RESEARCHER, task, name=task) for task in scenario.TASKS))
        return " ".join(found)

    agent = pydantic_ai.Agent(scripted([use("ask_both")], ["Well."]), tools=[ask_both])
    state = (await runstream_server.run(PydanticAIAgent(agent), "go")).expect()
    owners = {sub.id: sub.name for sub in state.status.sub_agent_executions if sub.status == SUB_AGENT_COMPLETED}
    told = sorted((owners[message.owner_id], message.content) for message in state.status.messages if message.owner_id)
    assert told == [(task, text) for task in scenario.TASKS for text in ("Found 3.", "Looking.")]
    assert sorted(owners.get(each.owner_id, "") for each in state.tools) == ["", *scenario.TASKS]


async def test_a_pause_waits_for_a_sub_agent(runstream_server: LocalServer) -> None:
    """It would begin anew when the agent is resumed, and use its tools once more."""
    gate = Gate()

    async def wait() -> str:
        await current_context().report.text("Waiting.")
        await gate.passed()
        return "waited"

    below = pydantic_ai.Agent(scripted([use("wait")], ["Found."]), tools=[wait], name="below")

    async def ask(ctx: RunContext[Any]) -> str:
        return str(await sub_agent(ctx, below, "look"))

    agent = PydanticAIAgent(pydantic_ai.Agent(scripted([use("ask")], ["Well."]), tools=[ask]))
    handle = await runstream_server.start(agent, "go")
    await handle.until_said("Waiting.")
    await handle.pause()
    gate.open()
    await handle.until("paused")
    await handle.resume()
    state = (await handle.result()).expect()
    assert [(sub.name, sub.output) for sub in state.status.sub_agent_executions] == [("below", "Found.")]
    assert [(each.name, each.result) for each in state.tools] == [("ask", "Found."), ("wait", "waited")]


async def test_a_sub_agent_needs_an_agent_that_is_served() -> None:
    with pytest.raises(NoContext):
        await sub_agent(None, RESEARCHER, "look")


def test_it_says_what_to_install_when_the_framework_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic_ai", None)
    monkeypatch.delitem(sys.modules, "runstream.adapters.pydantic_ai")
    with pytest.raises(ImportError, match=r"pip install 'runstream\[pydantic-ai\]'"):
        importlib.import_module("runstream.adapters.pydantic_ai")


async def test_a_tool_is_given_the_context_of_its_run(runstream_server: LocalServer) -> None:
    async def look(ctx: RunContext[Mine]) -> str:
        return f"{ctx.deps.execution} {current_context().execution} {current_context().parent_call}"

    def look_in_a_thread(ctx: RunContext[Mine]) -> str:
        return f"{ctx.deps.execution} {current_context().execution} {current_context().parent_call}"

    async def build(invocation: Invocation) -> Any:  # noqa: ANN401  # an agent
        assert invocation.message == "go"
        return pydantic_ai.Agent(
            scripted([use("look", place=1), use("look_in_a_thread", place=2)], ["Seen."]),
            tools=[look, look_in_a_thread],
        )

    agent = PydanticAIAgent(build, deps=lambda context: Mine(context.execution))
    await runstream_server.serve({"looking": agent})
    states = await asyncio.gather(*(runstream_server.run("looking", "go") for _ in range(10)))
    for state in states:
        assert [each.result for each in state.tools] == [f"{state.id} {state.id} {each.id}" for each in state.tools]


async def test_tools_find_our_context_as_their_deps(runstream_server: LocalServer) -> None:
    async def look(ctx: RunContext[Any]) -> str:
        return str(ctx.deps.execution)

    agent = pydantic_ai.Agent(scripted([use("look")], ["Seen."]), tools=[look])
    state = await runstream_server.run(PydanticAIAgent(agent), "go")
    assert state.tools[0].result == state.id


async def test_the_page_runs_as_it_stands(runstream_server: LocalServer) -> None:
    page = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")
    section = page.partition("\n## pydantic-ai\n")[2].partition("\n## ")[0]
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(compile(block, "adapters.md", "exec"), names)  # noqa: S102  # our own page
    state = (await runstream_server.run(names["agents"]["adder"], "go")).expect()
    assert state.answer == "It is checked."
    assert [(each.name, each.status) for each in state.tools] == [
        ("add", TOOL_CALL_COMPLETED),
        ("check", TOOL_CALL_COMPLETED),
    ]
    assert [(sub.name, sub.output) for sub in state.status.sub_agent_executions] == [("checker", "That is right.")]
