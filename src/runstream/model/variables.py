"""Variables of the environment: which of those with our prefix nobody reads, and what a misspelt one was to be."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PREFIX: Final = "RUNSTREAM_"
#: From which likeness on a name is taken for a misspelt one.
_ALIKE: Final = 0.75
#: What Kubernetes sets in every container of a namespace that has a service with a name like ours.
_OF_A_SERVICE: Final = re.compile(r"(.*_)?(SERVICE_(HOST|PORT.*)=.*|PORT_\d+_(TCP|UDP|SCTP).*|PORT=\w+://.*)")


def unknown_variables(environment: Mapping[str, str], known: Iterable[str]) -> dict[str, str]:
    """Return the variables with our prefix that are none of those known, each with the one that is most like it.

    That is empty where none is alike. Upper and lower case are one. A variable without a value is one that is not set.
    """
    names = set(known)
    return {
        variable: nearest(variable.upper(), names)
        for variable, value in environment.items()
        if value and variable.upper().startswith(PREFIX) and variable.upper() not in names
        if not _OF_A_SERVICE.fullmatch(f"{variable.removeprefix(PREFIX)}={value}")
    }


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most like `name`; empty when none is alike. Our prefix is no likeness."""
    bare = {each.removeprefix(PREFIX): each for each in sorted(known)}
    found = difflib.get_close_matches(name.removeprefix(PREFIX), bare, n=1, cutoff=_ALIKE)
    return bare[found[0]] if found else ""
