from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runstream.runner.text import clean, cut, pieces, size

ANYTHING = st.text(st.characters(codec=None, categories=None))


@given(ANYTHING)
def test_clean_text_can_be_written_as_utf8(text: str) -> None:
    assert clean(text).encode().decode() == clean(text)


@given(st.text())
def test_text_that_is_fit_for_the_wire_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


def test_halves_of_a_character_are_joined() -> None:
    assert clean("\ud83d\ude00!") == "😀!"
    assert clean("\ud83d!") == "\ufffd!"


@given(st.text(), st.integers(4, 50))
def test_the_pieces_of_a_text_are_the_text_and_none_is_too_large(text: str, most: int) -> None:
    split = list(pieces(text, most))
    assert "".join(split) == text
    assert all(size(piece) <= most for piece in split)


@given(st.text(), st.integers(0, 300))
def test_a_cut_text_says_what_is_missing(text: str, most: int) -> None:
    kept = cut(text, most)
    if size(text) <= most:
        assert kept == text
    else:
        beginning, mark, said = kept.rpartition(" […cut: ")
        assert mark
        assert text.startswith(beginning)
        assert said == f"{size(text) - size(beginning)} of {size(text)} bytes are missing]"
        assert size(kept) <= max(most, 100)
