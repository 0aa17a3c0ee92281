"""Garbage: how the process of a runner collects it."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How many more objects than were freed have come, at least, before the young ones are looked through. Runs
#: leave few cycles; what many of them have made when they have just begun is much, and no garbage.
_COLLECT_AFTER: Final = 10_000


@contextmanager
def sparing_the_collector() -> Iterator[None]:
    """Collect less often, and leave out what is loaded by now, for the length of the block.

    Modules stay as long as the process: to look through all of them again and again would keep every agent waiting.
    A program that has turned the collection off, or left out something itself, is left alone in that.
    """
    young, *old = thresholds = gc.get_threshold()
    freezes = gc.isenabled() and not gc.get_freeze_count()
    if young:
        gc.set_threshold(max(young, _COLLECT_AFTER), *old)
    if freezes:
        gc.collect()
        gc.freeze()
    try:
        yield
    finally:
        if freezes:
            gc.unfreeze()
        gc.set_threshold(*thresholds)
