"""The local server: runs agents of every kind, as a user's test does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import structlog

from runstream.runner import Agent
from runstream.testing import ManualClock, NotReached, Script, local_server
from runstream.v1.agent_execution_pb2 import AgentExecution
from runstream.v1.agent_execution_service_pb2 import ListAgentExecutionsRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from runstream.runner import Invocation
    from runstream.testing import LocalServer


async def yields(invocation: Invocation) -> AsyncIterator[str]:
    yield f"Hello, {invocation.message}."


async def returns(invocation: Invocation) -> str:
    return f"Hello, {invocation.message}."


def plain(invocation: Invocation) -> str:
    return f"Hello, {invocation.message}."


def plain_yields(invocation: Invocation) -> Iterator[str]:
    yield f"Hello, {invocation.message}."


@pytest.mark.parametrize("agent", [yields, returns, plain, plain_yields, Agent(returns, description="greets")])
async def test_an_agent_of_any_kind_runs_to_its_end(runstream_server: LocalServer, agent: object) -> None:
    state = await runstream_server.run(agent, "Ada")  # type: ignore[arg-type]  # one of several types
    assert (state.phase, state.answer, state.attempt) == ("completed", "Hello, Ada.", 1)


async def test_an_agent_that_fails_fails_its_execution_and_not_the_test(runstream_server: LocalServer) -> None:
    async def broken(_: Invocation) -> None:
        raise ValueError("no such town")

    state = await runstream_server.run(broken)
    assert (state.phase, state.reason, state.error) == ("failed", "AGENT_ERROR", "ValueError: no such town")
    assert state.expect("failed") is state
    with pytest.raises(AssertionError, match=r"(?s)expected completed: .* is failed .*no such town"):
        state.expect()


async def test_a_function_is_one_agent_however_often_it_runs(runstream_server: LocalServer) -> None:
    states = [await runstream_server.run(returns, name) for name in ("Ada", "Bob")]
    assert len({state.execution.spec.agent_id for state in states}) == 1


async def test_functions_of_one_name_are_agents_of_their_own(runstream_server: LocalServer) -> None:
    states = [await runstream_server.run(Script(text)) for text in ("one", "two", "three")]
    assert [state.answer for state in states] == ["one", "two", "three"]
    assert len({state.execution.spec.agent_id for state in states}) == 3


async def test_an_agent_is_called_as_the_test_says(runstream_server: LocalServer) -> None:
    first = await runstream_server.run(returns, "Ada", name="Greeter")
    again = await runstream_server.run("greeter", "Bob")
    assert again.answer == "Hello, Bob."
    assert first.execution.spec.agent_id == again.execution.spec.agent_id
    with pytest.raises(ValueError, match="'greeter'"):
        await runstream_server.run(yields, name="greeter")


async def test_one_runner_serves_several_agents_by_name(runstream_server: LocalServer) -> None:
    await runstream_server.serve({"one": Script("1"), "two": Script("2")})
    assert [(await runstream_server.run(name)).answer for name in ("two", "one")] == ["2", "1"]


async def test_an_agent_gets_its_variables(runstream_server: LocalServer) -> None:
    async def tell(invocation: Invocation) -> str:
        return ", ".join(f"{name}={value}" for name, value in sorted(invocation.env.items()))

    state = await runstream_server.run(tell, env={"TOWN": "Paris"}, secrets={"KEY": "abc"})
    assert state.answer == "KEY=abc, TOWN=Paris"
    assert state.execution.spec.runtime_env["KEY"].value == ""


async def test_a_session_goes_on(runstream_server: LocalServer) -> None:
    async def remember(invocation: Invocation) -> str:
        return " | ".join(message.content for message in invocation.history) or "nothing"

    first = await runstream_server.run(remember, "one")
    second = await runstream_server.run(remember, "two", session=first.session_id)
    assert first.answer == "nothing"
    assert second.session_id == first.session_id
    assert "nothing" in second.answer


async def test_a_whole_execution_can_be_given(runstream_server: LocalServer) -> None:
    request = AgentExecution()
    request.spec.message = "Ada"
    request.spec.context.language = "fr"
    request.metadata.labels["team"] = "red"
    state = await runstream_server.run(returns, request, max_duration=60)
    assert state.answer == "Hello, Ada."
    assert state.execution.spec.context.language == "fr"
    assert state.execution.spec.context.max_duration.seconds == 60
    assert request.spec.agent_id == ""
    page = await runstream_server.client.queries.List(ListAgentExecutionsRequest(labels={"team": "red"}))
    assert [each.metadata.id for each in page.entries] == [state.id]


async def test_a_server_starts_again_on_a_folder_that_is_kept(tmp_path: Path) -> None:
    async with local_server(data=tmp_path) as server:
        before = await server.run(returns, "Ada")
    async with local_server(data=tmp_path) as server:
        assert (await server.handle(before.id).result()).execution == before.execution


async def test_the_environment_sets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNSTREAM_LISTEN", "0.0.0.0:1")
    monkeypatch.setenv("RUNSTREAM_CANCEL_GRACE", "5")
    async with local_server(max_depth=3) as server:
        assert server.address.startswith("127.0.0.1:")
        assert (server.settings.cancel_grace, server.settings.max_depth) == (30, 3)


async def test_the_server_is_quiet_unless_logging_is_configured() -> None:
    configured = structlog.get_config()
    structlog.reset_defaults()
    try:
        async with local_server():
            assert structlog.is_configured()
            async with local_server():
                pass
            assert structlog.is_configured()
        assert not structlog.is_configured()
    finally:
        structlog.configure(**configured)


async def test_only_a_manual_clock_can_be_moved(runstream_server: LocalServer) -> None:
    with pytest.raises(TypeError, match=r"clock=ManualClock\(\)"):
        await runstream_server.advance(1)


async def test_what_nobody_serves_says_so_in_time(runstream_server: LocalServer) -> None:
    runner = await runstream_server.serve({"idle": Script("never")})
    await runner.stop()
    with pytest.raises(NotReached, match=r"(?s)waited 0\.05 s for its end: .* is pending \(.*no runner"):
        await runstream_server.run("idle", within=0.05)


async def test_a_setting_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="max_deepness"):
        async with local_server(max_deepness=3):
            pass


async def test_two_servers_know_nothing_of_each_other(runstream_server: LocalServer) -> None:
    async with local_server(clock=ManualClock()) as other:
        await other.run(returns, "Ada")
        assert not (await runstream_server.client.queries.List(ListAgentExecutionsRequest())).entries


async def test_an_agent_that_is_run_many_times_at_once_is_served_once() -> None:
    async def agent(invocation: Invocation) -> str:
        return invocation.message

    async with local_server() as server:
        states = await asyncio.gather(*(server.run(agent, str(number)) for number in range(10)))
        runners = {state.execution.spec.agent_id for state in states}
    assert sorted(state.answer for state in states) == sorted(map(str, range(10)))
    assert len(runners) == 1
