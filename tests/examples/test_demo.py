from __future__ import annotations

import os
import re
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


def one(pattern: str, said: str) -> re.Match[str]:
    """The one place where the demonstration says something."""
    (found,) = re.finditer(pattern, said)
    return found


def test_it_shows_a_kill_an_approval_and_a_cancel_and_leaves_nothing(demo: DemoRun, folder: Path) -> None:
    code, said = demo.to_its_end("small", "--pace", "0")
    assert code == 0, said
    assert_survived_the_kill(said)
    for expected in (
        f"--env FOLDER={folder} ",
        "? write_file path=",
        "approved by anonymous: go ahead",
        "   10 lines in 2 files\n",
        "cancel requested by anonymous: we know it by now",
        "CANCELLED in ",
        "executions  3: one COMPLETED by its second runner, one COMPLETED as approved, one CANCELLED",
        "Nothing is left of it",
    ):
        assert expected in said
    assert demo.leftovers() == []


def assert_survived_the_kill(said: str) -> None:
    """See that one of two runners was killed at work, and that the other one did all of it again, to the end."""
    attached = one(r"Both are attached: runner-1 \(process (\d+)\) and runner-2 \(process (\d+)\)\.", said)
    killed = one(r"\$ kill -9 (\d+)", said)[1]
    (other,) = set(attached.groups()) - {killed}
    told = said.partition("\n4. ")[0]
    before, again, after = told.partition("attempt 2 begins anew; what attempt 1 said and did is dropped")
    assert again, told
    # The first words may be in the state already when the watch begins.
    assert f"in process {killed}: I survey small" in before
    assert f"Attempt 2, in process {other}: I survey small" in after
    assert "COMPLETED in " not in before
    assert "COMPLETED in " in after
    assert "reader: README.md: Sells things. [3 lines, 1 heading (Shop)]" in after
    assert f"(process {killed}) was killed, and " in after
    assert f"(process {other}) did it." in after
    assert re.search(r"Changes 1 to \d+: none is missing, none is there twice, and a watcher saw the same", said)


@pytest.mark.parametrize("missing", [True, False])
def test_it_fails_when_there_is_nothing_to_look_at_and_leaves_nothing(demo: DemoRun, *, missing: bool) -> None:
    if not missing:
        (demo.home.parent / "nothing").mkdir()
    code, said = demo.to_its_end("nothing", "--pace", "0")
    assert code == 1
    told = ("✗ list_files", "NO_FOLDER", "cannot be listed: No such file or directory") if missing else ("COMPLETED",)
    for expected in (*told, "nothing must be a folder with text files in it", "the end of server.log"):
        assert expected in said
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
    assert f"interrupted by {number.name}" in after
    assert demo.leftovers() == []


def test_it_stops_when_nobody_reads_it_any_more(demo: DemoRun, folder: Path) -> None:
    with demo.start(str(folder), "--pace", "0") as process:
        assert process.stdout is not None
        next(line for line in process.stdout if "Both are attached" in line)
        process.stdout.close()
    assert process.returncode != 0
    assert demo.leftovers() == []
