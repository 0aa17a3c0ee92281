"""Every command, with the server killed in the middle: whole or not at all, and once when it is repeated."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.faults.barrage import Barrage
from tests.faults.commands import COMMANDS
from tests.process import ROUNDS, server_process
from tests.raw import every_method

if TYPE_CHECKING:
    from pathlib import Path

KILLS = 4


def test_every_command_of_the_api_is_there() -> None:
    """A new command does not go untested."""
    asked = {
        f"{method.containing_service.name.removesuffix('CommandController')}.{method.name}"
        for method in every_method()
        if method.containing_service.name.endswith("CommandController")
    }
    assert {name.split(" ")[0] for name in COMMANDS} == asked


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_a_kill_at_any_point_of_any_command_leaves_all_of_it_or_nothing(tmp_path: Path, seed: int) -> None:
    """What was acknowledged is there; the rest is repeated, and then everything has been done exactly once."""
    tally: Counter[str] = Counter()
    async with server_process(tmp_path / "data", cancel_grace=3600) as server:
        barrage = Barrage(server, random.Random(seed), tally)
        await barrage.learn()
        for _ in range(KILLS):
            await barrage.fire()
    assert tally["commands acknowledged"] + tally["commands in doubt and repeated"] == KILLS * len(COMMANDS)
    assert tally["commands in doubt and repeated"] > 0
