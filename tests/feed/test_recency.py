"""Recency: what changed since a tick, each id once, in bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runstream.feed.recency import Recency

IDS = st.sampled_from(["a", "b", "c", "d", "e"])


def test_nothing_has_changed_for_a_reader_that_starts_now() -> None:
    """A new reader hears only of what comes after its start."""
    recency = Recency()
    recency.note("a")
    assert recency.since(recency.tick) == []


def test_an_id_that_changes_often_is_told_once_at_its_last_place() -> None:
    """Conflation: a reader is told the newest, not the history."""
    recency = Recency()
    start = recency.tick
    for execution_id in ("a", "b", "a", "c", "a"):
        recency.note(execution_id)
    assert recency.since(start) == ["b", "c", "a"]


def test_a_reader_that_fell_behind_the_oldest_tick_is_told_so() -> None:
    """What was forgotten is not passed over in silence."""
    recency = Recency(capacity=2)
    start = recency.tick
    for execution_id in ("a", "b"):
        recency.note(execution_id)
    assert recency.since(start) == ["a", "b"]
    recency.note("c")
    assert recency.since(start) is None
    assert recency.since(start + 1) == ["b", "c"]


def test_an_id_that_changes_again_takes_no_more_room() -> None:
    """One busy execution does not push the others out."""
    recency = Recency(capacity=2)
    start = recency.tick
    recency.note("a")
    for _ in range(100):
        recency.note("b")
    assert recency.since(start) == ["a", "b"]


@given(noted=st.lists(IDS, max_size=60), capacity=st.integers(1, 6), data=st.data())
def test_a_reader_is_told_all_that_changed_or_that_it_must_start_over(
    noted: list[str], capacity: int, data: st.DataObject
) -> None:
    """For every reader: exactly the ids that changed since its tick, by their last change; else None."""
    recency = Recency(capacity)
    for execution_id in noted:
        recency.note(execution_id)
    tick = data.draw(st.integers(0, len(noted)))
    last = {execution_id: number for number, execution_id in enumerate(noted, start=1)}
    expected = sorted((name for name in last if last[name] > tick), key=last.__getitem__)
    told = recency.since(tick)
    assert told in (None, expected)
    # There is room for as many as the capacity says, so only a reader behind that may be sent back.
    if len(expected) <= capacity and len(set(noted)) <= capacity:
        assert told == expected
