from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

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


def test_a_tail_breaks_between_words() -> None:
    assert tail("the quick brown fox jumps", 9, 11) == "the quick\nbrown fox\njumps"
    assert tail("  indented text", 9, 11) == "  indented\ntext"
    assert tail("a verylongwordthatmustbebroken end", 9, 10) == "a\nverylongwo\nrdthatmust\nbebroken\nend"
    assert tail("日本語 です", 9, 6) == "日本語\nです"
    assert tail("a\tb\n\nc   ", 9, 20) == "a       b\n\nc"


@given(st.lists(st.text(alphabet="abc", min_size=1, max_size=10)), st.integers(10, 30))
def test_a_tail_holds_whole_words_in_their_order(words: list[str], width: int) -> None:
    text = " ".join(words)
    rows = tail(text, 1_000, width).split("\n")
    assert " ".join(row for row in rows if row) == text
    last = " ".join(row for row in tail(text, 3, width).split("\n") if row)
    assert text.endswith(last)
    assert not last or last.split() == words[-len(last.split()) :]


@given(st.text(), st.integers(2, 20), st.integers(1, 5))
def test_a_tail_never_outgrows_its_room(text: str, width: int, lines: int) -> None:
    rows = tail(text, lines, width).split("\n")
    assert len(rows) <= lines
    assert all(cell_len(row) <= width for row in rows)


def test_a_tail_moves_up_as_the_text_grows() -> None:
    text = "".join(f"word{number} " for number in range(30))
    before = tail(text, 4, 20).split("\n")
    after = tail(text + "and one more line", 4, 20).split("\n")
    assert after[:2] == before[2:] or after[:3] == before[1:]
