"""Text: made fit for the wire, measured as the wire does, cut with a mark that says so, and split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The first two bits of a byte that does not begin a character in UTF-8.
_CONTINUES: Final = 0b1000_0000
_FIRST_BITS: Final = 0b1100_0000


def clean(text: str) -> str:
    """Return `text` as UTF-8 can write it: halves of characters are joined, or replaced when the other is missing."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def size(text: str) -> int:
    """Return how many bytes a clean text takes."""
    return len(text) if text.isascii() else len(text.encode())


def cut(text: str, most: int) -> str:
    """Return `text`, cleaned; if it takes more than `most` bytes, its beginning and a mark that says what is missing.

    The mark is counted in, so a cut text takes at most `most` bytes too, as long as the mark fits.
    """
    text = clean(text)
    total = size(text)
    if total <= most:
        return text
    kept = text.encode()[: max(0, most - _mark_size(total))].decode(errors="ignore")
    return kept + _mark(total - size(kept), total)


def pieces(text: str, most: int) -> Iterator[str]:
    """Split a clean text into pieces of at most `most` bytes (4 at least), between characters."""
    if size(text) <= most:
        yield text
        return
    data = text.encode()
    start = 0
    while start < len(data):
        end = min(start + most, len(data))
        while end < len(data) and data[end] & _FIRST_BITS == _CONTINUES:
            end -= 1
        yield data[start:end].decode()
        start = end


def _mark(missing: int, total: int) -> str:
    return f" […cut: {missing} of {total} bytes are missing]"


def _mark_size(total: int) -> int:
    return size(_mark(total, total))
