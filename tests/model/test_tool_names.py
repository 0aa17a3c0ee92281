from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runstream.model.tool_names import LONGEST, sanitised

FAST = settings(max_examples=150, deadline=None)


@FAST
@given(st.text(max_size=300))
def test_a_sanitised_name_is_what_every_provider_takes(name: str) -> None:
    """Whatever the name, only letters, digits, `_` and `-` of ASCII are left of it, and not too many."""
    assert re.fullmatch(r"[A-Za-z0-9_-]*", sanitised(name))
    assert len(sanitised(name)) <= LONGEST
    assert bool(sanitised(name)) == bool(name)


@FAST
@given(st.text(max_size=300))
def test_a_sanitised_name_is_its_own(name: str) -> None:
    """Sanitising twice is sanitising once."""
    assert sanitised(sanitised(name)) == sanitised(name)


@FAST
@given(st.from_regex(r"[A-Za-z0-9_-]{0,64}", fullmatch=True))
def test_a_name_that_every_provider_takes_stays(name: str) -> None:
    """What needs no change gets none."""
    assert sanitised(name) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", ""),
        ("web.search/v2", "web_search_v2"),
        ("a  b..c", "a__b__c"),
        ("\uff33\uff45\uff41\uff52\uff43\uff48", "Search"),
        ("\ufb01nd", "find"),
        ("r\u00e9sum\u00e9", "r_sum__e9f7b5b6"),
        ("re\u0301sume\u0301", "r_sum__e9f7b5b6"),
        ("\U0001f600", "__f0443a34"),
        ("\u67e5\u8be2", "___bcd6771e"),
        ("\u5220\u9664", "___2f9daa82"),
        ("\ud800", "__91a681b9"),
        ("look\n", "look_"),
        ("x" * 64, "x" * 64),
        ("x" * 65, "x" * 55 + "_9537c5fd"),
        ("x" * 66, "x" * 55 + "_6eb879f1"),
    ],
)
def test_names_are_sanitised_like_this(name: str, expected: str) -> None:
    """Compatible forms become plain letters, all else that is foreign one `_` each; what is lost leaves a digest."""
    assert sanitised(name) == expected


ALIKE = st.text(st.sampled_from("\u67e5\u8be2\u5220\u9664\u00e9\ud800x"), max_size=3)


@FAST
@given(ALIKE, ALIKE, st.sampled_from(["", "x" * 64]))
def test_names_that_lose_something_stay_apart(one: str, other: str, prefix: str) -> None:
    """Letters of other alphabets, and whatever follows the first 64: to allow one tool allows no other."""
    names = [prefix + each for each in (one, other)]
    assert (sanitised(names[0]) == sanitised(names[1])) == (one == other)
