"""Plain text: what agents and servers wrote, without anything a terminal would obey."""

from __future__ import annotations

import re
from typing import Final

from rich.cells import cell_len, chop_cells

#: The sequences that begin with ESC, whole: operating system commands and other strings up to their
#: terminator, control sequences up to their final byte, everything else as the standard shapes it.
#: A string without a terminator loses its introducer alone, so that it cannot swallow the text.
_ESCAPE: Final = re.compile(
    r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]{0,4096}(?:\x07|\x1b\\|\x9c)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_]"
    r"|\x1b[ -/]*[0-~]"
)
_LINE_END: Final = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
#: What is left of C0 (but tab and line feed), DEL, C1; and the marks that reorder what is shown.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SPACE: Final = re.compile(r"\s+")
#: A word with the space after it; the space that a line begins with is one as well.
_WORD: Final = re.compile(r"^\s+|\S+\s*")


def clean(text: str) -> str:
    """Return `text` without control characters; line ends and tabs stay."""
    return _CONTROL.sub("", _LINE_END.sub("\n", _ESCAPE.sub("", text)))


def one_line(text: str, width: int) -> str:
    """Return `text`, cleaned, on one line, cut to `width` characters with an ellipsis."""
    line = _SPACE.sub(" ", clean(text[: width * 8])).strip()
    if len(line) <= width:
        return line
    return line[: max(width - 1, 0)] + "…"


def tail(text: str, lines: int, width: int) -> str:
    """Return the end of `text`, cleaned: at most `lines` lines of at most `width` columns, broken between words.

    While the text grows, what is shown of it moves up and is seldom broken anew.
    """
    width = max(width, 2)
    most = lines * width
    start = max(len(text) - most - width, 0) // most * most
    rows = [row for line in clean(text[start:]).split("\n") for row in _rows(line, width)]
    return "\n".join(rows[-lines:])


def _rows(line: str, width: int) -> list[str]:
    """Return a line in rows of at most `width` columns; a word that is wider than one is broken."""
    rows, row, used = [], "", 0
    for word in _WORD.findall(line.expandtabs()):
        bare = word.rstrip()
        if row and used + cell_len(bare) > width:
            rows.append(row.rstrip())
            row, used = "", 0
        *whole, last = chop_cells(bare, width) or [""]
        rows += whole
        row += last + word[len(bare) :]
        used = cell_len(row)
    return [*rows, row.rstrip()]
