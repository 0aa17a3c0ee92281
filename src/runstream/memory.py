"""Memory: how the process of a server collects garbage, and gives back what it no longer needs."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress
from typing import Final

#: How many more objects than were freed have come before the young ones are looked through; Python's own is 700.
_COLLECT_AFTER: Final = 10_000
#: glibc's number for the size from which a block is mapped by itself, so that it goes back to the system when freed.
_M_MMAP_THRESHOLD: Final = -3
_MAPPED_BYTES: Final = 256 << 10


def spare_the_collector() -> None:
    """Leave what is loaded by now out of every garbage collection, and collect less often: calls leave few cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)


def give_large_blocks_back() -> None:
    """Have glibc return large blocks to the system when they are freed; another allocator does as it always does.

    glibc raises the size by itself, up to 32 MiB, each time that such a block is freed. A snapshot of a long execution
    is made of a few of them, and what it took would stay with the process, in pieces.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
