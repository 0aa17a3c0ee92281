"""The same for tests that are plain functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runstream.runner import Approval
from runstream.testing import Ask, Gate, Hang, ManualClock, NotReached, Script, Tool, local_server_sync
from runstream.v1.agent_execution_service_pb2 import ListAgentExecutionsRequest

if TYPE_CHECKING:
    from runstream.runner import Invocation
    from runstream.testing import SyncServer


def greet(invocation: Invocation) -> str:
    """A plain function is an agent."""
    invocation.wait(invocation.report.text("One moment. "))
    return f"Hello, {invocation.message}."


def test_a_plain_test_runs_a_plain_agent(runstream_server_sync: SyncServer) -> None:
    state = runstream_server_sync.run(greet, "Ada")
    assert (state.phase, state.texts) == ("completed", ["One moment. ", "Hello, Ada."])


def test_a_person_is_played_from_the_thread_of_the_test(runstream_server_sync: SyncServer) -> None:
    gate = Gate()
    script = Script(
        Ask("Name?", str.upper),
        Tool("rm", approval=True),
        Tool("mv", approval=True, declined="Not moved."),
        Tool("cp", approval=True, declined="Not copied."),
        gate,
        Tool("ls", approval=True),
    )
    handle = runstream_server_sync.start(script)
    handle.answer("Ada")
    handle.approve("rm", "fine")
    handle.skip("mv")
    handle.reject("cp")
    handle.until_said("Not copied.")
    handle.pause()
    gate.open()
    assert handle.until("paused").answer == "Not copied."
    handle.resume()
    handle.approve_all()
    state = handle.result()
    assert (state.phase, handle.until_attempt(2).attempt) == ("completed", 2)
    assert [change.revision for change in handle.changes()] == list(range(1, state.revision + 1))
    assert handle.state().execution == state.execution
    assert handle.id in repr(handle)


def test_executions_are_ended_and_recovered(runstream_server_sync: SyncServer) -> None:
    cancelled = runstream_server_sync.start(Script("Working.", Hang()))
    cancelled.until_said("Working.")
    cancelled.cancel("enough")
    terminated = runstream_server_sync.start(Script("Working.", Hang()))
    terminated.terminate("now")
    assert [cancelled.result().phase, terminated.result().phase] == ["cancelled", "terminated"]

    def second_time_lucky(invocation: Invocation) -> None:
        if invocation.attempt == 1:
            raise ValueError("not yet")

    failed = runstream_server_sync.start(second_time_lucky)
    assert failed.result().phase == "failed"
    failed.recover()
    assert failed.result().phase == "completed"


def test_time_passes_from_the_thread_of_the_test() -> None:
    clock = ManualClock()
    with local_server_sync(clock=clock) as server:
        assert server.clock is clock
        handle = server.start(Script(Tool("pay", approval=Approval(timeout=9_999, default="approve"), declined="No.")))
        handle.until("waiting_for_approval")
        server.lose_runners()
        handle.skip()
        state = handle.result()
        assert (state.answer, state.attempt) == ("No.", 2)
        asked = server.start(Script(Tool("pay", approval=Approval(timeout=60, default="skip"), declined="Late.")))
        asked.until("waiting_for_approval")
        server.advance(60)
        assert asked.result().answer == "Late."


def test_several_agents_are_served(runstream_server_sync: SyncServer) -> None:
    runstream_server_sync.serve({"one": greet, "two": Script("2")})
    state = runstream_server_sync.run("two")
    assert runstream_server_sync.handle(state.id).result().answer == "2"
    assert runstream_server_sync.address.startswith("127.0.0.1:")


def test_a_coroutine_of_the_tests_own_runs_in_the_servers_loop(runstream_server_sync: SyncServer) -> None:
    state = runstream_server_sync.run(greet, "Ada")

    async def newest() -> str:
        page = await runstream_server_sync.server.client.queries.List(ListAgentExecutionsRequest())
        return page.entries[0].metadata.id

    assert runstream_server_sync.call(newest()) == state.id


def test_what_does_not_come_says_what_did(runstream_server_sync: SyncServer) -> None:
    handle = runstream_server_sync.start(Script("Working.", Hang()))
    handle.until_said("Working.")
    with pytest.raises(NotReached, match=r"(?s)waited 0\.05 s for its end.*'Working\.'"):
        handle.result(within=0.05)


def test_an_error_in_the_block_stops_the_server_and_is_raised(runstream_server_sync: SyncServer) -> None:
    def broken() -> None:
        with local_server_sync() as server:
            server.start(Script("Working.", Hang())).until_said("Working.")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert runstream_server_sync.run(greet, "Ada").phase == "completed"


def test_a_setting_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="max_deepness"), local_server_sync(max_deepness=3):
        pass
