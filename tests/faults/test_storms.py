"""Whatever is done to a system at work: nothing acknowledged is lost, nothing is told twice, and all work ends."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.faults.kit import FAULTS, conclude, strike
from tests.faults.system import system
from tests.process import ROUNDS

if TYPE_CHECKING:
    from pathlib import Path

#: The faults are divided among so many storms.
PARTS = 3
EXECUTIONS = 14


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_a_system_at_work_survives_every_fault(tmp_path: Path, seed: int, part: int) -> None:
    """Dense logs, one writer at a time, every step once, one end each; the doctor finds nothing."""
    faults = [fault for fault, _ in FAULTS]
    random.Random(f"order {seed}").shuffle(faults)
    async with system(tmp_path / "data", random.Random(f"{seed} {part}")) as struck:
        struck.storm.submit(EXECUTIONS, seconds=4)
        for fault in faults[part::PARTS]:
            await strike(struck, fault)
        await conclude(struck)
