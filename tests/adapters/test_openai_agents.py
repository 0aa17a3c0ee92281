"""Agents of openai-agents as agents of a runner."""

# ruff: noqa: E402  # a framework that is missing is found out before it is imported
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
import importlib
import re
import sys
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runstream.runner import Agent
from runstream.runner.context import NoContext, current_context
from runstream.testing import Gate
from runstream.testing.state import waiting_calls
from runstream.v1.agent_execution_pb2 import (
    SUB_AGENT_COMPLETED,
    SUB_AGENT_FAILED,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_FAILED,
    TOOL_CALL_SKIPPED,
    AgentExecution,
)
from runstream.v1.agent_execution_pb2 import TOOL_CALL_WAITING_APPROVAL as WAITING
from tests.adapters import scenario
from tests.adapters.frameworks import require

require("agents")

import agents
from agents import RunConfig, Usage, function_tool
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from agents.tool_context import ToolContext  # noqa: TC002  # the framework looks at the annotations of tools

from runstream.adapters.openai_agents import OpenAIAgentsAgent, agent_tool, sub_agent
from runstream.adapters.openai_agents_craft import Remembered
from runstream.adapters.transcript import Made

if TYPE_CHECKING:
    from collections.abc import Callable

    from runstream.runner import Invocation
    from runstream.testing import LocalServer, State

#: A text, which is what a model says, or what `use` makes, which is a call of a tool.
Response = list[Any]

#: The lines in which it differs from a plain function, and why.
DIFFERENCES = {
    # The framework refuses the two before a tool has run, so their reason is known.
    "agent calls nosuch(): FAILED error": "agent calls nosuch(): FAILED TOOL_UNKNOWN error",
    # What a model asks for is text. Some is no JSON, and the framework runs no tool with it.
    "agent calls measure(…): COMPLETED 'wide'": "agent calls measure(…): FAILED TOOL_ARGUMENTS_INVALID error",
}
#: How often the model of a test may be asked, by whoever.
OFTEN = 100


def scripted(*responses: Response) -> ScriptedModel:
    """A model that gives one response after the other, in every run: it counts the results of tools that it is told."""

    def respond(said: list[Any]) -> Response:
        results = sum(item.get("type") == "function_call_output" for item in said)
        for response in responses:
            results -= sum(not isinstance(each, str) for each in response)
            if results < 0:
                return response
        return responses[-1]

    return answering(respond)


def answering(respond: Callable[[list[Any]], Response]) -> ScriptedModel:
    """A model that gives what this returns for what was said so far. All its responses have the same ids."""

    def step(call: Any) -> ModelStep:  # noqa: ANN401  # the framework's
        said = [{"role": "user", "content": call.input}] if isinstance(call.input, str) else call.input
        response = [assistant_message(each) if isinstance(each, str) else each for each in respond(said)]
        return ModelStep(response, usage=Usage(requests=1, input_tokens=1))

    return ScriptedModel([ModelStep.respond(step)] * OFTEN)


NUMBERS = count(1)


def use(name: str, args: str = "{}") -> Any:  # noqa: ANN401  # the framework's
    """A call of a tool. The framework runs none whose id it has seen."""
    return function_call(name, args, call_id=f"call-{next(NUMBERS)}")


@function_tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@function_tool
async def broken() -> None:
    """Fail, so that the model is told."""
    raise LookupError("it is broken")


@function_tool
def measure(at: str) -> str:
    """Measure a place."""
    return at


@function_tool
async def hang() -> None:
    """Never end."""
    await asyncio.Event().wait()


@function_tool(failure_error_function=None)
def crash() -> None:
    """Fail, so that the run ends."""
    raise RuntimeError("crashed")


@dataclass
class Mine:
    """What tools are given as their own context."""

    execution: str


def summing() -> Any:  # noqa: ANN401  # the framework's
    """A call of `add`."""
    return use("add", '{"a": 1, "b": 2}')


def made(model: ScriptedModel, *tools: Any, name: str = "helper", **options: Any) -> Any:  # noqa: ANN401  # the framework's
    """An agent of the framework."""
    return agents.Agent(name=name, model=model, tools=list(tools), **options)


def researcher() -> Any:  # noqa: ANN401  # the framework's
    return made(scripted(["Looking.", summing()], ["Found 3."]), add, name="researcher")


@function_tool(name_override="researcher")
async def research(ctx: ToolContext[Any], task: str) -> str:
    """Look into a task."""
    return str(await sub_agent(ctx, researcher(), task))


def whole() -> OpenAIAgentsAgent:
    model = scripted(
        ["Let me add.", summing()],
        [summing()],
        [use("broken")],
        [use("nosuch")],
        [use("measure", "somewhere")],
        [use("researcher", f'{{"task": "{task}"}}') for task in scenario.TASKS],
        ["All done."],
    )
    return OpenAIAgentsAgent(made(model, add, broken, measure, research))


def alone(name: str) -> OpenAIAgentsAgent:
    """An agent that calls one tool."""
    return OpenAIAgentsAgent(made(scripted([use(name)], ["Went on."]), hang, crash))


async def test_an_agent_leaves_what_a_plain_function_does() -> None:
    assert await scenario.whole(whole()) == scenario.expected(scenario.WHOLE, DIFFERENCES)


async def test_an_agent_is_cancelled_inside_a_tool() -> None:
    assert await scenario.cancelled(alone("hang")) == scenario.CANCELLED


async def test_an_agent_meets_its_deadline_inside_a_tool() -> None:
    assert await scenario.overdue(alone("hang")) == scenario.OVERDUE


async def test_a_tool_whose_error_ends_the_run_has_failed_by_it() -> None:
    assert await scenario.crashed(alone("crash")) == scenario.CRASHED


async def test_a_run_that_is_stopped_has_ended_when_the_execution_has(runstream_server: LocalServer) -> None:
    ended = asyncio.Event()

    @function_tool
    async def wait() -> None:
        await current_context().report.text("Waiting.")
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    handle = await runstream_server.start(OpenAIAgentsAgent(made(scripted([use("wait")]), wait)), "go")
    await handle.until_said("Waiting.")
    await handle.cancel()
    await handle.result()
    assert ended.is_set()


async def test_nothing_is_traced(runstream_server: LocalServer) -> None:
    traced: list[Any] = []

    class Listening(agents.TracingProcessor):  # type: ignore[misc]  # of the framework, whose types are not checked
        def on_trace_start(self, trace: object) -> None:
            traced.append(trace)

        def on_span_start(self, span: object) -> None:
            traced.append(span)

        on_trace_end = on_span_end = on_trace_start

        def shutdown(self) -> None:
            traced.clear()

        def force_flush(self) -> None:
            """Keep nothing back."""

    agents.set_trace_processors([Listening()])
    agent = OpenAIAgentsAgent(made(scripted([summing()], ["Done."]), add), run_config=RunConfig(tracing_disabled=False))
    (await runstream_server.run(agent, "go")).expect()
    assert traced == []


async def test_a_session_goes_on(runstream_server: LocalServer) -> None:
    heard: list[list[str]] = []

    def respond(said: list[Any]) -> Response:
        heard.append([item["content"] for item in said])
        return [f"You said {heard[-1][-1]}."]

    agent = OpenAIAgentsAgent(made(answering(respond)))
    first = (await runstream_server.run(agent, "one")).expect()
    await runstream_server.run(agent, "two", session=first.session_id)
    await runstream_server.run(agent, "other")
    assert heard == [["one"], ["one", "You said one.", "two"], ["other"]]


async def test_an_agent_that_is_resumed_knows_what_it_has_done(runstream_server: LocalServer) -> None:
    heard: list[list[str]] = []
    gate = Gate()

    def respond(said: list[Any]) -> Response:
        heard.append([item.get("content") or item.get("output") or item["type"] for item in said])
        responses: list[Response] = [["Adding.", summing()], [use("wait")], ["Done."]]
        return responses[sum(item.get("type") == "function_call_output" for item in said)]

    @function_tool
    async def wait() -> str:
        await current_context().report.text("Waiting.")
        await gate.passed()
        return "waited"

    handle = await runstream_server.start(OpenAIAgentsAgent(made(answering(respond), add, wait)), "go")
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
    assert heard[-1][:4] == ["go", "Adding.", "function_call", "3"]
    assert heard[-1][-1] == "waited"


async def test_a_tool_that_needs_an_approval_is_asked_about(runstream_server: LocalServer) -> None:
    @function_tool(needs_approval=True)
    async def double(a: int) -> int:
        return 2 * a

    model = scripted(["May I?", use("double", '{"a": 1}'), use("double", '{"a": 2}')], ["Done."])
    handle = await runstream_server.start(OpenAIAgentsAgent(made(model, double)), "go")
    first, second = (await handle.until(lambda state: len(waiting_calls(state.execution)) == 1)).tools
    await handle.approve(first.id)
    await handle.until(lambda state: [each.id for each in waiting_calls(state.execution)] == [second.id])
    await handle.pause()
    await handle.until("paused")
    await handle.resume()
    await handle.reject(second.id, "too much")
    state = (await handle.result()).expect()
    assert [(each.id, each.status, each.result) for each in state.tools] == [
        (first.id, TOOL_CALL_COMPLETED, "2"),
        (second.id, TOOL_CALL_SKIPPED, ""),
    ]
    assert state.answer == "Done."


def unsure(*, gated: tuple[str, ...] = ("drop",)) -> tuple[OpenAIAgentsAgent, list[str], list[list[Any]]]:
    """An agent that calls two tools at once, of which some need approvals; what has run, and what its model heard."""
    ran: list[str] = []
    heard: list[list[Any]] = []

    @function_tool(needs_approval="drop" in gated)
    async def drop(x: int) -> str:
        ran.append(f"drop {x}")
        return "dropped"

    @function_tool(needs_approval="count" in gated)
    async def count(x: int) -> str:
        ran.append(f"count {x}")
        return "counted"

    def respond(said: list[Any]) -> Response:
        heard.append([item.get("output") or item.get("content") or item.get("name") for item in said])
        if any(item.get("type") == "function_call_output" for item in said):
            return ["Done."]
        return ["Well.", use("drop", '{"x": 1}'), use("count", '{"x": 2}')]

    return OpenAIAgentsAgent(made(answering(respond), drop, count)), ran, heard


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
    assert sorted(heard[-1]) == sorted(["go", "Well.", "count", "counted", "drop", "dropped"])
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
    first, second = (await handle.until(lambda state: len(waiting_calls(state.execution)) == 1)).tools
    await runstream_server.lose_runners()
    await handle.approve(first.id)
    await handle.until(lambda state: [each.id for each in waiting_calls(state.execution)] == [second.id])
    assert ran == []
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

    below = made(
        scripted([use("drop", '{"x": 1}')], ["Found."]), function_tool(drop, needs_approval=True), name="below"
    )
    agent = OpenAIAgentsAgent(made(scripted([use("below", '{"input": "look"}')], ["Well."]), agent_tool(below)))
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
    @function_tool
    async def leave() -> None:
        sys.exit(3)

    @function_tool(failure_error_function=None)
    def leave_for_good() -> None:
        raise KeyboardInterrupt

    agent = OpenAIAgentsAgent(made(scripted([use("leave")], ["Well."]), leave))
    state = (await runstream_server.run(agent, "go")).expect()
    assert [each.error for each in state.tools] == ["RuntimeError: the tool called exit(3)"]
    agent = OpenAIAgentsAgent(made(scripted([use("leave_for_good")]), leave_for_good))
    state = await runstream_server.run(agent, "go")
    assert (state.phase, state.error) == ("failed", "RuntimeError: the tool raised KeyboardInterrupt")


async def test_what_a_tool_reports_by_itself_stands_under_its_call(runstream_server: LocalServer) -> None:
    @function_tool
    async def look(at: str) -> str:
        async with current_context().report.tool("see", {"at": at}):
            pass
        return current_context().parent_call or ""

    @function_tool
    def look_in_a_thread(at: str) -> str:
        return f"{at}: {current_context().parent_call}"

    calls = [use("look", '{"at": "a"}'), use("look", '{"at": "b"}'), use("look_in_a_thread", '{"at": "c"}')]
    agent = OpenAIAgentsAgent(made(scripted(calls, ["Seen."]), look, look_in_a_thread))
    state = (await runstream_server.run(agent, "go")).expect()
    looks = [each for each in state.tools if each.name == "look"]
    assert [each.result for each in looks] == [each.id for each in looks]
    seen = [(each.args["at"], each.parent_call_id) for each in state.tools if each.name == "see"]
    assert sorted(seen) == [(each.args["at"], each.id) for each in looks]
    (in_a_thread,) = (each for each in state.tools if each.name == "look_in_a_thread")
    assert in_a_thread.result == f"c: {in_a_thread.id}"


async def test_a_tool_that_is_not_allowed_does_not_run_and_the_model_is_told(runstream_server: LocalServer) -> None:
    ran: list[str] = []

    @function_tool
    def forbidden() -> None:
        ran.append("forbidden")

    agent = OpenAIAgentsAgent(made(scripted([use("forbidden"), summing()], ["I see."]), add, forbidden))
    state = (await runstream_server.run(Agent(agent, tools=("add",)), "go")).expect()
    assert [(each.name, each.status, each.reason) for each in state.tools] == [
        ("forbidden", TOOL_CALL_FAILED, "TOOL_NOT_ALLOWED"),
        ("add", TOOL_CALL_COMPLETED, ""),
    ]
    assert ran == []
    assert state.answer == "I see."


async def test_an_agent_that_goes_on_in_place_of_another_is_kept_to_what_is_allowed(
    runstream_server: LocalServer,
) -> None:
    ran: list[str] = []

    @function_tool
    def forbidden() -> None:
        ran.append("forbidden")

    script = [["x", use("transfer_to_other")], ["I go on.", use("forbidden")], ["I see."]]
    other = made(scripted(*script), forbidden, name="other")
    agent = OpenAIAgentsAgent(made(scripted([use("transfer_to_other")]), handoffs=[other]))
    state = (await runstream_server.run(Agent(agent, tools=("transfer_to_other",)), "go")).expect()
    assert state.answer == "I see."
    assert [(each.name, each.status) for each in state.tools] == [
        ("transfer_to_other", TOOL_CALL_COMPLETED),
        ("forbidden", TOOL_CALL_FAILED),
    ]
    assert ran == []


def limited(**budget: int) -> AgentExecution:
    """What is asked, within a budget."""
    request = AgentExecution()
    request.spec.message = "go"
    for name, limit in budget.items():
        setattr(request.spec.context.budget, name, limit)
    return request


@pytest.mark.parametrize(("limit", "calls"), [("model_calls", 2), ("tool_calls", 2), ("tokens", 1)])
async def test_a_budget_ends_the_run(runstream_server: LocalServer, limit: str, calls: int) -> None:
    agent = OpenAIAgentsAgent(made(answering(lambda _: ["Again.", summing()]), add))
    state = await runstream_server.run(agent, limited(**{limit: calls}))
    assert (state.phase, state.reason) == ("failed", "BUDGET_EXCEEDED")
    assert len(state.status.usage) <= 3
    assert all(each.completed_at for each in state.tools)


async def test_a_limit_of_the_frameworks_own_ends_the_run(runstream_server: LocalServer) -> None:
    agent = OpenAIAgentsAgent(made(answering(lambda _: ["Again.", summing()]), add), max_turns=2)
    state = await runstream_server.run(agent, limited(model_calls=9))
    assert (state.phase, state.reason) == ("failed", "LIMIT_EXCEEDED")


async def test_what_the_model_is_told_of_a_failure_is_the_configs(runstream_server: LocalServer) -> None:
    heard: list[Any] = []

    def respond(said: list[Any]) -> Response:
        heard.append(said[-1])
        return ["Well."] if len(said) > 1 else [use("broken")]

    config = RunConfig(tool_error_formatter=lambda told: f"{told.tool_name} says: {told.error}")
    agent = OpenAIAgentsAgent(made(answering(respond), broken), run_config=config)
    state = (await runstream_server.run(agent, "go")).expect()
    assert heard[-1]["output"] == "broken says: it is broken"
    assert [(each.status, each.error) for each in state.tools] == [(TOOL_CALL_FAILED, "LookupError: it is broken")]


async def test_a_sub_agent_spends_of_the_same_budget_and_fails_alone(runstream_server: LocalServer) -> None:
    failing = made(scripted([use("crash")]), crash, name="failing")
    agent = OpenAIAgentsAgent(made(scripted([use("failing", '{"input": "look"}')], ["Well."]), agent_tool(failing)))
    state = (await runstream_server.run(agent, limited(model_calls=3, depth=1))).expect()
    (sub,) = state.status.sub_agent_executions
    assert (sub.input, sub.status, sub.error) == ("look", SUB_AGENT_FAILED, "RuntimeError: crashed")
    assert [(each.name, each.status, each.error) for each in state.tools] == [
        ("failing", TOOL_CALL_FAILED, "RuntimeError: crashed"),
        ("crash", TOOL_CALL_FAILED, "RuntimeError: crashed"),
    ]
    none_below = (await runstream_server.run(agent, limited(depth=0))).expect()
    assert [each.reason for each in none_below.tools] == ["BUDGET_EXCEEDED"]
    assert not none_below.status.sub_agent_executions


async def test_one_tool_may_run_several_sub_agents_at_once(runstream_server: LocalServer) -> None:
    @function_tool
    async def ask_both(ctx: ToolContext[Any]) -> str:
        found = (sub_agent(ctx, researcher(), task, name=task) for task in scenario.TASKS)
        return " ".join(await asyncio.gather(*found))

    agent = OpenAIAgentsAgent(made(scripted([use("ask_both")], ["Well."]), ask_both))
    state = (await runstream_server.run(agent, "go")).expect()
    owners = {sub.id: sub.name for sub in state.status.sub_agent_executions if sub.status == SUB_AGENT_COMPLETED}
    told = sorted((owners[message.owner_id], message.content) for message in state.status.messages if message.owner_id)
    assert told == [(task, text) for task in scenario.TASKS for text in ("Found 3.", "Looking.")]
    assert sorted(owners.get(each.owner_id, "") for each in state.tools) == ["", *scenario.TASKS]


async def test_a_pause_waits_for_a_sub_agent(runstream_server: LocalServer) -> None:
    """It would begin anew when the agent is resumed, and use its tools once more."""
    gate = Gate()

    @function_tool
    async def wait() -> str:
        await current_context().report.text("Waiting.")
        await gate.passed()
        return "waited"

    below = made(scripted([use("wait")], ["Found."]), wait, name="below")
    agent = OpenAIAgentsAgent(made(scripted([use("below", '{"input": "look"}')], ["Well."]), agent_tool(below)))
    handle = await runstream_server.start(agent, "go")
    await handle.until_said("Waiting.")
    await handle.pause()
    gate.open()
    await handle.until("paused")
    await handle.resume()
    state = (await handle.result()).expect()
    assert [(sub.name, sub.output) for sub in state.status.sub_agent_executions] == [("below", "Found.")]
    assert [(each.name, each.result) for each in state.tools] == [("below", "Found."), ("wait", "waited")]


async def test_a_guardrail_ends_the_run(runstream_server: LocalServer) -> None:
    async def check(context: object, agent: object, output: object) -> Any:  # noqa: ANN401  # the framework's
        _ = context, agent
        return agents.GuardrailFunctionOutput(output_info=None, tripwire_triggered=output == "Nonsense.")

    guarded = made(scripted(["Nonsense."]), output_guardrails=[agents.OutputGuardrail(check)])
    state = await runstream_server.run(OpenAIAgentsAgent(guarded), "go")
    assert (state.phase, state.reason) == ("failed", "GUARDRAIL_TRIPPED")


async def test_a_model_that_fails_ends_the_run(runstream_server: LocalServer) -> None:
    model = ScriptedModel([ModelStep.raise_error(agents.ModelBehaviorError("it is confused"))])
    state = await runstream_server.run(OpenAIAgentsAgent(made(model)), "go")
    assert (state.phase, state.reason, state.error) == ("failed", "MODEL_ERROR", "it is confused")


async def test_a_sub_agent_needs_an_agent_that_is_served() -> None:
    with pytest.raises(NoContext):
        await sub_agent(None, researcher(), "look")


def test_it_says_what_to_install_when_the_framework_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "agents", None)
    monkeypatch.delitem(sys.modules, "runstream.adapters.openai_agents")
    with pytest.raises(ImportError, match=r"pip install 'runstream\[openai-agents\]'"):
        importlib.import_module("runstream.adapters.openai_agents")


async def test_a_tool_is_given_the_context_of_its_run(runstream_server: LocalServer) -> None:
    @function_tool
    async def look(ctx: ToolContext[Mine]) -> str:
        return f"{ctx.context.execution} {current_context().execution}"

    @function_tool
    def look_in_a_thread(ctx: ToolContext[Mine]) -> str:
        return f"{ctx.context.execution} {current_context().execution}"

    async def build(invocation: Invocation) -> Any:  # noqa: ANN401  # an agent
        assert invocation.message == "go"
        return made(scripted([use("look"), use("look_in_a_thread")], ["Seen."]), look, look_in_a_thread)

    agent = OpenAIAgentsAgent(build, context=lambda context: Mine(context.execution))
    await runstream_server.serve({"looking": agent})
    states = await asyncio.gather(*(runstream_server.run("looking", "go") for _ in range(10)))
    for state in states:
        assert [each.result for each in state.tools] == [f"{state.id} {state.id}"] * 2


async def test_the_page_runs_as_it_stands(runstream_server: LocalServer) -> None:
    page = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")
    section = page.partition("\n## openai-agents\n")[2].partition("\n## ")[0]
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(compile(block, "adapters.md", "exec"), names)  # noqa: S102  # our own page
    state = (await runstream_server.run(names["agents"]["adder"], "go")).expect()
    assert state.answer == "It is 3, and checked."
    assert [(each.name, each.status) for each in state.tools] == [
        ("add", TOOL_CALL_COMPLETED),
        ("checker", TOOL_CALL_COMPLETED),
    ]
    assert [(sub.name, sub.output) for sub in state.status.sub_agent_executions] == [("checker", "That is right.")]


async def test_a_model_that_remembers_says_the_same_as_a_whole_as_it_does_in_a_stream() -> None:
    model = Remembered([Made("call_1", "add", {"a": 1}, "", failed=False, ended=False)])
    whole = await model.get_response()
    (streamed,) = [event async for event in model.stream_response()]
    assert whole.output == streamed.response.output
    assert [(call.call_id, call.name, call.arguments) for call in whole.output] == [("call_1", "add", '{"a": 1}')]
