from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

REPOSITORY = Path(__file__).resolve().parents[2]
DEMO = REPOSITORY / "examples" / "demo.py"


class DemoRun:
    """Runs the demonstration with a temporary folder of its own, and looks for what it left."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir()
        # A person's own server is not touched, whatever their environment says of it.
        theirs = {"RUNSTREAM_SERVER": "127.0.0.1:1", "RUNSTREAM_DATA": str(home / "theirs"), "RUNSTREAM_LISTEN": "no"}
        self._environment = {**os.environ, **theirs, "TMPDIR": str(home)}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start it; what it says is in one stream."""
        return subprocess.Popen(
            [sys.executable, str(DEMO), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment,
            cwd=self.home.parent,
        )

    def to_its_end(self, *arguments: str) -> tuple[int, str]:
        """Run it; return its exit code and what it says."""
        with self.start(*arguments) as process:
            said, _ = process.communicate()
        return process.returncode, said

    def leftovers(self) -> Sequence[object]:
        """Return the files and processes that it left."""
        return [*self.home.iterdir(), *self._processes()]

    def _processes(self) -> Sequence[int]:
        marker = f"TMPDIR={self.home}\0".encode()
        found = []
        for environment in Path("/proc").glob("[0-9]*/environ"):
            try:
                if marker in environment.read_bytes():
                    found.append(int(environment.parent.name))
            except OSError:
                continue
        return found


@pytest.fixture
def demo(tmp_path: Path) -> DemoRun:
    return DemoRun(tmp_path / "home")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    (folder / "shop").mkdir(parents=True)
    (folder / "README.md").write_text("# Shop\n\nSells things.\n")
    (folder / "shop" / "app.py").write_text('"""Opens the shop."""\n\nimport yaml\n\n\ndef sell():\n    ...\n')
    return folder


def test_it_surveys_a_folder_and_leaves_nothing(demo: DemoRun, folder: Path) -> None:
    code, said = demo.to_its_end("small", "--pace", "0")
    assert code == 0, said
    for expected in (
        f'message: "Survey the folder {folder}"',
        "$ runstream watch aex_",
        "✓ list_files",
        "✓ read_file path=README.md (reader)",
        "reader: README.md: Sells things. [3 lines, 1 heading (Shop)]",
        "[x] Say what was found",
        "agent: small holds 2 text files with 10 lines, 70% Python, 30% Markdown.",
        "From outside they need yaml (1).",
        "phase       COMPLETED",
        "1 sub-agent, 5 todos",
    ):
        assert expected in said
    assert demo.leftovers() == []


def test_it_fails_when_the_folder_is_missing_and_leaves_nothing(demo: DemoRun) -> None:
    code, said = demo.to_its_end("nowhere", "--pace", "0")
    assert code == 1
    for expected in ("✗ list_files", "FAILED", "NO_FOLDER", "nowhere cannot be listed: No such file or directory"):
        assert expected in said
    assert "the end of server.log" in said
    assert demo.leftovers() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_at_work_it_stops_what_it_started_and_leaves_nothing(
    demo: DemoRun, folder: Path, number: signal.Signals
) -> None:
    with demo.start(str(folder), "--pace", "100") as process:
        assert process.stdout is not None
        before = next(line for line in process.stdout if "phase IN_PROGRESS" in line)
        process.send_signal(number)
        after = process.stdout.read()
    assert process.returncode == 128 + number
    assert before
    assert "AGENT_STOPPED" in after
    assert f"interrupted by {number.name}" in after
    assert demo.leftovers() == []
