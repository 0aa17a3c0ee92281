from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.population import populate
from runstream.care.doctor import diagnose
from runstream.storage.offline import OfflineFolder

if TYPE_CHECKING:
    from runstream.care.findings import Finding

_ROOT = Path(__file__).parents[2]


def test_a_folder_that_was_made_without_a_server_is_as_sound_as_a_servers(tmp_path: Path) -> None:
    made = populate(tmp_path, 500, seed=1)
    with OfflineFolder.open(made.data, purpose="test") as folder:
        findings: list[Finding] = []
        examined = diagnose(folder, findings.append)
    assert not findings
    assert examined.records["agent_execution"] == 500


def test_a_folder_is_kept_for_the_next_run(tmp_path: Path) -> None:
    assert populate(tmp_path, 200, seed=1) == populate(tmp_path, 200, seed=1)


def test_a_quick_run_tells_each_figure_beside_its_target(tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--only", "create", "--json", told],
        capture_output=True,
        text=True,
        check=False,
        cwd=_ROOT,
    )
    assert run.returncode == 0, run.stderr + run.stdout
    assert "durable Create, 1 in flight, p99" in run.stdout
    report = json.loads(told.read_text())
    figures = {figure["name"]: figure for figure in report["benchmarks"]["create"]["figures"]}
    assert figures["durable Create, 1 in flight, p99"]["target"] == 5
    assert all(figure["reached"] > 0 for figure in figures.values())
    assert report["machine"]["versions"]["grpcio"]
    assert not report["failures"]
