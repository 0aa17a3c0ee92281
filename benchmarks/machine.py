"""The machine: which cores the server and the load get, and what is told of it beside every figure."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The packages whose versions decide what is measured.
_PACKAGES: Final = ("grpcio", "uvloop", "protobuf", "protovalidate", "plyvel", "pygrpc-native")
_KIB: Final = 1 << 10


@dataclass(frozen=True, slots=True)
class Machine:
    """What a figure was measured on, and how busy the machine was with something else when the run began."""

    processor: str
    cores: int
    server_cores: list[int]
    load_cores: list[int]
    memory_bytes: int
    system: str
    python: str
    versions: dict[str, str]
    revision: str
    load_average: float

    def told(self) -> str:
        """Tell it in a line."""
        memory = self.memory_bytes / (1 << 30)
        return f"{self.processor}, {self.cores} cores, {memory:.0f} GiB; {self.system}; Python {self.python}"


@cache
def cores() -> tuple[set[int], set[int]]:
    """The cores for the server and for the load; the same where there is only one. Asked before anything is pinned."""
    usable = sorted(os.sched_getaffinity(0))
    return {usable[0]}, set(usable[1:]) or {usable[0]}


@contextmanager
def pinned(to: set[int]) -> Iterator[None]:
    """Have this thread, and every process it starts in the block, run on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, to)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def describe() -> Machine:
    """Describe this machine as it is now."""
    server, load = cores()
    return Machine(
        processor=_field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        cores=os.cpu_count() or 1,
        server_cores=sorted(server),
        load_cores=sorted(load),
        memory_bytes=int((_field(Path("/proc/meminfo"), "MemTotal") or "0").split()[0]) * _KIB,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions={name: found for name in _PACKAGES if (found := _version(name))},
        revision=_revision(),
        load_average=os.getloadavg()[0],
    )


def _field(path: Path, name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.*)$", path.read_text(), re.MULTILINE) if path.exists() else None
    return "" if found is None else found[1]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _revision() -> str:
    """Return the commit that is checked out, with a plus when files differ from it; empty where that is not known."""
    git = shutil.which("git")
    if git is None:
        return ""
    command = [git, "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=12"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
