"""The stage of the demonstration: what it says, the processes it starts, and how it ends them all.

Everything is started by `Stage` in a session of its own, so that a Ctrl-C reaches the demonstration alone, and is ended
by it, whatever happens.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

REPOSITORY = Path(__file__).resolve().parent.parent
RUNSTREAM = (sys.executable, "-m", "runstream.cli.main")

SECONDS_FOR_A_COMMAND = 60
SECONDS_TO_STOP = 15
SECONDS_BEFORE_STOPPING_AGAIN = 0.5
SECONDS_BETWEEN_LOOKS = 0.02
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


class Process:
    """A process of the demonstration."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path | None, *, needed: bool) -> None:
        self.name = name
        self.pid = process.pid
        #: Whether the demonstration cannot go on without it.
        self.needed = needed
        self._process = process
        self._log = log

    @property
    def exit_code(self) -> int | None:
        """How it ended, less than 0 for a signal; None while it runs."""
        return self._process.poll()

    @property
    def said(self) -> str:
        """Everything it has written."""
        return "" if self._log is None else self._log.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """End it as the kernel ends what has no time left: it is told nothing."""
        self.needed = False
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """End it by asking, and wait for it to do what it does at its end."""
        self.needed = False
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(SECONDS_TO_STOP)

    def stop(self) -> None:
        """End it by asking, then by asking again, which gives up what it still works on, and at last by force."""
        self.needed = False
        for seconds in (SECONDS_BEFORE_STOPPING_AGAIN, SECONDS_TO_STOP):
            if self.exit_code is not None:
                return
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        self.kill()

    def detach(self) -> None:
        """End a watcher as Ctrl-C does: it gives the terminal its cursor back."""
        if self.exit_code is None:
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(SECONDS_TO_STOP)
        self.stop()


class Stage:
    """Starts and ends the processes of one demonstration, which leave what they write in the folder `home`."""

    def __init__(self, home: Path, interruption: Interruption) -> None:
        self.home = home
        self._interruption = interruption
        self._processes: list[Process] = []
        # What is set for a person's own server is not meant for this one.
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNSTREAM_")}

    def start(self, name: str, command: Sequence[str], *, logged: bool = True, needed: bool = True) -> Process:
        """Start a process that writes to a log of its name, or to this terminal."""
        log = self.home / f"{name}.log" if logged else None
        with contextlib.ExitStack() as files:
            output = None if log is None else files.enter_context(log.open("wb"))
            started = subprocess.Popen(
                command,
                cwd=REPOSITORY,  # the agents are found from there
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        process = Process(name, started, log, needed=needed)
        self._processes.append(process)
        return process

    def run(self, *arguments: str) -> str:
        """Run a command of the command line and return what it prints. Raises `FailedError`."""
        self._interruption.check()
        command = (*RUNSTREAM, *arguments)
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=self.environment,
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
        return done.stdout

    def wait_until(self, holds: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait until something holds. Raises `FailedError` when it takes too long, or a needed process has ended."""
        deadline = time.monotonic() + seconds
        while not holds():
            self.check()
            if time.monotonic() > deadline:
                raise FailedError(f"{what}: not within {seconds:g} seconds")
            time.sleep(SECONDS_BETWEEN_LOOKS)
        self._interruption.check()

    def pause(self, seconds: float) -> None:
        """Give a person time to look."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check()
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def check(self) -> None:
        """Raise `InterruptedDemoError` when told to stop, `FailedError` when a needed process has ended."""
        self._interruption.check()
        for process in self._processes:
            if process.needed and process.exit_code is not None:
                process.needed = False
                raise FailedError(f"{process.name} ended with {process.exit_code}, before its time")

    def stop(self) -> None:
        """Stop every process that still runs, the last one first."""
        for process in reversed(self._processes):
            process.stop()

    def logs(self) -> Iterator[str]:
        """Yield the ends of what the processes wrote."""
        for log in sorted(self.home.glob("*.log")):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES_SHOWN:]
            if lines:
                yield "\n".join([f"--- the end of {log.name}", *lines])


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
    return shlex.join(command)
