"""The machine just before a peer is measured: how busy it is, and what a synced write takes on its disk."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_WRITES = 50
_BYTES = 512


@dataclass(frozen=True, slots=True)
class Machine:
    """`load` is the average of the last minute, `sync` the median of a few synced writes of 512 bytes, in seconds."""

    load: float
    sync: float


def look(folder: Path) -> Machine:
    """Look at it; `folder` is on the disk that counts."""
    seconds = []
    with (folder / "probe").open("wb", buffering=0) as file:
        for _ in range(_WRITES):
            begun = time.perf_counter()
            file.write(bytes(_BYTES))
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - begun)
    return Machine(os.getloadavg()[0], statistics.median(seconds))
