"""A server process on a core of its own: started, asked what it has used, killed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.machine import cores, pinned
from benchmarks.wire import Call, Connection, answer

if TYPE_CHECKING:
    from collections.abc import Iterator

_LISTENING: Final = re.compile(r"listening on (\S+:\d+)")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_STOP_SECONDS: Final = 60
#: The call that every server answers, and that does nothing: the standard health check.
CHECK: Final = Call.of_bytes("/grpc.health.v1.Health/Check", b"")


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process has resident, in bytes: all of it, its own, and the files it has mapped."""

    resident: int
    anonymous: int
    file: int
    #: The most that was ever resident.
    peak: int


class ServerProcess:
    """A server on a data folder; made by `start`, ended by `stop` or `kill`."""

    def __init__(self, process: subprocess.Popen[str], address: str, seconds: float) -> None:
        """Take the process that listens on `address`, and how long it took from the start to its first answer."""
        self._process = process
        self.address = address
        self.start_seconds = seconds
        # What it logs is read, or it would wait once the pipe is full.
        self._reading = threading.Thread(target=deque, args=(process.stderr or (), 0), daemon=True)
        self._reading.start()

    @classmethod
    def start(cls, data: Path, **settings: object) -> ServerProcess:
        """Start a server on `data`; it has answered a call when this returns. RuntimeError when it does not start."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNSTREAM_")}
        environment |= {f"RUNSTREAM_{name.upper()}": str(value) for name, value in settings.items()}
        environment.setdefault("RUNSTREAM_LOG_LEVEL", "warning")
        command = [sys.executable, "-m", "runstream.cli.main", "serve"]
        begun = time.perf_counter()
        with pinned(cores()[0]):
            process = subprocess.Popen(
                [*command, "--listen", "127.0.0.1:0", "--data", str(data)],
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
                env=environment,
            )
        try:
            address = _address(process)
            with closing(Connection(address)) as connection:
                answer(connection, CHECK)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return cls(process, address, time.perf_counter() - begun)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def cpu_seconds(self) -> float:
        """The processor time it has used so far, in seconds, all threads together."""
        return cpu_seconds(self.pid)

    @property
    def memory(self) -> Memory:
        """What it has resident now."""
        told = Path(f"/proc/{self.pid}/status").read_text()
        sizes = {name: int(kib) << 10 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", told, re.MULTILINE)}
        return Memory(sizes["VmRSS"], sizes["RssAnon"], sizes["RssFile"], sizes["VmHWM"])

    @property
    def written_bytes(self) -> int:
        """How many bytes it has caused to be written to disk so far, in whole pages; 0 where that is not told."""
        path = Path(f"/proc/{self.pid}/io")
        found = re.search(r"^write_bytes: (\d+)$", path.read_text(), re.MULTILINE) if path.exists() else None
        return 0 if found is None else int(found[1])

    def kill(self) -> None:
        """Kill it this instant; it is gone when this returns."""
        self._process.kill()
        self._gone()

    def stop(self) -> None:
        """Ask it to end as an operator does, and wait until it has; a repeat does nothing."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._gone()
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def _gone(self) -> None:
        """Wait until it has ended and all that it logged is read."""
        self._process.wait(timeout=_STOP_SECONDS)
        self._reading.join()
        if self._process.stderr is not None:
            self._process.stderr.close()


def cpu_seconds(pid: int) -> float:
    """The processor time that a process has used so far, in seconds, all threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def server(data: Path, **settings: object) -> Iterator[ServerProcess]:
    """Run a server on `data`, pinned to its core, for the length of the block; `settings` are its own, by name."""
    running = ServerProcess.start(data, **settings)
    try:
        yield running
    finally:
        running.stop()


def _address(process: subprocess.Popen[str]) -> str:
    told = []
    for line in process.stderr or ():
        told.append(line)
        found = _LISTENING.search(line)
        if found:
            return found[1]
    raise RuntimeError(f"the server did not start: {''.join(told)}")
