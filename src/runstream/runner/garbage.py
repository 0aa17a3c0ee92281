"""Garbage: what the process of a runner leaves out of its collection."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def loaded_left_out() -> Iterator[None]:
    """Leave what is loaded by now out of every garbage collection, for the length of the block.

    Modules stay as long as the process: to look through all of them again and again would keep every agent waiting.
    A program that has done this itself is left alone.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
