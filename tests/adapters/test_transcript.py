"""What was said before is told to frameworks in order, without what is only half done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.adapters.transcript import Made, Turn, closed, transcript
from runstream.v1.agent_execution_pb2 import TOOL_CALL_PENDING, ToolCall

if TYPE_CHECKING:
    from runstream.runner import Invocation
    from runstream.testing import LocalServer


async def test_a_session_is_told_from_its_beginning(runstream_server: LocalServer) -> None:
    heard: list[list[Turn]] = []

    async def agent(invocation: Invocation) -> str:
        heard.append(transcript(invocation))
        async with invocation.report.tool("look"):
            await invocation.report.text("Hm.", kind="thinking")
        await invocation.context.sub_agent(aside, "look")
        return f"You said {invocation.message}."

    async def aside(invocation: Invocation) -> str:
        heard.append(transcript(invocation))
        return "Aside."

    first = await runstream_server.run(agent, "one")
    await runstream_server.run(agent, "two", session=first.session_id)
    before = [Turn("user", "one"), Turn("assistant", "You said one.")]
    look = [Turn("user", "look")]
    assert heard == [[Turn("user", "one")], look, [*before, Turn("user", "two")], look]


async def test_an_agent_that_is_resumed_is_told_what_it_has_done(runstream_server: LocalServer) -> None:
    heard: list[list[Turn]] = []

    async def agent(invocation: Invocation) -> str:
        report = invocation.report
        if invocation.resumed:
            heard.append(transcript(invocation))
            return "Done."
        await report.text("I look.")
        async with report.tool("look", {"at": "here"}, id="c-1") as call:
            call.result = "seen"
        async with report.tool("touch", id="c-2") as call:
            call.result = "felt"
        where = await report.needs_input("Where to?", id="where")
        await report.text(f"To {where}, then.")
        await report.needs_input("When?", id="when")
        return "never"

    handle = await runstream_server.start(agent, "go")
    await handle.answer("Rome")
    await handle.until_said("When?")
    await handle.until("waiting_for_input")
    await handle.pause()
    await handle.until("paused")
    await handle.resume()
    await handle.result()
    assert heard == [
        [
            Turn("user", "go"),
            Turn("assistant", "I look.", (Made("c-1", "look", {"at": "here"}, "seen", failed=False),)),
            Turn("assistant", "", (Made("c-2", "touch", {}, "felt", failed=False),)),
            Turn("assistant", "Where to?"),
            Turn("user", "Rome"),
        ]
    ]


async def test_what_is_still_to_be_done_is_a_turn_of_its_own_and_what_its_tools_have_said_is_left_out(
    runstream_server: LocalServer,
) -> None:
    heard: list[list[Turn]] = []

    async def agent(invocation: Invocation) -> str:
        report = invocation.report
        if invocation.resumed:
            heard.append(transcript(invocation))
            return "Done."
        async with report.tool("look", {"at": 3, "from": 0.5}, id="c-1") as call:
            call.result = "seen"
        await report.event(ToolCall(id="c-2", name="touch", status=TOOL_CALL_PENDING))
        await report.needs_input("Where to?", id="where")
        return "never"

    handle = await runstream_server.start(agent, "go")
    await handle.until("waiting_for_input")
    await handle.pause()
    await handle.until("paused")
    await handle.resume()
    await handle.result()
    look = Made("c-1", "look", {"at": 3, "from": 0.5}, "seen", failed=False)
    touch = Made("c-2", "touch", {}, "", failed=False, ended=False)
    (turns,) = heard
    assert turns == [Turn("user", "go"), Turn("assistant", "", (look,)), Turn("assistant", "", (touch,))]
    assert [turn.open for turn in turns] == [False, False, True]
    (told,) = closed(turns)[-1].calls
    assert (told.failed, told.ended) == (True, True)
    assert told.result.startswith("The call was interrupted")
