from __future__ import annotations

import gc

from runstream.memory import give_large_blocks_back, spare_the_collector


def test_what_is_loaded_is_left_out_of_collections() -> None:
    """Garbage is still found, but nobody looks through what was there at the start any more."""
    before = gc.get_threshold()
    try:
        spare_the_collector()
        assert gc.get_freeze_count() > 10_000
        assert gc.get_threshold()[0] > before[0]
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def test_an_allocator_that_cannot_be_told_is_no_error() -> None:
    """The server starts on any of them."""
    give_large_blocks_back()
