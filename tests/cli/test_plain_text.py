from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.cli.plain_text import clean, one_line, tail


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 日本\ttab\nline", "plain ü 日本\ttab\nline"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b", "ab"),
        ("\x1bPq#0\x1b\\a\x9d0;t\x9cb", "ab"),
        ("\x1b]0;never ended", "0;never ended"),
        ("\x1b(Ba\x1bcb\x1b7", "ab"),
        ("\x9b2Ja\x85b", "a\nb"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\x00\x07\x08\x7fb", "ab"),
        ("a\u202eb\u2066c", "abc"),
        ("\x1b", ""),
    ],
)
def test_what_a_terminal_obeys_is_gone(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.text())
def test_no_control_character_survives(text: str) -> None:
    assert all(char in "\n\t" or not (char < " " or "\x7f" <= char <= "\x9f") for char in clean(text))


@given(st.text(alphabet="\x1b[]31m;\x07\\a"))
def test_nothing_new_appears_when_sequences_are_cut_out(text: str) -> None:
    assert "\x1b" not in clean(text)


def test_a_line_is_cut_to_its_width() -> None:
    assert one_line("a\n b\t c", 10) == "a b c"
    assert one_line("abcdef", 4) == "abc…"
    assert one_line("", 4) == ""


def test_a_tail_is_the_last_rows() -> None:
    assert tail("one\ntwo\nthree", 2, 10) == "two\nthree"
    assert tail("abcdefgh", 2, 3) == "def\ngh"
    assert tail("日本語です", 1, 4) == "す"
    assert tail("x" * 1_000_000, 2, 10) == "\n".join(["x" * 10] * 2)
