"""Slugs and names: what a machine and what a person reads in place of an id."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

from slugify import slugify

#: The longest name and slug, in characters, as in the proto.
LONGEST: Final = 200
#: How far into a message a name is looked for; a hostile message may have a megabyte of blanks.
_LOOKED_AT: Final = 2_000
#: They join the parts of one emoji or one word, and are no more a control than a letter is.
_JOINERS: Final = "\u200c\u200d"


@lru_cache(1_024)
def slugify_name(name: str) -> str:
    """Make the slug of a name: lower-case ASCII words joined by `-`, at most 200 characters.

    Other scripts are written in Latin letters. The slug is empty when no letter or digit is left.
    """
    # A name is text, not HTML: `&lt;` in it is the letters l and t.
    slug: str = slugify(name, max_length=LONGEST, entities=False, decimal=False, hexadecimal=False)
    return slug


def first_words(message: str, limit: int = 60) -> str:
    """Make a name of the first words of a message, in at most `limit` (and 200) characters.

    White space is collapsed, control characters count as such; a first word that is longer than
    the limit is cut. The name is empty when the message begins with nothing that can be read.
    """
    limit = min(limit, LONGEST)
    name = ""
    for word in _readable(message.lstrip()[:_LOOKED_AT]).split():
        longer = f"{name} {word}" if name else word[:limit]
        if len(longer) > limit:
            break
        name = longer
    return name


def _readable(text: str) -> str:
    return re.sub(r"[^\w ]", _blank_if_control, text)


def _blank_if_control(match: re.Match[str]) -> str:
    character = match.group()
    is_control = unicodedata.category(character).startswith("C") and character not in _JOINERS
    return " " if is_control else character
