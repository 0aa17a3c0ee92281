"""Delegation: sub-executions that agents make through the service, and sub-agents within their own process."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from runstream.runner import Agent, AgentFailure, DeadlineExceeded, DelegationFailed, Invocation, ToolNotAllowed
from runstream.runner.context import (
    Budget,
    BudgetExceeded,
    NoContext,
    Thoroughness,
    build_context,
    current_context,
)
from runstream.testing import Gate, Hang, Script, local_server
from runstream.v1.agent_execution_pb2 import (
    SUB_AGENT_COMPLETED,
    SUB_AGENT_FAILED,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_FAILED,
    AgentExecution,
)
from runstream.v1.resource_pb2 import ResourceId

if TYPE_CHECKING:
    from runstream.runner.context import ExecutionContext


async def helper(invocation: Invocation) -> str:
    """Answer with what it was asked."""
    await invocation.report.usage("m", input_tokens=2, output_tokens=3)
    return f"about {invocation.message}"


async def test_a_delegated_execution_is_one_of_its_own_and_its_answer_comes_back() -> None:
    contexts: list[ExecutionContext] = []

    async def below(invocation: Invocation) -> str:
        contexts.append(invocation.context)
        return await helper(invocation)

    async def boss(invocation: Invocation) -> str:
        contexts.append(invocation.context)
        one, other = await asyncio.gather(
            invocation.context.delegate("below", "bees", thoroughness=Thoroughness.QUICK, max_duration=30),
            invocation.context.delegate("below", "ants", thoroughness=Thoroughness.UNCAPPED, allowed_tools=["a", "b"]),
        )
        assert one.execution.metadata.id == one.execution_id
        assert invocation.context.ledger.spent()["tokens"] == 10
        return f"{one}, {other}"

    async with local_server() as server:
        await server.serve({"boss": boss, "below": below})
        request = AgentExecution()
        request.spec.message = "go"
        asked = request.spec.context
        asked.user_id, asked.correlation_id, asked.language = "ada", "order-7", "de"
        asked.allowed_tools.extend(["b", "c"])
        asked.budget.depth, asked.budget.tokens = 1, 100
        state = await server.run("boss", request)
    assert state.expect().answer == "about bees, about ants"
    top, *children = contexts
    assert {child.parent_execution for child in children} == {top.execution}
    assert {child.parent_call for child in children} == {call.id for call in state.tools}
    for child in children:
        same = ("org", "user", "correlation_id", "root_execution", "language")
        assert [getattr(child, name) for name in same] == [getattr(top, name) for name in same]
        assert child.execution not in ("", top.execution)
        assert child.stateless, "it has no session of its own unless it is given one"
        assert child.budget.depth == 0
    by_message = {child.thoroughness: child for child in children}
    assert by_message[Thoroughness.QUICK].deadline is not None
    assert by_message[Thoroughness.MEDIUM].allowed_tools == frozenset({"b"}), "no more than the parent"
    entries = state.execution.status.sub_agent_executions
    assert [entry.status for entry in entries] == [SUB_AGENT_COMPLETED] * 2
    assert {entry.execution_id for entry in entries} == {child.execution for child in children}
    assert [call.status for call in state.tools] == [TOOL_CALL_COMPLETED] * 2


async def test_one_runner_of_one_place_can_wait_for_what_it_has_delegated_to_itself() -> None:
    async def chain(invocation: Invocation) -> str:
        depth = int(invocation.message)
        if not depth:
            return "."
        return f"{depth}{await invocation.context.delegate('chain', str(depth - 1))}"

    async with local_server() as server:
        await server.serve({"chain": chain}, capacity=1)
        state = await server.run("chain", "4")
    assert state.expect().answer == "4321."


async def test_what_fails_below_is_raised_with_its_reason_and_can_be_caught() -> None:
    async def failing(invocation: Invocation) -> None:
        raise AgentFailure("NO_ACCESS", f"not {invocation.message}")

    async def boss(invocation: Invocation) -> str:
        with pytest.raises(DelegationFailed) as caught:
            await invocation.context.delegate("failing", "here")
        error = caught.value
        return f"{error.phase} {error.cause_reason} {error.cause_error}"

    async with local_server() as server:
        await server.serve({"boss": boss, "failing": failing})
        state = await server.run("boss")
    assert state.expect().answer == "failed NO_ACCESS not here"
    assert state.execution.status.sub_agent_executions[0].status == SUB_AGENT_FAILED
    assert (state.tools[0].status, state.tools[0].reason) == (TOOL_CALL_FAILED, "DELEGATION_FAILED")


async def test_an_agent_that_there_is_not_is_told() -> None:
    async def boss(invocation: Invocation) -> None:
        await invocation.context.delegate("nobody", "hello")

    async with local_server() as server:
        state = await server.run(boss)
    assert state.phase == "failed"
    assert "nobody" in state.error


async def test_no_agent_below_one_that_may_have_none() -> None:
    async def boss(invocation: Invocation) -> None:
        with pytest.raises(BudgetExceeded, match="no agents below"):
            await invocation.context.sub_agent(helper, "x")
        await invocation.context.delegate("boss", "again")

    async with local_server() as server:
        request = AgentExecution()
        request.spec.context.budget.depth = 0
        state = await server.run(boss, request)
    assert (state.phase, state.reason) == ("failed", "BUDGET_EXCEEDED")
    assert not state.execution.status.sub_agent_executions


async def test_what_waits_for_a_sibling_that_failed_cancels_its_own_execution() -> None:
    begun = Gate()

    async def boss(invocation: Invocation) -> None:
        async def fail() -> None:
            await begun.passed()
            raise AgentFailure("ENOUGH")

        async with asyncio.TaskGroup() as group:
            group.create_task(invocation.context.delegate("slow", "x"))
            group.create_task(fail())

    async def slow(_: Invocation) -> None:
        begun.open()
        await asyncio.Event().wait()

    async with local_server() as server:
        await server.serve({"boss": boss, "slow": slow})
        state = await server.run("boss")
        child = state.execution.status.sub_agent_executions[0].execution_id
        assert state.reason == "ENOUGH"
        assert (await server.handle(child).result()).phase == "cancelled"


async def test_a_cancel_of_the_parent_reaches_what_it_has_delegated() -> None:
    async def boss(invocation: Invocation) -> None:
        await invocation.context.delegate("slow", "x")

    async with local_server() as server:
        await server.serve({"boss": boss, "slow": Script(Hang())})
        handle = await server.start("boss")
        state = await handle.until(lambda state: bool(state.execution.status.sub_agent_executions))
        child = server.handle(state.execution.status.sub_agent_executions[0].execution_id)
        await child.until("in_progress")
        await handle.cancel("enough")
        assert (await handle.result()).phase == "cancelled"
        assert (await child.result()).phase == "cancelled"


async def test_an_attempt_that_resumes_goes_on_with_the_executions_made_before() -> None:
    gate = Gate()
    told: list[str] = []

    async def boss(invocation: Invocation) -> str:
        both = await asyncio.gather(
            invocation.context.delegate("below", "bees"), invocation.context.delegate("below", "bees")
        )
        told.extend(each.execution_id for each in both)
        return " ".join(each.answer for each in both)

    async def below(invocation: Invocation) -> str:
        await gate.passed()
        return f"answer of attempt {invocation.attempt}"

    async with local_server() as server:
        boss_agent = Agent(boss, resume_attempts=True, max_attempts=3)
        await server.serve({"boss": boss_agent})
        await server.serve({"below": Agent(below, max_attempts=3)})
        handle = await server.start("boss")
        await handle.until(lambda state: len(state.execution.status.sub_agent_executions) == 2)
        await server.lose_runners()
        await handle.until_attempt(2)
        gate.open()
        state = (await handle.result()).expect()
    entries = state.execution.status.sub_agent_executions
    assert len(entries) == 2, "none was made twice"
    assert set(told) == {entry.execution_id for entry in entries}
    assert len(set(told)) == 2, "and the two of the same message are two"


async def test_an_attempt_that_begins_afresh_makes_its_own_and_the_earlier_one_is_cancelled() -> None:
    gate = Gate()

    async def boss(invocation: Invocation) -> str:
        return str(await invocation.context.delegate("below", "bees"))

    async with local_server() as server:
        await server.serve({"boss": Agent(boss, max_attempts=3), "below": Script(gate, "found")})
        handle = await server.start("boss")
        await handle.until(lambda state: len(state.execution.status.sub_agent_executions) == 1)
        await server.lose_runners()
        await handle.until(lambda state: len(state.execution.status.sub_agent_executions) == 2)
        gate.open()
        state = (await handle.result()).expect()
        first, second = state.execution.status.sub_agent_executions
        assert (await server.handle(first.execution_id).result()).phase == "cancelled"
        assert (await server.handle(second.execution_id).result()).phase == "completed"
    assert state.answer == "found"


async def test_a_pause_does_not_wait_for_what_was_delegated_and_resuming_finds_it_again() -> None:
    gate = Gate()

    async def boss(invocation: Invocation) -> str:
        found = await invocation.context.delegate("below", "bees", id="research")
        return f"{found.answer} {invocation.resumed}"

    async with local_server() as server:
        await server.serve({"boss": boss, "below": Script(gate, "found")})
        handle = await server.start("boss")
        state = await handle.until(lambda state: bool(state.execution.status.sub_agent_executions))
        child = server.handle(state.execution.status.sub_agent_executions[0].execution_id)
        await child.until("in_progress")
        await handle.pause()
        await handle.until("paused")
        assert (await child.state()).phase == "in_progress"
        gate.open()
        await child.result()
        await handle.resume()
        state = (await handle.result()).expect()
    assert state.answer == "found True"
    assert len(state.execution.status.sub_agent_executions) == 1


async def test_secrets_go_to_a_delegated_execution_by_name_only_and_are_secret_there() -> None:
    seen: dict[str, str] = {}

    async def below(invocation: Invocation) -> None:
        seen.update(invocation.env)

    async def boss(invocation: Invocation) -> str:
        found = await invocation.context.delegate("below", "x", env={"MODE": "fast"}, secrets=["TOKEN"])
        return f"{found.execution.spec.runtime_env['TOKEN'].value!r}"

    async with local_server() as server:
        await server.serve({"boss": boss, "below": below})
        state = await server.run("boss", secrets={"TOKEN": "hush-hush", "OTHER": "not this"})
    assert seen == {"MODE": "fast", "TOKEN": "hush-hush"}
    assert state.expect().answer == "''"


async def test_a_child_that_spends_more_than_is_left_here_is_cancelled() -> None:
    async def boss(invocation: Invocation) -> None:
        await asyncio.gather(*(invocation.context.delegate("greedy", str(number)) for number in range(3)))

    async def greedy(invocation: Invocation) -> None:
        await invocation.report.usage("m", input_tokens=8)
        await asyncio.Event().wait()

    async with local_server() as server:
        await server.serve({"boss": boss, "greedy": greedy})
        request = AgentExecution()
        request.spec.context.budget.tokens = 20
        state = await server.run("boss", request)
        assert (state.phase, state.reason) == ("failed", "BUDGET_EXCEEDED")
        for entry in state.execution.status.sub_agent_executions:  # one may have found out by itself
            assert (await server.handle(entry.execution_id).result()).phase in ("cancelled", "failed")


async def test_a_sub_agent_in_the_process_has_its_own_context_owner_and_answer() -> None:
    contexts: list[ExecutionContext] = []

    async def streams(invocation: Invocation):  # type: ignore[no-untyped-def]  # noqa: ANN202  # an async generator
        contexts.append(invocation.context)
        assert current_context() is invocation.context
        yield "wor"
        async with invocation.report.tool("look", id="look"):
            pass
        yield "ds "
        yield "end"

    def blocks(invocation: Invocation) -> str:
        contexts.append(current_context())
        invocation.wait(invocation.report.text("thinking"))
        return f"blocked on {invocation.message}"

    async def boss(invocation: Invocation) -> str:
        context = invocation.context
        async with context.report.tool("task", id="task-1"):
            one = await context.sub_agent(streams, "x", call_id="task-1", budget=Budget(tool_calls=1))
        return f"{one}|{await context.sub_agent(Agent(blocks), 'y', name='blocker')}"

    async with local_server() as server:
        state = await server.run(boss)
    assert state.expect().answer == "ds end|blocked on y"
    first, second = state.execution.status.sub_agent_executions
    assert (first.name, first.input, first.output, first.call_id) == ("streams", "x", "ds end", "task-1")
    assert (second.name, second.output) == ("blocker", "blocked on y")
    look = state.tool("look")
    assert look.owner_id == first.id
    assert {message.owner_id for message in state.execution.status.messages} == {first.id, second.id, ""}
    assert [context.parent_call for context in contexts] == ["task-1", None]
    assert {context.execution for context in contexts} == {state.id}


async def test_a_sub_agent_ends_at_its_own_deadline_and_the_agent_may_go_on() -> None:
    async def hangs(_: Invocation) -> None:
        await asyncio.Event().wait()

    async def boss(invocation: Invocation) -> str:
        try:
            await invocation.context.sub_agent(hangs, max_duration=0.01)
        except AgentFailure as error:
            return error.reason
        return "it ended"

    async with local_server() as server:
        state = await server.run(boss)
    assert state.expect().answer == "DEADLINE_EXCEEDED"
    assert state.execution.status.sub_agent_executions[0].status == SUB_AGENT_FAILED


async def test_without_a_server_nothing_is_delegated() -> None:
    with pytest.raises(AgentFailure, match="no server"):
        await build_context(org="acme").delegate("helper", "x")


async def test_the_same_question_with_other_variables_is_another_one_whatever_the_order() -> None:
    gate = Gate()

    async def boss(invocation: Invocation) -> str:
        people = ["ada", "bob"] if invocation.attempt == 1 else ["bob", "ada"]
        asked = (invocation.context.delegate("below", "summarise", env={"USER": each}) for each in people)
        found = await asyncio.gather(*asked)
        return " ".join(f"{each}:{answer}" for each, answer in sorted(zip(people, map(str, found), strict=True)))

    async def below(invocation: Invocation) -> str:
        await gate.passed()
        return invocation.env["USER"]

    async with local_server() as server:
        await server.serve({"boss": Agent(boss, resume_attempts=True, max_attempts=3)})
        await server.serve({"below": Agent(below, max_attempts=3)})
        handle = await server.start("boss")
        await handle.until(lambda state: len(state.execution.status.sub_agent_executions) == 2)
        await server.lose_runners()
        await handle.until_attempt(2)
        gate.open()
        state = (await handle.result()).expect()
    assert state.answer == "ada:ada bob:bob"
    assert len(state.execution.status.sub_agent_executions) == 2


async def test_an_execution_that_somebody_else_has_planted_is_not_taken_for_the_result() -> None:
    gate = Gate()

    async def boss(invocation: Invocation) -> str:
        await gate.passed()
        return str(await invocation.context.delegate("below", "check this", id="check"))

    async def evil(_: Invocation) -> str:
        return "evil"

    async with local_server() as server:
        await server.serve({"boss": Agent(boss, resume_attempts=True, max_attempts=3), "below": helper, "evil": evil})
        handle = await server.start("boss")
        await handle.until("in_progress")
        planted = AgentExecution()
        planted.spec.message = "check this"
        planted.spec.context.parent_execution_id, planted.spec.context.parent_call_id = handle.id, "check"
        await (await server.start("evil", planted)).result()
        await server.lose_runners()
        await handle.until_attempt(2)
        gate.open()
        state = (await handle.result()).expect()
    assert state.answer == "about check this"


async def test_what_was_delegated_while_it_is_still_being_made_is_cancelled_too() -> None:
    async def boss(invocation: Invocation) -> str:
        for number in range(12):
            with suppress(TimeoutError):
                async with asyncio.timeout(0.001 * number):
                    await invocation.context.delegate("slow", str(number))
        return "done"

    async with local_server() as server:
        await server.serve({"boss": boss, "slow": Script(Hang())})
        state = (await server.run("boss")).expect()
        for entry in state.execution.status.sub_agent_executions:
            assert (await server.handle(entry.execution_id).result()).phase == "cancelled"


async def test_what_others_have_spent_is_spent_for_the_next_attempt_too_and_whoever_they_had_work() -> None:
    left: list[int | None] = []

    async def leaf(invocation: Invocation) -> None:
        await invocation.report.usage("m", input_tokens=30)

    async def middle(invocation: Invocation) -> str:
        await invocation.report.usage("m", input_tokens=10)
        await invocation.context.delegate("leaf", "x")
        return "done"

    async def boss(invocation: Invocation) -> None:
        left.append(invocation.context.left().tokens)
        if invocation.attempt == 1:
            await invocation.context.delegate("middle", "x")
            left.append(invocation.context.left().tokens)
            await invocation.report.text(f"{left[-1]} left")
            await asyncio.Event().wait()

    async with local_server() as server:
        await server.serve({"boss": Agent(boss, max_attempts=3), "middle": middle, "leaf": leaf})
        request = AgentExecution()
        request.spec.context.budget.tokens = 100
        handle = await server.start("boss", request)
        await handle.until_said("60 left")
        await server.lose_runners()
        (await handle.result()).expect()
    assert left == [100, 60, 60]


async def test_a_child_that_was_refused_a_tool_and_went_on_costs_only_what_ran() -> None:
    async def below(invocation: Invocation) -> str:
        for _ in range(3):
            async with invocation.report.tool("count"):
                pass
        with suppress(BudgetExceeded):
            async with invocation.report.tool("count"):
                pass
        return "did three"

    async def boss(invocation: Invocation) -> str:
        return str(await invocation.context.delegate("below", "x"))

    async with local_server() as server:
        await server.serve({"boss": boss, "below": below})
        request = AgentExecution()
        request.spec.context.budget.tool_calls = 4
        state = await server.run("boss", request)
    assert state.expect().answer == "did three"


async def test_asking_again_under_the_same_id_asks_again() -> None:
    asked: list[str] = []

    async def below(invocation: Invocation) -> str:
        asked.append(invocation.message)
        if len(asked) < 3:
            raise AgentFailure("NOT_YET")
        return "now"

    async def boss(invocation: Invocation) -> str:
        for message in ("same", "same", "other"):
            with suppress(DelegationFailed):
                return str(await invocation.context.delegate("below", message, id="try"))
        return "never"

    async with local_server() as server:
        await server.serve({"boss": boss, "below": below})
        state = await server.run("boss")
    assert state.expect().answer == "now"
    assert asked == ["same", "same", "other"]
    assert [call.id for call in state.tools] == ["try", "try-2", "try-3"]


async def test_an_execution_that_is_deleted_is_told_as_such() -> None:
    async def boss(invocation: Invocation) -> str:
        try:
            await invocation.context.delegate("slow", "x")
        except DelegationFailed as failed:
            return failed.phase
        return "it ended"

    async with local_server() as server:
        await server.serve({"boss": boss, "slow": Script(Hang())})
        handle = await server.start("boss")
        state = await handle.until(lambda state: bool(state.execution.status.sub_agent_executions))
        child = state.execution.status.sub_agent_executions[0].execution_id
        await server.client.executions.Delete(ResourceId(value=child))
        assert (await handle.result()).expect().answer == "deleted"


async def test_a_mistaken_agent_is_told_at_once() -> None:
    context = build_context()
    with pytest.raises(TypeError, match="use sub_agent"):
        await context.delegate(helper, "x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="use delegate"):
        await context.sub_agent("helper", "x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at most 200"):
        await context.delegate("helper", "x", id="i" * 300)


async def test_a_tool_that_the_context_does_not_allow_does_not_begin_however_it_is_used() -> None:
    async def below(invocation: Invocation) -> None:
        async with invocation.report.tool("search"):
            pass
        async with invocation.report.tool("deploy"):
            pytest.fail("it began")

    async def boss(invocation: Invocation) -> str:
        with pytest.raises(ToolNotAllowed):
            await invocation.context.sub_agent(below, "x", allowed_tools=["search"])
        return str(await invocation.context.child(allowed_tools=[]).delegate("helper", "x"))

    async with local_server() as server:
        await server.serve({"boss": boss, "helper": helper})
        state = await server.run("boss")
    assert state.expect().answer == "about x"
    deploy = state.tool("deploy")
    assert (deploy.status, deploy.reason) == (TOOL_CALL_FAILED, "TOOL_NOT_ALLOWED")


async def test_a_plain_sub_agent_that_is_out_of_time_reports_no_more() -> None:
    go_on, ended = threading.Event(), asyncio.Event()
    refused: list[BaseException] = []

    async def boss(invocation: Invocation) -> str:
        loop = asyncio.get_running_loop()

        def blocks(within: Invocation) -> None:
            go_on.wait()
            try:
                within.wait(within.report.text("too late"))
            except asyncio.CancelledError as error:
                refused.append(error)
            loop.call_soon_threadsafe(ended.set)

        with pytest.raises(DeadlineExceeded):
            await invocation.context.sub_agent(blocks, max_duration=0.5)
        go_on.set()
        await ended.wait()
        return "done"

    async with local_server() as server:
        state = await server.run(boss)
    assert state.expect().texts == ["done"]
    assert len(refused) == 1


async def test_a_task_that_goes_on_after_its_run_has_no_context_any_more() -> None:
    go_on: list[asyncio.Event] = []
    left: list[asyncio.Task[object]] = []

    async def agent(_: Invocation) -> None:
        go_on.append(asyncio.Event())

        async def work() -> object:
            await go_on[0].wait()
            return current_context()

        left.append(asyncio.create_task(work()))

    async with local_server() as server:
        (await server.run(agent)).expect()
    go_on[0].set()
    with pytest.raises(NoContext):
        await left[0]
