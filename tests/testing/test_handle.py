"""The handle: what a person does with an execution, and what a test waits for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from runstream.runner import AgentFailure
from runstream.testing import Ask, Fail, Gate, Hang, NotReached, Raise, Script, Tool
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_REJECT,
    EXECUTION_COMPLETED,
    EXECUTION_PAUSED,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_SKIPPED,
)

if TYPE_CHECKING:
    from runstream.runner import Invocation
    from runstream.testing import LocalServer


async def test_a_phase_that_was_short_is_not_missed(runstream_server: LocalServer) -> None:
    handle = await runstream_server.start(Script("Done."))
    ended = await handle.result()
    other = runstream_server.handle(handle.id)
    began = await other.until("in_progress")
    assert began.revision < ended.revision
    assert (await other.until(EXECUTION_COMPLETED)).execution == ended.execution


async def test_what_was_looked_at_is_found_again_until_something_is_done(runstream_server: LocalServer) -> None:
    handle = await runstream_server.start(Script(Tool("one", approval=True), Tool("two", approval=True)))
    first = await handle.until("waiting_for_approval")
    assert (await handle.until("waiting_for_approval")).revision == first.revision
    await handle.approve()
    second = await handle.until("waiting_for_approval")
    assert second.revision > first.revision
    assert second.tool("one").status == TOOL_CALL_COMPLETED
    await handle.approve()
    await handle.result()


async def test_anything_of_the_state_can_be_waited_for(runstream_server: LocalServer) -> None:
    gate = Gate()
    handle = await runstream_server.start(Script("Look: it works.", gate))
    assert (await handle.until(lambda state: state.answer.endswith("works."))).phase == "in_progress"
    assert (await handle.until_said("it works")).phase == "in_progress"
    assert (await handle.state()).phase == "in_progress"
    gate.open()
    assert (await handle.result()).phase == "completed"


async def test_the_changes_are_the_whole_log(runstream_server: LocalServer) -> None:
    gate = Gate()
    handle = await runstream_server.start(Script("Hello.", gate))
    await handle.until_said("Hello.")
    early = await handle.changes()
    gate.open()
    ended = await handle.result()
    changes = await handle.changes()
    assert [change.revision for change in changes] == list(range(1, ended.revision + 1))
    assert changes[: len(early)] == early
    assert changes[0].HasField("created")
    assert changes[-1].terminal


async def test_a_tool_waits_for_its_approval(runstream_server: LocalServer) -> None:
    handle = await runstream_server.start(Script(Tool("rm", {"path": "old"}, result="gone", approval=True)))
    await handle.approve(comment="go ahead")
    state = await handle.result()
    assert state.tool("rm").result == "gone"
    assert state.tool("rm").approval.comment == "go ahead"


async def test_a_tool_that_is_skipped_or_rejected_does_not_run(runstream_server: LocalServer) -> None:
    script = Script(Tool("rm", approval=True, declined="Then not."), Tool("mv", approval=True))
    handle = await runstream_server.start(script)
    await handle.skip("rm")
    await handle.reject("mv", "never")
    state = await handle.result()
    assert (state.phase, state.reason, state.answer) == ("failed", "TOOL_REJECTED", "Then not.")
    assert {call.status for call in state.tools} == {TOOL_CALL_SKIPPED}
    assert state.tool("mv").approval.action == APPROVAL_REJECT


async def test_an_approval_of_all_is_one_of_those_that_follow(runstream_server: LocalServer) -> None:
    handle = await runstream_server.start(Script(Tool("one", approval=True), Tool("two", approval=True)))
    await handle.approve_all()
    assert (await handle.result()).phase == "completed"


async def test_of_several_that_wait_one_is_named(runstream_server: LocalServer) -> None:
    async def both(invocation: Invocation) -> None:
        async with asyncio.TaskGroup() as group:
            for name in ("left", "right"):
                group.create_task(invocation.report.approval(name, id=name))

    handle = await runstream_server.start(both)
    await handle.until(lambda state: len(state.tools) == 2)
    with pytest.raises(AssertionError, match="name one: left, right"):
        await handle.approve()
    await handle.approve("right")
    await handle.approve()
    assert (await handle.result()).phase == "completed"


async def test_a_question_is_answered(runstream_server: LocalServer) -> None:
    handle = await runstream_server.start(Script(Ask("Name?", str.upper), Ask("Town?", str.lower)))
    await handle.answer("Ada")
    await handle.answer("Paris")
    assert (await handle.result()).texts == ["Name?", "Ada", "ADA", "Town?", "Paris", "paris"]


async def test_an_execution_is_cancelled(runstream_server: LocalServer) -> None:
    handle = await runstream_server.start(Script("Working.", Hang()))
    await handle.until_said("Working.")
    await handle.cancel("enough")
    state = await handle.result()
    assert (state.phase, state.reason) == ("cancelled", "enough")


async def test_an_execution_is_terminated(runstream_server: LocalServer) -> None:
    handle = await runstream_server.start(Script("Working.", Hang()))
    await handle.until_said("Working.")
    await handle.terminate("now")
    state = await handle.result()
    assert (state.phase, state.reason) == ("terminated", "now")


async def test_an_execution_is_paused_and_goes_on(runstream_server: LocalServer) -> None:
    gate = Gate()
    script = Script("One.", Tool("count", result="1"), gate, Tool("count", result="2"), "Two.")
    handle = await runstream_server.start(script)
    await handle.until(lambda state: bool(state.tools))
    await handle.pause("lunch")
    gate.open()
    paused = await handle.until("paused")
    assert len(paused.tools) == 1
    await handle.resume()
    state = await handle.result()
    assert (state.phase, state.attempt, state.texts) == ("completed", 2, ["One.", "Two."])
    assert [(call.result, call.attempt) for call in state.tools] == [("1", 1), ("2", 2)]


async def test_a_failed_execution_is_recovered_and_looked_at_anew(runstream_server: LocalServer) -> None:
    async def second_time_lucky(invocation: Invocation) -> str:
        if invocation.attempt == 1:
            raise AgentFailure("NOT_YET", "Not yet.")
        return "Now."

    handle = await runstream_server.start(second_time_lucky)
    assert (await handle.result()).reason == "NOT_YET"
    await handle.recover()
    state = await handle.result()
    assert (state.phase, state.attempt, state.answer) == ("completed", 2, "Now.")


async def test_what_does_not_come_says_what_did(runstream_server: LocalServer) -> None:
    script = Script("Let me see.", Tool("search", error="offline"), Hang())
    handle = await runstream_server.start(script)
    await handle.until(lambda state: any(call.error for call in state.tools))
    with pytest.raises(NotReached) as caught:
        await handle.until("waiting_for_input", within=0.05)
    told = str(caught.value)
    assert told.startswith(f"waited 0.05 s for waiting_for_input: execution {handle.id} is in_progress (attempt 1, ")
    assert "ai said 'Let me see.'" in told
    assert "tool search (step-2) is failed: ToolError: offline" in told


async def test_what_cannot_come_any_more_fails_at_once(runstream_server: LocalServer) -> None:
    handle = await runstream_server.start(Script(Fail("BROKE", "It broke.")))
    with pytest.raises(NotReached, match=r"(?s)waiting_for_approval, which will not come any more.*It broke\."):
        await handle.until("waiting_for_approval", within=60)
    other = await runstream_server.start(Script(Raise(ValueError("no"))))
    with pytest.raises(NotReached, match=r"(?s)an approval of 'rm'.*ValueError: no"):
        await other.approve("rm")


async def test_a_phase_that_is_none_is_refused(runstream_server: LocalServer) -> None:
    handle = await runstream_server.start(Script())
    with pytest.raises(ValueError, match="waiting_for_input, not 'waiting'"):
        await handle.until("waiting")  # type: ignore[arg-type]  # what is refused
    assert (await handle.until("completed")).phase == "completed"


async def test_a_call_that_was_not_made_is_asked_for_in_vain(runstream_server: LocalServer) -> None:
    state = await runstream_server.run(Script("Nothing."))
    with pytest.raises(AssertionError, match=r"(?s)no call of 'rm'.*said 'Nothing\.'"):
        state.tool("rm")
    assert state.status.phase != EXECUTION_PAUSED
