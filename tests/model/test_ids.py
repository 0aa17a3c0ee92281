from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runstream.model.ids import IdSource, first_id_at, is_id, ulid_millis

LAST_MILLIS = (1 << 48) - 1
FULL, EMPTY = b"\xff" * 10, b"\x00" * 10
FAST = settings(max_examples=100, deadline=None)


class Times:
    """A clock that tells what it was given, and then its last time for ever."""

    def __init__(self, *millis: int) -> None:
        self._left = list(millis)

    def __call__(self) -> int:
        """Tell the next time."""
        return self._left.pop(0) if len(self._left) > 1 else self._left[0]


def source(*millis: int, random: bytes = EMPTY) -> IdSource:
    """Make an id source from times and from random bytes that are always the same."""
    return IdSource(Times(*millis), lambda size: random[:size])


def test_an_id_is_its_prefix_and_a_ulid_in_lower_case() -> None:
    """Ids have the form that the proto demands, and tell when they were made."""
    made = source(1_700_000_000_000).new("aex")
    assert re.fullmatch(r"aex_[0-7][0-9a-hjkmnp-tv-z]{25}", made)
    assert ulid_millis(made) == 1_700_000_000_000
    assert is_id("aex", made)


def test_the_text_of_an_id_is_the_one_that_everybody_writes() -> None:
    """The example of the ULID specification, in lower case, and the ends of what there can be."""
    value = 1777027686520646174104517696511196507
    millis, random = value >> 80, (value & (1 << 80) - 1).to_bytes(10, "big")
    assert source(millis, random=random).new("aex") == "aex_01arz3ndektsv4rrffq69g5fav"
    assert ulid_millis("aex_01arz3ndektsv4rrffq69g5fav") == millis
    assert source(0).new("aex") == "aex_" + "0" * 26
    assert source(LAST_MILLIS, random=FULL).new("aex") == "aex_7" + "z" * 25


@FAST
@given(st.lists(st.integers(-(10**6), LAST_MILLIS - 1), min_size=2, max_size=30), st.binary(min_size=10, max_size=10))
def test_ids_grow_however_the_clock_jumps(millis: list[int], random: bytes) -> None:
    """Each id sorts after all before it: the clock may stand still, jump back, or be before 1970."""
    ids = source(*millis, random=random)
    made = [ids.new("ses") for _ in range(len(millis) + 2)]
    assert made == sorted(set(made))


def test_a_full_random_part_carries_over_into_the_next_millisecond() -> None:
    """When the clock stands still and the randomness is used up, the order holds all the same."""
    ids = source(1_000, random=FULL)
    first, second = ids.new("agt"), ids.new("agt")
    assert first < second
    assert (ulid_millis(first), ulid_millis(second)) == (1_000, 1_001)


def test_new_ids_sort_after_what_was_observed() -> None:
    """After a restart with a clock that is behind, ids go on from those on disk."""
    seen = source(5_000, random=FULL).new("aex")
    ids = source(1_000)
    ids.observe(seen)
    ids.observe(source(2_000).new("aex"))
    assert ids.new("aex") > seen


def test_the_last_ulid_has_none_after_it() -> None:
    """Where there is no greater id, none is made."""
    ids = source(0)
    ids.observe("aex_7" + "z" * 25)
    with pytest.raises(OverflowError):
        ids.new("aex")


@FAST
@given(st.integers(0, LAST_MILLIS), st.binary(min_size=10, max_size=10))
def test_the_first_id_of_a_millisecond_bounds_its_ids(millis: int, random: bytes) -> None:
    """It is not after any id of its millisecond, and after every id of the one before."""
    first = first_id_at("aex", millis)
    assert first <= source(millis, random=random).new("aex")
    assert ulid_millis(first) == millis
    if millis:
        assert source(millis - 1, random=FULL).new("aex") < first


@pytest.mark.parametrize("millis", [-1, LAST_MILLIS + 1, 2**62])
def test_a_time_that_no_id_can_hold_is_refused(millis: int) -> None:
    """A range from a hostile time is an error, not another range."""
    with pytest.raises(ValueError, match="cannot hold"):
        first_id_at("aex", millis)


GOOD = first_id_at("aex", 1_700_000_000_000)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "aex",
        "aex_",
        GOOD.upper(),
        GOOD[:-1],
        GOOD + "0",
        GOOD + "\n",
        GOOD.replace("aex", "ses"),
        GOOD.replace("aex", "AEX"),
        "aex_8" + GOOD[5:],
        GOOD[:-1] + "u",
        GOOD[:-1] + "\u0665",
    ],
)
def test_what_is_no_id_of_the_prefix_is_told(text: str) -> None:
    """Another prefix, length, case or alphabet, and more than 128 bits, are no id."""
    assert not is_id("aex", text)


@pytest.mark.parametrize("text", ["", "aex_", GOOD.upper(), "aex_8" + GOOD[5:], GOOD + "\n"])
def test_a_malformed_id_is_a_value_error(text: str) -> None:
    """Nothing is read out of what is no id."""
    with pytest.raises(ValueError, match="is not an id"):
        ulid_millis(text)
    with pytest.raises(ValueError, match="is not an id"):
        source(0).observe(text)
