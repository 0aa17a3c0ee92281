"""A server process and load processes, each on a core of its own where there are two."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LISTENING = re.compile(r"listening on (\S+:\d+)")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A running server: where it listens, and its process id."""

    address: str
    pid: int

    def cpu_seconds(self) -> float:
        """The processor time it has used so far, in seconds, all threads together."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


@cache
def cores() -> tuple[set[int], set[int]]:
    """The cores for the server and for the load; the same where there is only one. Asked before anything is pinned."""
    usable = sorted(os.sched_getaffinity(0))
    return {usable[0]}, set(usable[1:]) or {usable[0]}


@contextmanager
def server(data: Path, **settings: object) -> Iterator[ServerProcess]:
    """Run a server on `data`, pinned to its core, for the length of the block; `settings` are its own, by name."""
    command = [sys.executable, "-m", "runstream.cli.main", "serve", "--listen", "127.0.0.1:0"]
    with (data.parent / "server.log").open("w+") as log:
        environment = os.environ | {f"RUNSTREAM_{name.upper()}": str(value) for name, value in settings.items()}
        process = subprocess.Popen(
            [*command, "--data", str(data)], stderr=subprocess.PIPE, stdout=log, text=True, env=environment
        )
        try:
            os.sched_setaffinity(process.pid, cores()[0])
            yield ServerProcess(_address(process), process.pid)
        finally:
            process.terminate()
            process.communicate(timeout=60)


@contextmanager
def runner(address: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the agents of `benchmarks.agents` in a process, on the load's cores, for the length of the block."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.agents", address])
    try:
        os.sched_setaffinity(process.pid, cores()[1])
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(timeout=60)


def _address(process: subprocess.Popen[str]) -> str:
    told = []
    for line in process.stderr or ():
        told.append(line)
        found = _LISTENING.search(line)
        if found:
            return found[1]
    raise RuntimeError(f"the server did not start: {''.join(told)}")


def conditions() -> str:
    """Describe the machine, in one line."""
    model = next(
        (line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")),
        platform.machine(),
    )
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
