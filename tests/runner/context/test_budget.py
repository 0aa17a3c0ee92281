"""Budgets: spent by whoever spends, and by everybody above."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.runner import Agent, Invocation
from runstream.runner.context import Budget, BudgetExceeded
from runstream.runner.context.budget import Ledger
from runstream.testing import local_server
from runstream.v1.agent_execution_pb2 import TOOL_CALL_FAILED, AgentExecution

limit = st.none() | st.integers(min_value=0, max_value=20)


@given(
    own=st.tuples(limit, limit, limit),
    spending=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), max_size=30),
)
def test_what_is_reserved_never_exceeds_any_budget_above(
    own: tuple[int | None, ...], spending: list[tuple[int, int]]
) -> None:
    ledgers: list[Ledger] = []
    for tokens in own:
        ledgers.append(Ledger(Budget(tokens=tokens), ledgers[-1] if ledgers else None))
    below = [0, 0, 0]
    for place, amount in spending:
        fits = all(own[n] is None or below[n] + amount <= (own[n] or 0) for n in range(place + 1))
        if fits:
            ledgers[place].reserve("tokens", amount)
            below = [spent + amount if n <= place else spent for n, spent in enumerate(below)]
        else:
            with pytest.raises(BudgetExceeded) as caught:
                ledgers[place].reserve("tokens", amount)
            assert caught.value.field == "tokens"
        assert [ledger.spent()["tokens"] for ledger in ledgers] == below
    left = [None if most is None else most - spent for most, spent in zip(own, below, strict=True)]
    for place, ledger in enumerate(ledgers):
        assert ledger.left().tokens == min((each for each in left[: place + 1] if each is not None), default=None)


def test_what_was_spent_already_counts_even_when_it_was_too_much() -> None:
    above = Ledger(Budget(tokens=10))
    with pytest.raises(BudgetExceeded, match="10 tokens"):
        Ledger(Budget(), above).charge({"tokens": 11})
    assert (above.spent()["tokens"], above.left().tokens) == (11, 0)


def limited(message: str = "go", **budget: int) -> AgentExecution:
    """Return an execution to be created, with a budget."""
    request = AgentExecution()
    request.spec.message = message
    for name, amount in budget.items():
        setattr(request.spec.context.budget, name, amount)
    return request


async def test_a_tool_too_many_is_reported_as_failed_and_does_not_run() -> None:
    ran: list[int] = []

    async def agent(invocation: Invocation) -> None:
        for number in range(3):
            async with invocation.report.tool("count"):
                ran.append(number)

    async with local_server() as server:
        state = await server.run(agent, limited(tool_calls=2))
    assert ran == [0, 1]
    assert (state.phase, state.reason) == ("failed", "BUDGET_EXCEEDED")
    last = state.execution.status.tool_calls[-1]
    assert (last.status, last.reason) == (TOOL_CALL_FAILED, "BUDGET_EXCEEDED")


async def test_usage_counts_by_call_of_a_model_and_new_totals_count_once() -> None:
    left: list[Budget] = []

    async def agent(invocation: Invocation) -> None:
        for tokens in (5, 8):
            await invocation.report.usage("m", input_tokens=tokens, id="call-1")
        left.append(invocation.context.left())
        await invocation.context.child().report.usage("m", output_tokens=2, cost_micros=7)
        left.append(invocation.context.left())
        await invocation.report.usage("m", output_tokens=1)

    async with local_server() as server:
        state = await server.run(agent, limited(tokens=10, model_calls=5, cost_micros=100))
    assert left == [
        Budget(tokens=2, model_calls=4, cost_micros=100),
        Budget(tokens=0, model_calls=3, cost_micros=93),
    ]
    assert (state.phase, state.reason) == ("failed", "BUDGET_EXCEEDED")
    assert sum(usage.output_tokens for usage in state.execution.status.usage) == 3, "what was spent is told"


async def test_what_earlier_attempts_have_spent_is_spent() -> None:
    left: list[int | None] = []

    async def agent(invocation: Invocation) -> None:
        left.append(invocation.context.left().tokens)
        await invocation.report.usage("m", input_tokens=30)
        await invocation.report.needs_input("Go on?", id=f"ask-{invocation.attempt}")

    async with local_server() as server:
        handle = await server.start(Agent(agent, max_attempts=5), limited(tokens=100))
        await handle.until("waiting_for_input")
        await server.lose_runners()
        await handle.answer("yes")
        await handle.until_attempt(2)
        await handle.until("waiting_for_input")
        await handle.answer("yes")
        await handle.result()
    assert left == [100, 70]
