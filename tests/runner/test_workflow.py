"""Workflows: steps in sequence, side by side, by condition; failing and cancelling as one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.runner import AgentFailure, Invocation
from runstream.runner.context import Budget, BudgetExceeded, ExecutionContext, build_context, current_context
from runstream.runner.workflow import Step, limited, parallel, sequence, when
from runstream.testing import local_server
from runstream.v1.agent_execution_pb2 import TOOL_CALL_INTERRUPTED


def adding(number: int) -> Step:
    """Return a step that adds a number."""

    async def add(context: ExecutionContext, value: int) -> int:
        assert context is current_context()
        await asyncio.sleep(0)
        return value + number

    return add


async def even(context: ExecutionContext, value: int) -> bool:
    """Tell whether a value is even."""
    _ = context
    return value % 2 == 0


plans: st.SearchStrategy[Any] = st.recursive(
    st.integers(0, 9),
    lambda inner: (
        st.tuples(st.just("sequence"), st.lists(inner, max_size=3))
        | st.tuples(st.just("parallel"), st.lists(inner, min_size=1, max_size=3))
        | st.tuples(st.just("when"), st.tuples(inner, inner))
    ),
    max_leaves=8,
)


def built(plan: Any) -> Step:  # noqa: ANN401  # a tree
    """Return the workflow of a plan."""
    if isinstance(plan, int):
        return adding(plan)
    kind, parts = plan
    steps = [built(part) for part in parts]
    if kind == "parallel":
        return sequence(parallel(*steps), total)
    return sequence(*steps) if kind == "sequence" else when(even, *steps)


async def total(context: ExecutionContext, values: list[int]) -> int:
    """Add what came of steps side by side."""
    _ = context
    return sum(values)


def expected(plan: Any, value: int) -> int:  # noqa: ANN401  # a tree
    """Return what a plan makes of a value."""
    if isinstance(plan, int):
        return value + plan
    kind, parts = plan
    if kind == "parallel":
        return sum(expected(part, value) for part in parts)
    if kind == "when":
        return expected(parts[0] if value % 2 == 0 else parts[1], value)
    for part in parts:
        value = expected(part, value)
    return value


@given(plan=plans, value=st.integers(0, 100))
def test_a_workflow_makes_of_a_value_what_its_steps_make_of_it(plan: Any, value: int) -> None:  # noqa: ANN401
    assert asyncio.run(_run(sequence(built(plan)), value)) == expected(plan, value)


async def _run(step: Step, value: int) -> int:
    result = await step(build_context(), value)
    assert isinstance(result, int)
    return result


async def test_every_step_has_a_context_of_its_own_below_the_workflows() -> None:
    seen: list[ExecutionContext] = []

    async def look(context: ExecutionContext, value: object) -> object:
        seen.append(context)
        return value

    context = build_context(budget=Budget(tokens=10, depth=1), allowed_tools=["a", "b"])
    await parallel(look, limited(look, budget=Budget(tokens=3), allowed_tools=["b", "c"]))(context, None)
    first, second = seen
    assert first is not context
    assert first == context, "no less than the workflow's"
    assert (second.budget, second.allowed_tools) == (Budget(tokens=3, depth=1), frozenset({"b"}))
    second.ledger.charge({"tokens": 3})
    assert (context.left().tokens, first.left().tokens) == (7, 7), "what one spends, nobody else has"
    with pytest.raises(BudgetExceeded):
        second.ledger.charge({"tokens": 1})


async def test_the_first_to_fail_ends_the_others_and_is_raised_as_it_is() -> None:
    ended: list[str] = []
    hanging = asyncio.Event()

    async def hangs(context: ExecutionContext, value: object) -> None:
        _ = context, value
        try:
            hanging.set()
            await asyncio.Event().wait()
        finally:
            ended.append("the other")

    async def fails(context: ExecutionContext, value: object) -> None:
        _ = context, value
        await hanging.wait()
        raise AgentFailure("ENOUGH")

    with pytest.raises(AgentFailure, match="ENOUGH"):
        await sequence(parallel(hangs, parallel(hangs, fails)), hangs)(build_context(), None)
    assert ended == ["the other", "the other"]


async def test_a_cancel_or_a_pause_of_the_execution_ends_every_step() -> None:
    async def uses(context: ExecutionContext, value: str) -> None:
        async with context.report.tool(value):
            await asyncio.Event().wait()

    async def waits(context: ExecutionContext, value: str) -> None:
        async with context.report.tool(value):
            await context.report.needs_input("Well?")

    async def agent(invocation: Invocation) -> None:
        await parallel(uses, waits if invocation.message == "pause" else uses)(invocation.context, "look")

    async with local_server() as server:
        for message, phase in (("cancel", "cancelled"), ("pause", "paused")):
            handle = await server.start(agent, message)
            await handle.until(lambda state: len(state.tools) == 2)
            if message == "cancel":
                await handle.cancel()
            else:
                await handle.until("waiting_for_input")
                await handle.pause()
            state = await handle.until(phase)  # type: ignore[arg-type]
            assert {call.status for call in state.tools} == {TOOL_CALL_INTERRUPTED}


async def test_a_step_that_takes_too_long_is_told_by_its_name() -> None:
    async def dawdle(context: ExecutionContext, value: object) -> None:
        _ = context, value
        await asyncio.Event().wait()

    with pytest.raises(AgentFailure, match="the step 'dawdle'") as caught:
        await limited(dawdle, max_duration=0.01)(build_context(), None)
    assert caught.value.reason == "DEADLINE_EXCEEDED"
