"""Ids: `<prefix>_<ulid in lower case>`, as in `aex_01jd3v9k2mexampleexample00`.

A ULID is a number of 128 bits: 48 of milliseconds since 1970, 80 of randomness. In text it has 26
characters of Crockford's base 32, so that ids of one prefix sort as text in the order they were
made.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

AGENT: Final = "agt"
AGENT_INSTANCE: Final = "ain"
SESSION: Final = "ses"
AGENT_EXECUTION: Final = "aex"
#: The entries of a status that came without an id of the runner's.
MESSAGE: Final = "msg"
TOOL_CALL: Final = "tcl"
SUB_AGENT: Final = "sub"
USAGE: Final = "usg"

_RANDOM_BYTES: Final = 10
_RANDOM_BITS: Final = 80
#: So many of the 26 characters are the time.
_TIME_DIGITS: Final = 10
_LAST_MILLIS: Final = (1 << 48) - 1
_LAST_ULID: Final = (1 << 128) - 1
_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
#: Crockford's digits in pairs, ten bits each: thirteen pairs are the text of a ULID.
_PAIRS: Final = tuple(high + low for high in _DIGITS for low in _DIGITS)
_SHIFTS: Final = tuple(range(120, -1, -10))
#: From Crockford's digits to those that `int` reads.
_AS_INT_READS: Final = str.maketrans(_DIGITS, "0123456789abcdefghijklmnopqrstuv")
#: The first character holds the three highest bits only.
_ID: Final = re.compile(r"[a-z]{3}_([0-7][0-9a-hjkmnp-tv-z]{25})")


class IdSource:
    """Makes ids, each greater than all before it, even when the clock stands still or jumps back.

    For one thread. `now_ms` tells milliseconds since 1970; `random(n)` gives n random bytes.
    """

    def __init__(self, now_ms: Callable[[], int], random: Callable[[int], bytes]) -> None:
        self._now_ms = now_ms
        self._random = random
        self._last = -1

    def new(self, prefix: str) -> str:
        """Make an id; OverflowError once the last ULID there can be was made or observed."""
        millis = min(max(self._now_ms(), 0), _LAST_MILLIS)
        if millis > self._last >> _RANDOM_BITS:
            fresh = int.from_bytes(self._random(_RANDOM_BYTES), "big")
            value = (millis << _RANDOM_BITS) | fresh
        else:
            # One more than the last. When its random part is full, the carry moves on to the next
            # millisecond, which is what keeps the order.
            value = self._last + 1
        if value > _LAST_ULID:
            raise OverflowError("There is no ULID after the last one.")
        self._last = value
        return f"{prefix}_{_text(value)}"

    def observe(self, resource_id: str) -> None:
        """Make no id any more that sorts before this one, as found on disk.

        ValueError for a malformed id.
        """
        self._last = max(self._last, _number(resource_id))


def ulid_millis(resource_id: str) -> int:
    """Tell when an id was made, in milliseconds since 1970; ValueError for a malformed id."""
    return int(_ulid(resource_id)[:_TIME_DIGITS].translate(_AS_INT_READS), 32)


def first_id_at(prefix: str, millis: int) -> str:
    """Return the smallest id of a millisecond, to begin or end a range with.

    ValueError for a time that no ULID can hold: before 1970, or in the year 10889 and later.
    """
    if not 0 <= millis <= _LAST_MILLIS:
        raise ValueError(f"An id cannot hold {millis} ms; it holds 0 to {_LAST_MILLIS}.")
    return f"{prefix}_{_text(millis << _RANDOM_BITS)}"


def is_id(prefix: str, text: str) -> bool:
    """Tell whether a text is an id with this prefix."""
    return text.startswith(f"{prefix}_") and _ID.fullmatch(text) is not None


def _text(value: int) -> str:
    return "".join([_PAIRS[value >> shift & 0x3FF] for shift in _SHIFTS])


def _number(resource_id: str) -> int:
    return int(_ulid(resource_id).translate(_AS_INT_READS), 32)


def _ulid(resource_id: str) -> str:
    found = _ID.fullmatch(resource_id)
    if found is None:
        raise ValueError(f"{resource_id!r} is not an id: a prefix, `_`, and a ULID in lower case.")
    return found[1]
