from __future__ import annotations

from runstream.storage import keys
from runstream.storage.overlay import Overlay
from runstream.storage.records import AGENT
from runstream.storage.store import Term

RED = Term("colour", "red")
ENTRIES = keys.entries(AGENT, RED)
ONE, TWO = keys.entry(AGENT, "1", RED), keys.entry(AGENT, "2", RED)


def test_the_newest_write_counts_until_it_is_on_disk() -> None:
    """A transaction on disk takes away only what no later one has written over."""
    overlay = Overlay()
    overlay.add(1, [(b"a", b"1"), (b"b", b"1")])
    overlay.add(2, [(b"a", None)])
    assert overlay[b"a"] is None
    overlay.settle(1, [(b"a", b"1"), (b"b", b"1")])
    assert b"a" in overlay
    assert b"b" not in overlay
    overlay.settle(2, [(b"a", None)])
    assert len(overlay) == 0


def test_a_key_written_twice_by_one_transaction_has_its_last_value() -> None:
    """Within a transaction, too, the last write counts, and it leaves as one."""
    overlay = Overlay()
    writes = [(b"a", None), (b"a", b"2")]
    overlay.add(1, [*writes])
    assert overlay[b"a"] == b"2"
    overlay.settle(1, [*writes])
    assert len(overlay) == 0


def test_entries_are_those_of_one_term() -> None:
    """The entries of a term are told apart: to come and to go."""
    overlay = Overlay()
    overlay.add(1, [(ONE, b""), (keys.entry(AGENT, "3", Term("colour", "redder")), b"")])
    overlay.add(2, [(TWO, None)])
    assert overlay.entries(ENTRIES) == ({ONE}, {TWO})
    overlay.settle(1, [(ONE, b"")])
    assert overlay.entries(ENTRIES) == (set(), {TWO})
    overlay.clear()
    assert overlay.entries(ENTRIES) == (set(), set())
