"""Tool names: how names of tools are compared, here and by every model's provider.

What is lost of a name must not make it another tool's: to allow one would allow both. Punctuation may be lost, since
nobody tells tools apart by that; other letters and the end of a long name may not, and leave a digest.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Final

#: The longest name that every provider takes.
LONGEST: Final = 64
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9_-]")
_DIGITS: Final = 8


def sanitised(name: str) -> str:
    """Return the name that a tool is compared by: letters, digits, `_` and `-` of ASCII, at most 64.

    A name that has other letters or is longer ends with `_` and 8 hex digits of its SHA-256. Twice is as once.
    """
    normal = unicodedata.normalize("NFKC", name)
    plain = _FOREIGN.sub("_", normal)
    if normal.isascii() and len(normal) <= LONGEST:
        return plain
    digest = hashlib.sha256(normal.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    return f"{plain[: LONGEST - _DIGITS - 1]}_{digest}"
