"""A plain function goes through the scenario: what it leaves is what those of the frameworks are compared with."""

from __future__ import annotations

from tests.adapters import scenario


async def test_a_plain_function_leaves_what_the_scenario_says() -> None:
    assert await scenario.whole(scenario.plain) == scenario.WHOLE


async def test_a_plain_function_is_cancelled_inside_a_tool() -> None:
    assert await scenario.cancelled(scenario.plain_hang) == scenario.CANCELLED


async def test_a_plain_function_meets_its_deadline_inside_a_tool() -> None:
    assert await scenario.overdue(scenario.plain_hang) == scenario.OVERDUE


async def test_a_plain_function_fails_by_a_tool() -> None:
    assert await scenario.crashed(scenario.plain_crash) == scenario.CRASHED
