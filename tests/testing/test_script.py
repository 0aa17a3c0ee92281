"""The script: does what is written down, in order, and the same in every execution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runstream.runner import Agent, Approval
from runstream.testing import Ask, End, Fail, Gate, Hang, ManualClock, Raise, Say, Script, Sleep, Step, Tool
from runstream.v1.agent_execution_pb2 import (
    MESSAGE_THINKING,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_FAILED,
    TOOL_CALL_RUNNING,
    AgentExecutionStatus,
    SubAgentExecution,
    Usage,
)

if TYPE_CHECKING:
    from runstream.runner import Invocation
    from runstream.testing import LocalServer


async def test_it_says_what_it_is_told_to(runstream_server: LocalServer) -> None:
    state = await runstream_server.run(Script("Hm.", Say("Let me think.", kind="thinking"), Say("So.")))
    assert state.texts == ["Hm.", "Let me think.", "So."]
    assert state.status.messages[1].type == MESSAGE_THINKING
    assert state.answer == "So."


async def test_it_streams_word_by_word(runstream_server: LocalServer) -> None:
    text = "  One  word\nafter another.\n"
    handle = await runstream_server.start(Script(Say(text, words=True)))
    assert (await handle.result()).texts == [text]
    words = [message.content_append for change in await handle.changes() for message in change.status.messages]
    assert [word for word in words if word] == ["  One", "  word", "\nafter", " another.\n"]


@pytest.mark.parametrize("text", ["", " ", "one", "\n one \n two \n"])
async def test_it_streams_nothing_but_the_text(runstream_server: LocalServer, text: str) -> None:
    assert (await runstream_server.run(Script(Say(text, words=True)))).texts == [text]


async def test_it_uses_tools(runstream_server: LocalServer) -> None:
    script = Script(Tool("search", {"q": "x"}, result={"hits": 3}), Tool("search", error="offline"), "Well.")
    state = await runstream_server.run(script)
    assert [call.status for call in state.tools] == [TOOL_CALL_COMPLETED, TOOL_CALL_FAILED]
    assert state.tools[0].result == '{"hits": 3}'
    assert state.tools[0].args["q"] == "x"
    assert state.tools[1].error == "ToolError: offline"
    assert state.answer == "Well."


async def test_a_tool_runs_for_as_long_as_the_test_likes(runstream_server: LocalServer) -> None:
    gate = Gate()
    handle = await runstream_server.start(Script(Tool("search", result="x", during=("Searching.", gate))))
    state = await handle.until_said("Searching.")
    assert state.tool("search").status == TOOL_CALL_RUNNING
    gate.open()
    assert (await handle.result()).tool("search").result == "x"


async def test_it_sleeps_on_the_clock(runstream_server: LocalServer, runstream_clock: ManualClock) -> None:
    handle = await runstream_server.start(Script("Wait.", Sleep(3_600, runstream_clock), "Over."))
    await handle.until_said("Wait.")
    await runstream_server.advance(3_599)
    assert (await handle.state()).phase == "in_progress"
    await runstream_server.advance(1)
    assert (await handle.result()).answer == "Over."


async def test_it_reports_messages_of_the_api(runstream_server: LocalServer) -> None:
    delta = AgentExecutionStatus()
    delta.todos["1"].content = "tidy up"
    script = Script(Usage(model="m", input_tokens=3), SubAgentExecution(id="s", name="helper"), delta)
    state = await runstream_server.run(script)
    assert state.status.usage[0].input_tokens == 3
    assert state.status.sub_agent_executions[0].name == "helper"
    assert state.status.todos["1"].content == "tidy up"


async def test_it_calls_functions(runstream_server: LocalServer) -> None:
    async def echo(invocation: Invocation) -> str:
        return invocation.message

    state = await runstream_server.run(Script(echo, lambda invocation: invocation.message.upper()), "hello")
    assert state.texts == ["hello", "HELLO"]


async def test_it_ends_early(runstream_server: LocalServer) -> None:
    assert (await runstream_server.run(Script(End("Enough."), "More."))).texts == ["Enough."]
    assert (await runstream_server.run(Script("One.", End(), "Two."))).texts == ["One."]
    assert (await runstream_server.run(Script(Tool("a", during=(End(),)), "Two."))).texts == []


async def test_it_fails(runstream_server: LocalServer) -> None:
    failed = await runstream_server.run(Script(Fail("QUOTA", "No money left.")))
    broken = await runstream_server.run(Script(Raise(KeyError("town"))))
    assert (failed.reason, failed.error) == ("QUOTA", "No money left.")
    assert (broken.reason, broken.error) == ("AGENT_ERROR", "KeyError: 'town'")


async def test_it_can_be_an_agent_with_options(runstream_server: LocalServer) -> None:
    state = await runstream_server.run(Agent(Script("Hello."), description="says hello"))
    assert state.answer == "Hello."


async def test_it_is_the_same_every_time(runstream_server: LocalServer) -> None:
    script = Script("Hm.", Tool("search", {"q": 1}, result="x"), Say("So it is.", words=True))
    deltas = []
    for _ in range(2):
        handle = await runstream_server.start(script)
        await handle.result()
        statuses = [change.status for change in await handle.changes()]
        deltas.append([(each.id, each.content_append) for status in statuses for each in status.messages])
    assert deltas[0] == deltas[1]


async def test_it_asks_nobody_twice(runstream_server: LocalServer) -> None:
    class UntilPaused(Step):
        async def perform(self, invocation: Invocation, place: str) -> None:
            _ = place
            while not invocation.resumed:  # the runner hears of the pause when it is there, not when it was asked for
                await invocation.safe_point()

    script = Script(
        Ask("Sure?", lambda said: f"{said}!"),
        Tool("pay", approval=True, result="paid"),
        Tool("lend", approval=Approval(), declined="Not lent."),
        Say("Thinking it over.", words=True),
        UntilPaused(),
        "Done.",
    )
    handle = await runstream_server.start(script)
    await handle.answer("yes")
    await handle.approve("pay")
    await handle.reject("lend")
    before = await handle.until_said("over.")
    await handle.pause()
    await handle.until("paused")
    await handle.resume()
    state = await handle.result()
    assert (state.phase, state.attempt) == ("completed", 2)
    assert state.texts == [*before.texts, "Done."]
    assert [(call.name, call.status) for call in state.tools] == [(call.name, call.status) for call in before.tools]


async def test_what_is_no_step_is_refused_when_it_is_written() -> None:
    with pytest.raises(TypeError, match="not 3"):
        Script("fine", 3)  # type: ignore[arg-type]  # what is refused
    with pytest.raises(TypeError, match="not None"):
        Tool("search", during=(None,))  # type: ignore[arg-type]  # what is refused


async def test_a_step_can_be_the_tests_own(runstream_server: LocalServer) -> None:
    class Twice(Step):
        async def perform(self, invocation: Invocation, place: str) -> None:
            for number in (1, 2):
                await invocation.report.message("Again.", id=f"{place}-{number}")

    state = await runstream_server.run(Script(Twice()))
    assert [(message.id, message.content) for message in state.status.messages] == [
        ("step-1-1", "Again."),
        ("step-1-2", "Again."),
    ]


async def test_a_gate_that_is_open_stays_open(runstream_server: LocalServer) -> None:
    gate = Gate()
    handles = [await runstream_server.start(Script(f"{n}", gate)) for n in (1, 2)]
    for number, handle in enumerate(handles, start=1):
        await handle.until_said(str(number))
    gate.open()
    assert [(await handle.result()).phase for handle in handles] == ["completed", "completed"]
    assert (await runstream_server.run(Script(gate))).phase == "completed"


async def test_what_hangs_cannot_be_paused(runstream_server: LocalServer) -> None:
    handle = await runstream_server.start(Script("Working.", Hang()))
    await handle.until_said("Working.")
    await handle.pause()
    assert (await handle.state()).phase == "in_progress"
    await handle.cancel()
    assert (await handle.result()).phase == "cancelled"
