"""The real things: a server process, command lines, and a terminal to look at."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.engines import KEPT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

#: How long anything may take before a test gives up on it.
PATIENCE = 30.0

_ENTRY = (sys.executable, "-m", "runstream.cli.main")
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[()][0-9A-B]|\r")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without what would change how a command behaves."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if (name == KEPT or not name.startswith("RUNSTREAM_"))
        and name not in {"FORCE_COLOR", "NO_COLOR", "COLUMNS", "LINES"}
    }
    return kept | dict(extra or {})


@dataclass(frozen=True)
class Result:
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 — as json.loads
        """The output as JSON."""
        return json.loads(self.out)


class Process:
    """A running process whose output is collected as it comes."""

    def __init__(
        self, arguments: Sequence[str], env: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> None:
        self._process = subprocess.Popen(
            [*_ENTRY, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(env),
            cwd=folder,
        )
        self._lines = ""
        self._grown = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """All that it wrote so far."""
        with self._grown:
            return self._lines

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until the output matches, and return the match."""
        with self._grown:
            found = self._grown.wait_for(lambda: self._search(pattern) or self._ended, PATIENCE)
            match = self._search(pattern)
            if match is None:
                why = "it ended" if found else "time is over"
                raise AssertionError(f"no {pattern!r}; {why}; the output is:\n{self._lines}")
            return match

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        code = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def end(self) -> None:
        """End it in any case."""
        if self._process.poll() is None:
            self._process.kill()
        self.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _search(self, pattern: str) -> re.Match[str] | None:
        return re.search(pattern, self._lines)

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        for line in stream:
            with self._grown:
                self._lines += line.decode(errors="replace")
                self._grown.notify_all()
        with self._grown:
            self._ended = True
            self._grown.notify_all()


class ServerProcess:
    """A server on a data folder, which can be killed and started again on the same port."""

    def __init__(self, data: Path, *options: str) -> None:
        self._data = data
        self._options = options
        self.port = 0
        self._process = self._start()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        """What it wrote since it was started last."""
        return self._process.output

    def kill(self) -> None:
        """End it without warning."""
        self._process.signal(signal.SIGKILL)
        self._process.end()

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        self._process.signal(signal.SIGTERM)
        code = self._process.wait()
        self._process.end()
        return code

    def restart(self) -> None:
        """Start it again on the same port and folder."""
        self._process = self._start()

    def end(self) -> None:
        """End it in any case."""
        self._process.end()

    def _start(self) -> Process:
        listen = f"127.0.0.1:{self.port}"
        process = Process(["serve", "--listen", listen, "--data", str(self._data), *self._options])
        try:
            self.port = int(process.wait_for(r"listening on 127\.0\.0\.1:(\d+)").group(1))
        except BaseException:
            process.end()
            raise
        return process


class CommandLine:
    """The command line, told which server to call."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._started: list[Process | Terminal] = []

    def __call__(
        self, *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> Result:
        """Run a command to its end."""
        done = subprocess.run(
            [*_ENTRY, *arguments],
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            env=environment(self._env(env)),
            cwd=folder,
            timeout=PATIENCE,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Result(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Result:
        """Run a command that must succeed."""
        result = self(*arguments, stdin=stdin, env=env)
        assert result.code == 0, result.err
        return result

    def json(self, *arguments: str, stdin: str = "") -> Any:  # noqa: ANN401 — as json.loads
        """Run a command that must succeed, and return its answer."""
        return self.ok(*arguments, "-o", "json", stdin=stdin).json

    def start(self, *arguments: str, env: Mapping[str, str] | None = None, folder: Path | None = None) -> Process:
        """Start a command that goes on."""
        process = Process(arguments, self._env(env), folder)
        self._started.append(process)
        return process

    def open(self, *arguments: str, rows: int = 24, columns: int = 100) -> Terminal:
        """Start a command on a terminal."""
        terminal = Terminal(arguments, environment(self._env()), rows, columns)
        self._started.append(terminal)
        return terminal

    def end(self) -> None:
        """End all that was started."""
        for process in self._started:
            process.end()

    def _env(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        return {"RUNSTREAM_SERVER": self.address, **(extra or {})}


class Terminal:
    """A command on a pseudo-terminal, and all that it drew."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], rows: int, columns: int) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._process = subprocess.Popen(
            [*_ENTRY, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**env, "TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(slave)
        self._bytes = b""
        self._seen = 0

    @property
    def raw(self) -> str:
        """All that was drawn, with what steers the terminal."""
        return self._bytes.decode(errors="replace")

    @property
    def text(self) -> str:
        """All that was drawn, without what steers the terminal."""
        return _ESCAPE.sub("", self.raw)

    def wait_for(self, text: str) -> None:
        """Wait until `text` is drawn after what was waited for last."""
        deadline = time.monotonic() + PATIENCE
        while (at := self.text.find(text, self._seen)) < 0:
            if time.monotonic() > deadline or not self._read():
                raise AssertionError(f"no {text!r} in:\n{self.text[self._seen :]}")
        self._seen = at + len(text)

    def type(self, text: str) -> None:
        """Type on the terminal."""
        os.write(self._master, text.encode())

    def signal(self, number: signal.Signals) -> None:
        """Send the command a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Take in what is still drawn, and return the exit code."""
        while self._read():
            pass
        return self._process.wait(PATIENCE)

    def end(self) -> None:
        """End it in any case."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(PATIENCE)
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def _read(self) -> bool:
        """Take in more; False when nothing more comes."""
        ready, _, _ = select.select([self._master], [], [], PATIENCE)
        try:
            chunk = os.read(self._master, 1 << 16) if ready else b""
        except OSError:
            return False  # the command closed its side
        self._bytes += chunk
        return bool(chunk)
