"""The soak counts what it does, ends with 1 at the first violation, and says how to repeat it."""

from __future__ import annotations

import json
import shutil
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults import soak
from tests.faults.rounds import draw_round

if TYPE_CHECKING:
    import pytest

    from tests.faults.rounds import Round

ROOT = Path(__file__).parents[2]


async def test_a_soak_without_violations_ends_with_0_and_its_counts(tmp_path: Path) -> None:
    """All of it is in the table, and in JSON."""
    counts = tmp_path / "counts.json"
    seed = next(seed for seed in range(1_000) if _first_kind(seed) == "siege_round")
    process = await create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.soak", "--minutes", "0.02"),
        *("--seed", str(seed), "--json", str(counts)),
        cwd=ROOT,
        stdout=PIPE,
    )
    table = (await process.communicate())[0].decode()
    assert process.returncode == 0, table
    told = json.loads(counts.read_text(encoding="utf-8"))
    assert (told["seed"], told["rounds"], told["violations"], told["kept"]) == (seed, 1, 0, "")
    assert told["kills_reconnects_resumes"] == told["counts"]["server kills"] > 0
    assert "server kills" in table


async def test_a_violation_ends_the_soak_and_tells_how_to_repeat_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No round follows, the data folder is kept, and the command names the seed and the round."""

    async def violate(this: Round) -> None:
        (this.place / "evidence").touch()
        raise AssertionError("a change is lost")

    monkeypatch.setattr(soak, "draw_round", lambda _: violate)
    run = soak.Soak(seed=7, minutes=60, first_round=3, engine="native")
    await run.run()
    run.print_table()
    table = capsys.readouterr().out
    assert "a change is lost" in table
    assert "make soak SEED=7 ROUND=3 MINUTES=1 ENGINE=native" in table
    assert run.plain()["violations"] == 1
    assert (Path(run.kept) / "evidence").exists()
    shutil.rmtree(run.kept)


def _first_kind(seed: int) -> str:
    return draw_round(soak.random_of(seed, 0)).__name__
