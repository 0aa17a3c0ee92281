"""Garbage: a run that ends well leaves none, and a runner's process looks through no more than it must."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING
from weakref import ref

import pytest

from runstream.runner import ReportClosed
from runstream.runner.garbage import sparing_the_collector
from tests.runner.served import SECONDS, serving_agents

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runstream.runner import Invocation, Reporter


@pytest.fixture
def nothing_is_collected() -> Iterator[None]:
    """What is garbage stays, for the length of a test."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("nothing_is_collected")
async def test_a_run_that_is_over_goes_without_being_collected(tmp_path: Path) -> None:
    gone = asyncio.Event()
    watched = []

    async def agent(invocation: Invocation) -> str:
        watched.append(ref(invocation.report, lambda _: gone.set()))
        await invocation.report.text("at work")
        return "done"

    async with serving_agents(tmp_path / "data", agent) as served, asyncio.timeout(SECONDS):
        await served.result()
        await gone.wait()


async def test_a_reporter_that_outlives_its_run_takes_nothing(tmp_path: Path) -> None:
    """Nor does it let a tool begin."""
    kept: list[Reporter] = []

    async def agent(invocation: Invocation) -> str:
        kept.append(invocation.report)
        return "done"

    async with serving_agents(tmp_path / "data", agent) as served:
        await served.result()
        await served.runner.stop()
        with pytest.raises(ReportClosed):
            await kept[0].text("more")
        with pytest.raises(ReportClosed):
            async with kept[0].tool("search"):
                raise AssertionError("the tool has begun")


def test_what_is_loaded_is_left_out_until_the_block_ends() -> None:
    before = gc.get_threshold()
    with sparing_the_collector():
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold() > before
    assert (gc.get_freeze_count(), gc.get_threshold()) == (0, before)


def test_what_the_program_has_decided_about_its_garbage_stays() -> None:
    before = gc.get_threshold()
    gc.disable()
    gc.set_threshold(0)
    try:
        with sparing_the_collector():
            assert (gc.get_freeze_count(), gc.get_threshold()[0], gc.isenabled()) == (0, 0, False)
        assert (gc.get_threshold()[0], gc.isenabled()) == (0, False)
    finally:
        gc.set_threshold(*before)
        gc.enable()
