"""Checks: whether an agent has changed itself while it was used."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from runstream.runner.fingerprint import Fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Whoever wants all pools of this process to be checked. Not a context variable: a test's fixtures, its server and its
#: runners need not share one.
_WANTED: set[object] = set()


@contextmanager
def pools_checked() -> Iterator[None]:
    """Have every pool check its agents that has not been told otherwise, for the length of the block."""
    wish = object()
    _WANTED.add(wish)
    try:
        yield
    finally:
        _WANTED.discard(wish)


def watch(agent: object, check: bool | None, ignore: frozenset[str]) -> Callable[[], list[str]]:  # noqa: FBT001  # as given
    """Look at an agent, and return what looks again: it returns the paths of what has changed. Nothing if unchecked."""
    if not (bool(_WANTED) if check is None else check):
        return list
    before = Fingerprint(agent, ignore)
    return lambda: before.changes(Fingerprint(agent, ignore))
