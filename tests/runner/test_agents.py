"""A function of any kind is an agent, and its end is the execution's."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from runstream.runner import Agent, AgentFailure, ReportClosed, ToolRejected
from runstream.runner.context import SecretsGone
from runstream.runner.decisions import Decision
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    TOOL_CALL_COMPLETED,
)
from runstream.v1.resource_pb2 import ResourceReference
from tests.making import execution
from tests.runner.served import said, serving_agents, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from runstream.runner import AgentFunction, Invocation


async def generator(invocation: Invocation) -> AsyncIterator[str]:
    """An agent that yields."""
    yield f"{invocation.message} "
    yield "done"


async def coroutine(invocation: Invocation) -> str:
    """An agent that returns its answer."""
    return f"{invocation.message} done"


def plain(invocation: Invocation) -> str:
    """An agent that runs in a thread."""
    assert threading.current_thread() is not threading.main_thread()
    return f"{invocation.message} done"


def plain_generator(invocation: Invocation) -> Iterator[str]:
    """An agent that yields in a thread."""
    assert threading.current_thread() is not threading.main_thread()
    yield f"{invocation.message} "
    yield "done"


class Callable:
    """An agent that is an object."""

    async def __call__(self, invocation: Invocation) -> str:
        """Return the answer."""
        return f"{invocation.message} done"


def curried(word: str, invocation: Invocation) -> str:
    """An agent with an argument of its own."""
    return f"{invocation.message} {word}"


KINDS: dict[str, AgentFunction | Agent] = {
    "generator": generator,
    "coroutine": coroutine,
    "plain": plain,
    "plain-generator": plain_generator,
    "callable": Callable(),
    "partial": functools.partial(curried, "done"),
    "lambda": lambda invocation: coroutine(invocation),  # noqa: PLW0108  # a function that returns a coroutine
    "agent": Agent(coroutine),
}


async def test_a_function_of_any_kind_is_an_agent(tmp_path: Path) -> None:
    async with serving_agents(tmp_path / "data", KINDS) as served:
        for name in KINDS:
            state = await served.result("are you", agent=name)
            assert (state.status.phase, said(state)) == (EXECUTION_COMPLETED, ["are you done"]), name


async def test_what_an_agent_returns_is_a_message_of_its_own(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> str:
        await invocation.report.text("thinking aloud")
        return "the answer"

    async with serving_agents(tmp_path / "data", agent) as served:
        assert said(await served.result()) == ["thinking aloud", "the answer"]


async def test_an_agent_without_an_answer_says_nothing(tmp_path: Path) -> None:
    async def agent(invocation: Invocation) -> None:
        assert invocation.message == "look around"

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    assert (state.status.phase, said(state)) == (EXECUTION_COMPLETED, [])


async def test_the_answer_must_be_text(tmp_path: Path) -> None:
    async def agent(_: Invocation) -> int:
        return 42

    async with serving_agents(tmp_path / "data", agent) as served:  # type: ignore[arg-type]  # it returns what no agent does
        state = await served.result()
    assert state.status.phase == EXECUTION_FAILED
    assert "a str, or None, not int" in state.status.error


async def test_a_plain_function_reports_through_wait(tmp_path: Path) -> None:
    def agent(invocation: Invocation) -> str:
        async def use() -> object:
            async with invocation.report.tool("look") as call:
                call.result = "seen"
            return call.result

        invocation.wait(invocation.report.text("looking"))
        return f"I have {invocation.wait(use())}"

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    assert said(state) == ["looking", "I have seen"]
    assert state.status.tool_calls[0].status == TOOL_CALL_COMPLETED


async def test_wait_is_refused_on_the_loop_itself(tmp_path: Path) -> None:
    """Where it would wait for itself."""

    async def agent(invocation: Invocation) -> None:
        invocation.wait(invocation.report.text("never"))

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    assert "wait is for plain functions" in state.status.error


async def test_an_exception_fails_the_execution_and_its_traceback_stays_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def agent(_: Invocation) -> None:
        raise LookupError("nothing " * 10_000)

    async with serving_agents(tmp_path / "data", agent) as served:
        with caplog.at_level(logging.ERROR, "runstream.runner"):
            state = await served.result()
    assert (state.status.phase, state.status.reason) == (EXECUTION_FAILED, "AGENT_ERROR")
    assert state.status.error.startswith("LookupError: nothing nothing")
    assert len(state.status.error) < 5_000
    assert "Traceback" not in state.status.error
    assert "Traceback" in caplog.text


async def test_an_exception_that_breaks_when_it_is_looked_at_fails_the_execution_too(tmp_path: Path) -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    async def agent(_: Invocation) -> None:
        raise Broken

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    assert (state.status.phase, state.status.error) == (EXECUTION_FAILED, "Broken")


async def test_an_agent_fails_with_a_reason_of_its_own(tmp_path: Path) -> None:
    async def agent(_: Invocation) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())

    async def fail() -> None:
        raise AgentFailure("NO_CREDIT", "There is no credit left.")

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    assert (state.status.phase, state.status.reason) == (EXECUTION_FAILED, "NO_CREDIT")
    assert state.status.error == "There is no credit left."


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_an_agent_that_exits_ends_itself_alone(tmp_path: Path, kind: str, raised: type[BaseException]) -> None:
    async def exits(_: Invocation) -> None:
        raise raised(3)

    def exits_in_its_thread(_: Invocation) -> None:
        raise raised(3)

    agents = {"tested": exits if kind == "async" else exits_in_its_thread, "other": coroutine}
    async with serving_agents(tmp_path / "data", agents) as served:
        state = await served.result()
        assert (state.status.phase, state.status.reason) == (EXECUTION_FAILED, "AGENT_ERROR")
        assert (await served.result(agent="other")).status.phase == EXECUTION_COMPLETED


async def test_a_failure_keeps_what_was_reported_before_it(tmp_path: Path) -> None:
    async def agent(_: Invocation) -> AsyncIterator[str]:
        yield "half of "
        yield "it"
        raise ValueError("no more")

    async with serving_agents(tmp_path / "data", agent) as served:
        state = await served.result()
    assert (said(state), state.status.error) == (["half of it"], "ValueError: no more")


async def test_what_a_plain_function_does_after_it_was_stopped_does_not_count(tmp_path: Path) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    seen: list[BaseException] = []

    def agent(invocation: Invocation) -> str:
        invocation.wait(invocation.report.text("before"))
        begun.set()
        go_on.wait()
        try:
            invocation.wait(invocation.report.text("after"))
        except BaseException as error:  # noqa: BLE001  # whatever it is
            seen.append(error)
        ended.set()
        return "too late"

    async with serving_agents(tmp_path / "data", agent) as served:
        execution_id = await served.create()
        await asyncio.to_thread(begun.wait)
        state = await served.cancel(execution_id, "enough")
        assert (state.status.phase, state.status.reason, said(state)) == (EXECUTION_CANCELLED, "enough", ["before"])
        go_on.set()
        await asyncio.to_thread(ended.wait)
        assert said(await served.ended(execution_id)) == ["before"]
    assert isinstance(seen[0], asyncio.CancelledError)


async def test_a_plain_function_that_waits_is_told_when_it_is_stopped(tmp_path: Path) -> None:
    told = threading.Event()

    def agent(invocation: Invocation) -> None:
        try:
            invocation.wait(invocation.report.needs_input("what now?"))
        finally:
            told.set()

    async with serving_agents(tmp_path / "data", agent) as served:
        execution_id = await served.create()
        await until(served.client, execution_id, lambda state: bool(state.status.messages))
        assert (await served.cancel(execution_id)).status.phase == EXECUTION_CANCELLED
        await asyncio.to_thread(told.wait)


async def test_nothing_is_reported_after_the_end(tmp_path: Path) -> None:
    kept: list[Invocation] = []

    async def agent(invocation: Invocation) -> str:
        kept.append(invocation)
        return "the end"

    async with serving_agents(tmp_path / "data", agent) as served:
        await served.result()
        with pytest.raises(ReportClosed):
            await kept[0].report.text("one more thing")


async def test_an_invocation_has_all_that_the_server_assigned(tmp_path: Path) -> None:
    seen: list[Invocation] = []

    async def agent(invocation: Invocation) -> str:
        seen.append(invocation)
        return f"answer {len(seen)}"

    described = Agent(agent, instructions="Be kind.", runtime={"model": "m"}, max_duration=timedelta(hours=1))
    async with serving_agents(tmp_path / "data", described) as served:
        first = await served.result("first")
        made = await served.client.executions.Create(execution(session_id=first.spec.session_id, message="second"))
        await served.ended(made.metadata.id)
    invocation = seen[1]
    assert invocation.message == "second"
    assert invocation.execution.metadata.id == made.metadata.id
    assert (invocation.attempt, invocation.resumed) == (1, False)
    assert invocation.agent.spec.instructions == "Be kind."
    assert invocation.agent.spec.runtime["model"] == "m"
    assert invocation.session.metadata.id == first.spec.session_id
    assert invocation.instance.spec.agent_id == invocation.agent.metadata.id
    assert [message.content for message in invocation.history] == ["first", "answer 1"]
    remaining = invocation.remaining()
    assert remaining is not None
    assert 0 < remaining <= 3600


async def test_secrets_reach_the_agent_and_nobody_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Invocation] = []
    told: list[str] = []

    async def agent(invocation: Invocation) -> None:
        seen.append(invocation)
        told.append(f"{invocation.env!r} {invocation.context.secret('TOKEN')}")
        try:
            async with invocation.report.tool("call"):
                refuse(invocation.env["TOKEN"])
        except PermissionError as error:
            raise AgentFailure("NO_ACCESS", f"refused: {invocation.env['TOKEN']}") from error

    def refuse(token: str) -> None:
        raise PermissionError(f"{token} is not valid")

    async with serving_agents(tmp_path / "data", agent) as served:
        with caplog.at_level(logging.DEBUG, "runstream.runner.link"):
            state = await served.result(TOKEN="hush-hush")  # noqa: S106  # made up
    (invocation,) = seen
    assert told == ["Environment(TOKEN) hush-hush"]
    assert invocation.env == {}, "the run is over"
    with pytest.raises(SecretsGone, match="TOKEN"):
        invocation.context.secret("TOKEN")
    assert "hush-hush" not in f"{invocation!r} {invocation.execution}"
    assert state.status.error == "refused: ***"
    assert state.status.tool_calls[0].error == "PermissionError: *** is not valid"
    assert "hush-hush" not in str(state)


async def test_agents_are_created_as_they_are_described(tmp_path: Path) -> None:
    described = Agent(
        coroutine,
        instructions="Look.",
        description="Looks.",
        tools=("look",),
        labels={"team": "a"},
        max_duration=90,
        max_attempts=2,
        max_concurrent_executions=3,
        concurrent_in_session=True,
        resume_attempts=True,
    )
    async with serving_agents(tmp_path / "data", {"Look Around": described}) as served:
        found = await served.client.agent_queries.GetByReference(ResourceReference(slug="look-around"))
    assert found.metadata.name == "Look Around"
    assert dict(found.metadata.labels) == {"team": "a"}
    spec = found.spec
    assert (spec.instructions, spec.description, list(spec.tools)) == ("Look.", "Looks.", ["look"])
    assert (spec.max_duration.seconds, spec.max_attempts, spec.max_concurrent_executions) == (90, 2, 3)
    assert spec.concurrent_in_session
    assert spec.resume_attempts


def test_a_declined_tool_is_a_failure_with_its_own_reason() -> None:
    declined = ToolRejected("deploy", Decision("c", "reject", "not today", "ada"))
    assert (declined.reason, declined.message) == (
        "TOOL_REJECTED",
        "The tool 'deploy' was declined (reject): not today",
    )


async def test_executions_run_side_by_side_up_to_the_capacity(tmp_path: Path) -> None:
    together = asyncio.Barrier(4)

    async def agent(_: Invocation) -> None:
        await together.wait()

    async with serving_agents(tmp_path / "data", agent) as served:
        created = [await served.create() for _ in range(4)]
        for execution_id in created:
            assert (await served.ended(execution_id)).status.phase == EXECUTION_COMPLETED
