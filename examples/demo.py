"""The demonstration: a server, two runners, and what becomes of three executions when things happen to them.

    make demo                               the agents look at this repository
    python examples/demo.py [FOLDER]        they look at another folder

One runner is killed in the middle of its work, and the other one finishes it. A person approves what an agent wants to
do, and cancels another. Every step is a command that is shown before it is run, so that it can be done again by hand.
Ends with 0 when everything went as it should, with 1 when anything failed, and with 128 and the signal's number when it
was interrupted; in every case it stops what it started and removes its temporary folder.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, it does not see its own package

from examples.changes import changes_in, in_short
from examples.stage import (
    REPOSITORY,
    RUNSTREAM,
    FailedError,
    InterruptedDemoError,
    Interruption,
    Process,
    Stage,
    say,
    show,
    step,
)
from examples.survey_folder import shown

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

AGENTS = "examples.survey_agent:agents"

SECONDS_OF_LEASE = 3
SECONDS_TO_START = 60
SECONDS_TO_NOTICE = 30
SECONDS_FOR_AN_EXECUTION = 120
"""At the pace of a person, or faster; slower, it is as much longer."""

SECONDS_TO_LOOK = 0.8
"""How long a person sees a thing before something is done about it."""

PACE_OF_WHAT_IS_CANCELLED = 1.6
PACE_IN_A_HURRY = 5.0
"""It must not end before it is cancelled; cancelled soon, it costs no time to be slow."""

CANCELLED = 4
"""What `runstream watch` ends with when the execution was cancelled."""


class Demo:
    """One run of the demonstration."""

    def __init__(self, stage: Stage, folder: Path, *, pace: float) -> None:
        self._stage = stage
        self._folder = folder
        self._pace = pace
        self._runners: list[Process] = []
        self._watchers: list[Process] = []

    def run(self) -> None:
        """Do all steps. Raises `FailedError` and `InterruptedDemoError`."""
        step(1, "Start a server on an empty LevelDB")
        server = self._start_server()
        step(2, "Start two runners: processes that serve agents")
        self._start_runners()
        step(3, "Run an agent, watch it live, and kill its runner in the middle")
        execution_id, killed_at = self._survive_a_kill()
        step(4, "Look for what is missing, or there twice")
        recovery = self._check_log(execution_id, killed_at)
        step(5, "Run an agent that asks before it writes a file, and approve it")
        self._approve()
        step(6, "Run an agent, and cancel it in the middle")
        self._cancel()
        step(7, "Stop what still runs (SIGTERM), and remove the folder")
        self._end(server, recovery)

    def _start_server(self) -> Process:
        options = ["--listen", "127.0.0.1:0", "--data", str(self._stage.home / "data")]
        command = (*RUNSTREAM, "serve", *options, "--lease-duration", str(SECONDS_OF_LEASE))
        show(command, ending=" &")
        server = self._stage.start("server", command)
        listening = re.compile(r"listening on (\S+)\n")
        self._stage.wait_until(lambda: bool(listening.search(server.said)), "the server listens", SECONDS_TO_START)
        (address,) = listening.findall(server.said)
        self._stage.environment["RUNSTREAM_SERVER"] = address
        say(f"$ export RUNSTREAM_SERVER={address}", "")
        say(f"A runner that is silent for {SECONDS_OF_LEASE} seconds has lost its work; 15, unless told otherwise.")
        return server

    def _start_runners(self) -> None:
        command = (*RUNSTREAM, "runner", "--import", AGENTS)
        for name in ("runner-1", "runner-2"):
            show(command, ending=" &")
            self._runners.append(self._stage.start(name, command))
        self._stage.wait_until(
            lambda: all("attached as " in runner.said for runner in self._runners),
            "the runners attach",
            SECONDS_TO_START,
        )
        say("", f"Both are attached: {' and '.join(called(runner) for runner in self._runners)}.")

    def _survive_a_kill(self) -> tuple[str, datetime]:
        """Return the execution's id, and when its runner was killed."""
        pace = max(self._pace, 1)  # faster, there is no middle
        execution_id = self._create("survey", f"Survey the folder {shown(self._folder.name)}", pace)
        runner = self._holder(execution_id)
        say("", f"{runner.name} works on it. From another terminal, in the middle of its work:", "")
        say(f"$ kill -9 {runner.pid}")

        def kill() -> datetime:
            self._stage.pause(self._pace * SECONDS_TO_LOOK)
            runner.kill()
            return datetime.now(UTC)

        # Its own log tells it first: the execution must not end before the watchers are there to tell.
        half_way = f"{execution_id} is half way"
        killed_at = self._watch(execution_id, lambda _: half_way in runner.said, kill)
        say("", f"{called(runner)} was killed, and {called(self._holder(execution_id, attempt=2))} did it.")
        return execution_id, killed_at

    def _check_log(self, execution_id: str, killed_at: datetime) -> float:
        """See that every change is there once, and was seen live; return how many seconds the recovery took."""
        changes = changes_in(self._runstream("watch", execution_id, "--changes"))
        say("", *in_short(changes), "")
        if [change.revision for change in changes] != list(range(1, len(changes) + 1)):
            raise FailedError("revisions are missing, or there twice")
        if changes != changes_in(self._watchers[0].said):
            raise FailedError("the log is not what a watcher saw live")
        begun = next((change.time for change in changes if change.attempt > 1), None)
        if begun is None:
            raise FailedError("there was no second attempt")
        recovery = (begun - killed_at).total_seconds()
        say(f"Changes 1 to {len(changes)}: none is missing, none is there twice, and a watcher saw the same ones live.")
        say(f"The other runner was at work {recovery:.1f} seconds after the kill.")
        return recovery

    def _approve(self) -> None:
        report = self._stage.home / "survey.txt"
        execution_id = self._create("scribe", "Count the lines, and write them down", self._pace, REPORT=str(report))
        approve = ("approve", execution_id, "--comment", "go ahead")
        say("", "From another terminal, when it asks:", "")
        show((*RUNSTREAM, *approve))
        self._watch(execution_id, lambda watcher: "=write_file:WAITING" in watcher.said, lambda: self._answer(*approve))
        written = report.read_text(encoding="utf-8").splitlines()
        say("", f"$ tail -n 1 {report}", *written[-1:])

    def _cancel(self) -> None:
        pace = self._pace * PACE_OF_WHAT_IS_CANCELLED if self._pace >= 1 else PACE_IN_A_HURRY
        execution_id = self._create("survey", "Survey it once more", pace)
        cancel = ("cancel", execution_id, "--reason", "we know it by now")
        say("", "From another terminal, in the middle of its work:", "")
        show((*RUNSTREAM, *cancel))
        began = "message[begin"
        self._watch(
            execution_id, lambda watcher: began in watcher.said, lambda: self._answer(*cancel), ends_with=CANCELLED
        )

    def _end(self, server: Process, recovery: float) -> None:
        for process in (*(runner for runner in self._runners if runner.needed), server):
            say(f"$ kill {process.pid}   # {process.name}")
            process.end()
            if process.exit_code != 0:
                raise FailedError(f"{process.name} ended with {process.exit_code}")
        commits = sum(len(changes_in(watcher.said)) for watcher in self._watchers)
        say(
            "",
            "executions  3: one COMPLETED by its second runner, one COMPLETED as approved, one CANCELLED",
            f"recovery    {recovery:.1f} s after kill -9: the lease had to end, then a second or so of backoff",
            f"commits     {commits}, each on disk before it was answered or shown; none missing, none twice",
            f"on disk     {size_of(self._stage.home / 'data'):,} bytes",
        )

    def _create(self, agent: str, message: str, pace: float, **variables: str) -> str:
        """Create an execution, and return its id."""
        variables = {"FOLDER": address_of(self._folder), **variables}
        if pace != 1:
            variables["PACE"] = f"{pace:g}"
        options = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
        execution_id = self._runstream("run", agent, message, *options, "--detach").strip()
        say(execution_id)
        return execution_id

    def _holder(self, execution_id: str, attempt: int = 1) -> Process:
        """Return the runner that works on an execution, once there is one: its agent writes to the log."""
        line = f"{execution_id} begins, attempt {attempt}\n"

        def holders() -> list[Process]:
            return [runner for runner in self._runners if line in runner.said]

        self._stage.wait_until(lambda: bool(holders()), "a runner begins the work", SECONDS_TO_NOTICE)
        return holders()[0]

    def _watch(
        self, execution_id: str, come: Callable[[Process], bool], act: Callable[[], T], *, ends_with: int = 0
    ) -> T:
        """Let the terminal show an execution to its end, and act when the moment has come; return what that did.

        `come` is given a second watcher, which writes every change to its log.
        """
        stage, seconds = self._stage, SECONDS_FOR_AN_EXECUTION * max(self._pace, 1)
        command = (*RUNSTREAM, "watch", execution_id)
        say("", "Meanwhile, in this one:", "")
        show(command)
        say("")
        watch = stage.start("watch", command, logged=False, needed=False)
        try:
            number = len(self._watchers) + 1
            quiet = stage.start(f"watcher-{number}", (*command, "--changes"), needed=False)
            self._watchers.append(quiet)
            stage.wait_until(lambda: come(quiet) or quiet.exit_code is not None, "the work goes on", seconds)
            acted = act() if come(quiet) else None
            stage.wait_until(lambda: None not in {watch.exit_code, quiet.exit_code}, "the work ends", seconds)
        finally:
            watch.detach()
        if acted is None:
            raise FailedError(
                f"the work ended early; {shown(str(self._folder))} must be a folder with text files in it"
            )
        if watch.exit_code != ends_with:
            raise FailedError(f"the watch of {execution_id} ended with {watch.exit_code}, not with {ends_with}")
        return acted

    def _answer(self, *arguments: str) -> str:
        """Run a command of the command line quietly, as somebody elsewhere does who has looked for a moment."""
        self._stage.pause(self._pace * SECONDS_TO_LOOK)
        return self._stage.run(*arguments)

    def _runstream(self, *arguments: str) -> str:
        """Show a command of the command line, run it, and return what it prints. Raises `FailedError`."""
        show((*RUNSTREAM, *arguments))
        return self._stage.run(*arguments)


def called(runner: Process) -> str:
    """Return what a runner is called, and its process."""
    return f"{runner.name} (process {runner.pid})"


def address_of(folder: Path) -> str:
    """Return a folder as a variable can hold it: its path, or a URL when it is not UTF-8."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        return folder.as_uri()
    return str(folder)


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> int:
    """Run the demonstration as its command line says."""
    parser = argparse.ArgumentParser(description="Show Runstream at work: agents, runners, and what happens to them.")
    parser.add_argument("folder", nargs="?", type=Path, default=REPOSITORY, help="the folder; this repository if none")
    parser.add_argument("--pace", type=float, default=1.0, help="how slow to be: 1 is for people, 0 for tests")
    given = parser.parse_args()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal may not know every letter
    interruption = Interruption()
    with tempfile.TemporaryDirectory(prefix="runstream-demo-") as home:
        stage = Stage(Path(home), interruption)
        exit_code = demonstrate(stage, Demo(stage, Path(os.path.realpath(given.folder)), pace=given.pace))
    if exit_code == 0:
        say_goodbye()
    return exit_code


def demonstrate(stage: Stage, demo: Demo) -> int:
    """Run a demonstration and stop what it started; return the exit code."""
    try:
        demo.run()
    except InterruptedDemoError as error:
        print(f"\n{error}; stopping", file=sys.stderr)
        return error.exit_code
    except (FailedError, OSError, subprocess.SubprocessError) as error:
        print(f"\nThe demonstration failed: {error}", *stage.logs(), sep="\n", file=sys.stderr)
        return 1
    finally:
        stage.stop()
    return 0


def say_goodbye() -> None:
    """Say where to go on."""
    print("\nNothing is left of it, neither a process nor a file. Where to go on:")
    say(
        "README.md                  an agent of your own, in a dozen lines",
        "docs/runners.md            the SDK, from nothing",
        "docs/guarantees.md         what holds when what fails",
        "examples/survey_agent.py   the agents that you saw",
        "runstream --help           everything the command line can do",
    )


if __name__ == "__main__":
    sys.exit(main())
