"""The demonstration: a server, an agent at work on a real folder, and the live view of it; then nothing is left of it.

    make demo                               surveys this repository
    python examples/demo.py [FOLDER]        surveys another folder

Every step is a command that it shows before it runs it, so that it can be done again by hand. The server and the agent
(`survey_agent.py`) are processes of their own. Ends with 0 when the execution COMPLETED, with 1 when anything failed,
and with 128 and the signal's number when it was interrupted; in every case it stops what it started and removes its
temporary folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

REPOSITORY = Path(__file__).resolve().parent.parent
RUNSTREAM = (sys.executable, "-m", "runstream.cli.main")
AGENT = (sys.executable, "-m", "examples.survey_agent")

EXECUTION = """\
kind: AgentExecution
spec:
  message: {message}
  context:
    attributes:
      folder: {folder}
"""

SECONDS_TO_START = 60
SECONDS_FOR_A_COMMAND = 60
SECONDS_TO_NOTICE = 30
"""How long the live view may go on after the agent's process has ended."""

SECONDS_TO_SEE_THE_END = 3
"""How long it may do so when the demonstration is interrupted."""

SECONDS_TO_STOP = 15
LOG_LINES_SHOWN = 20


class FailedError(Exception):
    """A step of the demonstration failed."""


class InterruptedDemoError(Exception):
    """The demonstration was told to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class Interruption:
    """Remembers that the demonstration was told to stop, so that it stops between two steps and never within one."""

    def __init__(self) -> None:
        self._number = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._remember)

    def check(self) -> None:
        """Raise `InterruptedDemoError` if it was told to stop."""
        if self._number:
            raise InterruptedDemoError(self._number)

    def _remember(self, number: int, _frame: object) -> None:
        self._number = self._number or number


class Demo:
    """One run of the demonstration, in a temporary folder `home`."""

    def __init__(self, home: Path, interruption: Interruption, *, pace: float) -> None:
        self._home = home
        self._interruption = interruption
        self._pace = pace
        self._processes: list[subprocess.Popen[bytes]] = []
        # What is set for a person's own server is not meant for this one.
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNSTREAM_")}
        self._environment.pop("PYTHONSAFEPATH", None)  # the agent is found from the repository's folder

    def run(self, folder: Path) -> bool:
        """Do all steps; True when the execution COMPLETED. Raises `FailedError` and `InterruptedDemoError`."""
        step(1, "Start a server on an empty LevelDB")
        server = self._start_server()
        step(2, "Register an agent")
        self._runstream("apply", "-f", "examples/survey_agent.yaml")
        step(3, "Create an execution for it")
        execution_id = self._create_execution(folder)
        step(4, "Start the agent's process, and watch it live: whatever you see is on disk already")
        watched = self._watch_agent(server, execution_id)
        step(5, "What is left in the log")
        completed = self._sum_up(execution_id)
        step(6, "Stop the server (SIGTERM) and remove its folder")
        stop(server)
        if server.returncode != 0:
            raise FailedError(f"the server ended with {server.returncode}")
        return watched and completed

    def stop(self) -> None:
        """Stop every process that still runs, the last one first."""
        for process in reversed(self._processes):
            stop(process)

    def logs(self) -> Iterator[str]:
        """Yield the ends of what the server and the agent wrote."""
        for log in sorted(self._home.glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
            if lines:
                yield "\n".join([f"--- the end of {log.name}", *lines])

    def _start_server(self) -> subprocess.Popen[bytes]:
        command = (*RUNSTREAM, "serve", "--listen", "127.0.0.1:0", "--data", str(self._home / "data"))
        show(command)
        server = self._start(command, log="server.log")
        address = self._address_of(server)
        self._environment["RUNSTREAM_SERVER"] = address
        say(f"It listens on {address}. The commands below find it there:", f"$ export RUNSTREAM_SERVER={address}")
        return server

    def _address_of(self, server: subprocess.Popen[bytes]) -> str:
        """Wait until the server says where it listens."""
        deadline = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < deadline:
            self._interruption.check()
            log = (self._home / "server.log").read_text(errors="replace")
            if found := re.search(r"listening on (\S+)\n", log):
                return found.group(1)
            if server.poll() is not None:
                raise FailedError(f"the server ended with {server.returncode} before it listened")
            time.sleep(0.05)
        raise FailedError(f"the server did not listen within {SECONDS_TO_START} seconds")

    def _create_execution(self, folder: Path) -> str:
        document = self._home / "execution.yaml"
        lines = EXECUTION.format(message=quoted(f"Survey the folder {shown(folder)}"), folder=quoted(folder.as_uri()))
        document.write_text(lines, encoding="utf-8")
        say(f"{document.name} says what is to be done:", "", *lines.splitlines(), "")
        return self._runstream("run", "survey", "-f", str(document), "--detach").strip()

    def _watch_agent(self, server: subprocess.Popen[bytes], execution_id: str) -> bool:
        """Let the agent work and the terminal show it, until both have ended; True when all went well."""
        agent_command = [*AGENT, self._environment["RUNSTREAM_SERVER"], execution_id]
        if self._pace != 1:
            agent_command += ["--pace", f"{self._pace:g}"]
        watch_command = (*RUNSTREAM, "watch", execution_id)
        show(agent_command, ending=" &")
        show(watch_command)
        say("")
        watch = self._start(watch_command, log=None)
        agent = self._start(agent_command, log="agent.log")
        try:
            self._wait_for(watch, agent, server)
            self._wait_for(agent, agent, server)
        finally:
            stop(agent)
            stop_watching(watch)
        return watch.returncode == 0 and agent.returncode == 0

    def _wait_for(
        self, awaited: subprocess.Popen[bytes], agent: subprocess.Popen[bytes], server: subprocess.Popen[bytes]
    ) -> None:
        """Wait for a process as long as it can come to an end by itself."""
        deadline = None
        while awaited.poll() is None:
            self._interruption.check()
            if server.poll() is not None:
                raise FailedError(f"the server ended with {server.returncode} in the middle of the work")
            if agent.poll() is not None:
                deadline = deadline or time.monotonic() + SECONDS_TO_NOTICE
                if time.monotonic() > deadline:
                    raise FailedError(f"the agent's process ended with {agent.returncode} and left its work unfinished")
            time.sleep(0.05)
        self._interruption.check()

    def _sum_up(self, execution_id: str) -> bool:
        """Say what the execution came to; True when it COMPLETED."""
        execution = json.loads(self._runstream("get", execution_id, "-o", "json", quiet=True))
        metadata, status = execution["metadata"], execution["status"]
        phase = status["phase"].removeprefix("EXECUTION_")
        say(
            f"execution   {execution_id}",
            f"phase       {phase}",
            f"commits     {metadata['revision']}: each a revision, on disk before it was answered or shown",
            f"holds       {contents(status)}",
            f"on disk     {size_of(self._home / 'data'):,} bytes",
            *([f"error       {status['error']}"] if status.get("error") else []),
        )
        return bool(phase == "COMPLETED")

    def _runstream(self, *arguments: str, quiet: bool = False) -> str:
        """Run a command of the command line and return what it prints. Raises `FailedError`."""
        self._interruption.check()
        command = (*RUNSTREAM, *arguments)
        show(command)
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS_FOR_A_COMMAND,
            check=False,
        )
        self._interruption.check()
        if done.returncode != 0:
            raise FailedError(f"{printable(command)} ended with {done.returncode}: {done.stderr.strip()}")
        if not quiet:
            say(*done.stdout.splitlines())
        return done.stdout

    def _start(self, command: Sequence[str], *, log: str | None) -> subprocess.Popen[bytes]:
        """Start a process that writes to a log, or to this terminal. A Ctrl-C reaches the demonstration alone."""
        with contextlib.ExitStack() as files:
            output = files.enter_context((self._home / log).open("wb")) if log else None
            process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._processes.append(process)
        return process


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process: by asking, and if that does not help in time, by force."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def stop_watching(watch: subprocess.Popen[bytes]) -> None:
    """Let the live view come to its end, or end it and give the terminal its cursor back."""
    try:
        watch.wait(SECONDS_TO_SEE_THE_END)
    except subprocess.TimeoutExpired:
        stop(watch)
        print("\033[?25h" if sys.stdout.isatty() else "", flush=True)


def step(number: int, what: str) -> None:
    """Say which step begins."""
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() and "NO_COLOR" not in os.environ else ("", "")
    print(f"\n{bold}{number}. {what}{plain}", flush=True)


def say(*lines: str) -> None:
    """Say something about the step."""
    for line in lines:
        print(f"   {line}".rstrip(), flush=True)


def show(command: Sequence[str], ending: str = "") -> None:
    """Show a command as a person types it."""
    say(f"$ {printable(command)}{ending}")


def printable(command: Sequence[str]) -> str:
    """Return a command as a person types it."""
    if tuple(command[: len(RUNSTREAM)]) == RUNSTREAM:
        command = ("runstream", *command[len(RUNSTREAM) :])
    return shlex.join(["python" if word == sys.executable else word for word in command])


def shown(path: Path) -> str:
    """Return a path as text; its name need not be UTF-8, nor printable."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def quoted(text: str) -> str:
    """Return text as YAML writes it in quotes."""
    return json.dumps(text, ensure_ascii=False)


def contents(status: Mapping[str, Any]) -> str:
    """Return how much of each an execution holds."""
    kinds = {
        "messages": "message",
        "tool_calls": "tool call",
        "sub_agent_executions": "sub-agent",
        "todos": "todo",
    }
    numbers = {what: len(status.get(field, ())) for field, what in kinds.items()}
    return ", ".join(f"{number} {what}{'' if number == 1 else 's'}" for what, number in numbers.items())


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> int:
    """Run the demonstration as its command line says."""
    parser = argparse.ArgumentParser(description="Show Runstream at work: an agent surveys a folder, live.")
    parser.add_argument("folder", nargs="?", type=Path, default=REPOSITORY, help="the folder; this repository if none")
    parser.add_argument("--pace", type=float, default=1.0, help="stretches the agent's pauses; 0 leaves them out")
    given = parser.parse_args()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal may not know every letter
    interruption = Interruption()
    with tempfile.TemporaryDirectory(prefix="runstream-demo-") as home:
        exit_code = demonstrate(Demo(Path(home), interruption, pace=given.pace), Path(os.path.realpath(given.folder)))
    if exit_code == 0:
        say_goodbye()
    return exit_code


def demonstrate(demo: Demo, folder: Path) -> int:
    """Run a demonstration and stop what it started; return the exit code."""
    try:
        completed = demo.run(folder)
    except InterruptedDemoError as error:
        print(f"\n{error}; stopping", file=sys.stderr)
        return error.exit_code
    except (FailedError, OSError, subprocess.SubprocessError) as error:
        print(f"\nThe demonstration failed: {error}", *demo.logs(), sep="\n", file=sys.stderr)
        return 1
    finally:
        demo.stop()
    if not completed:
        print("\nThe execution did not complete.", *demo.logs(), sep="\n", file=sys.stderr)
        return 1
    return 0


def say_goodbye() -> None:
    """Say where to go on."""
    print("\nNothing is left of it, neither a process nor a file. Where to go on:")
    say(
        "runstream serve                  a server that stays; its data is in ./runstream-data",
        "runstream --help                 everything the command line can do",
        "examples/reporter.py             how an agent reports, in one class",
        "examples/survey_agent.py         the agent that you saw",
        "protos/runstream/v1              the API, every field explained",
    )


if __name__ == "__main__":
    sys.exit(main())
