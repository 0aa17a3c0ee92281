"""Disks that are full, refuse, or give back a torn log: nothing acknowledged is lost, and all goes on afterwards."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from tests.faults.faulty_server import FaultyServer
from tests.faults.full_disk import FullDisk
from tests.faults.small_disk import small_disk
from tests.faults.torn_tails import TornTails
from tests.process import ROUNDS, server_process

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("kind", ["full", "refusing"])
@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_a_disk_that_takes_no_more_loses_nothing_and_all_goes_on_when_it_does(
    tmp_path: Path, kind: str, seed: int
) -> None:
    """Writers are told UNAVAILABLE, readers read on; also when the server dies meanwhile and finds the disk full."""
    seeded = random.Random(f"{kind} {seed}")
    with small_disk(tmp_path / "disk") if kind == "full" else nullcontext() as disk:
        # Where nothing can be mounted, both kinds refuse in the same way.
        server = FaultyServer(tmp_path / "disk" / "data", place=tmp_path, drain_timeout=1)
        try:
            full = FullDisk(server, disk, seeded, Counter())
            await full.prepare()
            await full.fill_and_free()
            await full.kill_while_full()
            await full.conclude()
        finally:
            await server.stop()


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_a_torn_log_loses_only_what_nobody_was_told_and_a_cut_one_only_its_end(tmp_path: Path, seed: int) -> None:
    """Behind the last acknowledgement nothing matters; before it, what is left is all up to some commit."""
    async with server_process(tmp_path / "data", start=False) as server:
        torn = TornTails(server, random.Random(seed), Counter())
        for _ in range(3):
            await torn.tear_what_nobody_was_told()
        await torn.cut_what_somebody_was_told()


async def test_a_server_does_not_start_on_a_log_with_a_damaged_commit_in_its_middle(tmp_path: Path) -> None:
    """It says what is damaged, where, and what can be done; it does not serve what is left as if that were all."""
    async with server_process(tmp_path / "data", start=False) as server:
        torn = TornTails(server, random.Random(0), Counter())
        log = await torn.damage_a_commit()
        with pytest.raises(RuntimeError, match=rf"{log.name} is damaged at byte \d+, and commits follow behind it"):
            await server.start()
