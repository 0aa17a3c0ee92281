"""Source: where an agent of a framework comes from: it is given once, or made for each invocation."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from runstream.runner import Invocation

#: What is a framework's, whose types are not checked.
Theirs = Any


class Source:
    """What an adapter was given: an agent of its framework, or a function of the invocation that returns one."""

    def __init__(self, given: Theirs, fits: Callable[[Theirs], bool], what: str) -> None:
        """Take it. `fits` tells an agent of the framework, `what` says what that is. TypeError if it is neither."""
        if not fits(given) and not callable(given):
            raise TypeError(f"expected {what}, or a function of the invocation that returns one, not {_said(given)}")
        self.given = given
        self._fits = fits
        self._what = what

    async def agent(self, invocation: Invocation) -> Theirs:
        """Return the agent for an invocation. TypeError if the function has returned something else."""
        if self._fits(self.given):
            return self.given
        made = self.given(invocation)
        made = await made if inspect.isawaitable(made) else made
        if not self._fits(made):
            raise TypeError(f"the function that makes the agent must return {self._what}, not {_said(made)}")
        return made


def _said(given: Theirs) -> str:
    if given is None:
        return "None"
    hint = ": compile() it" if hasattr(given, "compile") else ""
    return f"a {type(given).__name__}{hint}"
