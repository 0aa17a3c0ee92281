from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.storage import keys
from runstream.storage.records import AGENT, AGENT_EXECUTION, IDEMPOTENCY, RECORD_KINDS
from runstream.storage.store import Range, Term, Unique
from tests.storage.samples import make_id

TEXTS = st.text(alphabet=st.sampled_from("\x00\x01\xffab\U0010ffff"), max_size=6) | st.text()
TERMS = st.builds(Term, TEXTS, TEXTS)
NUMBERS = st.integers(0, (1 << 64) - 1)


@given(st.tuples(TEXTS, NUMBERS), st.tuples(TEXTS, NUMBERS))
def test_changes_sort_by_execution_then_revision(a: tuple[str, int], b: tuple[str, int]) -> None:
    """Two changes have one key only if they are one; within an execution keys sort as revisions."""
    key_a, key_b = keys.change(*a), keys.change(*b)
    assert (key_a == key_b) == (a == b)
    if a[0] == b[0]:
        assert (key_a < key_b) == (a[1] < b[1])
    assert key_a.startswith(keys.changes(b[0])) == (a[0] == b[0])
    assert (keys.changes(b[0]) <= key_a < keys.changes_end(b[0])) == (a[0] == b[0])
    assert keys.change_revision(key_a) == a[1]


@given(st.tuples(TERMS, TEXTS), st.tuples(TERMS, TEXTS))
def test_entries_stand_together_by_term(a: tuple[Term, str], b: tuple[Term, str]) -> None:
    """No entry stands among those of another term."""
    key_a, key_b = keys.entry(AGENT, a[1], a[0]), keys.entry(AGENT, b[1], b[0])
    assert (key_a == key_b) == (a == b)
    assert key_a.startswith(keys.entries(AGENT, b[0])) == (a[0] == b[0])
    assert key_a < keys.entries(AGENT, a[0]) + keys.BEHIND_IDS


@given(st.lists(TEXTS, min_size=6, max_size=6))
def test_names_are_apart(parts: list[str]) -> None:
    """Two names have one key only if index, scope and value are the same."""
    a, b = Unique(*parts[:3]), Unique(*parts[3:])
    assert (keys.name(a) == keys.name(b)) == (a == b)


@given(st.tuples(NUMBERS, TEXTS), st.tuples(NUMBERS, TEXTS))
def test_expiries_sort_by_time(a: tuple[int, str], b: tuple[int, str]) -> None:
    """Expiry keys sort by time first, and give their id back."""
    assert keys.expiry_id(keys.expiry(*a)) == a[1]
    if a[0] < b[0]:
        assert keys.expiry(*a) < keys.expiry(b[0], "") <= keys.expiry(*b)


@given(st.integers(0, (1 << 48) - 1), st.integers(0, (1 << 80) - 1), st.integers(0, 1 << 48))
def test_id_bounds_cut_at_the_time(time_ms: int, entropy: int, cut: int) -> None:
    """An id is at or above the bound of a time exactly if it is not older."""
    one = keys.encode_id(make_id(time_ms, entropy))
    lower, upper = keys.id_bounds(AGENT_EXECUTION, Range(cut, cut))
    assert (one >= lower) == (time_ms >= cut)
    assert (one < upper) == (time_ms < cut)


def test_kinds_have_their_own_keys() -> None:
    """No two kinds share a tag."""
    assert len({keys.records(kind) for kind in RECORD_KINDS}) == len(RECORD_KINDS)


def test_stored_keys_stay_as_they_are() -> None:
    """The bytes of format 1, which must not change without a new format number."""
    assert keys.record(AGENT_EXECUTION, "aex_1") == b"rxaex_1"
    assert keys.change("aex_1", 258) == b"caex_1\0\1\0\0\0\0\0\0\1\2"
    assert keys.entry(AGENT, "agt_1", Term("tag", "a\0")) == b"iatag\0\1a\0\xff\0\1agt_1"
    assert keys.name(Unique("slug", "", "x")) == b"uslug\0\1\0\1x\0\1"
    assert keys.expiry(1, "k") == b"e\0\0\0\0\0\0\0\1k"


def test_a_range_needs_ids_with_a_time() -> None:
    """A range over a kind whose ids carry no time is an error, not an empty answer."""
    with pytest.raises(ValueError, match="carry no time"):
        keys.id_bounds(IDEMPOTENCY, Range(1, 2))


@pytest.mark.parametrize("number", [-1, 1 << 64])
def test_numbers_must_fit(number: int) -> None:
    """A revision that eight bytes do not hold is refused."""
    with pytest.raises(ValueError, match="not between"):
        keys.change("aex_1", number)


@pytest.mark.parametrize("key", [b"", b"c", b"x", b"caex_1", b"caex_1\0\1\0", b"rxaex_1"])
def test_what_is_no_change_is_not_decoded(key: bytes) -> None:
    """Decoding checks what it is given."""
    with pytest.raises(ValueError, match="not the key of a change"):
        keys.change_revision(key)
    with pytest.raises(ValueError, match="not an expiry key"):
        keys.expiry_id(key)
