"""Asking: questions to the person at the terminal, which Ctrl-C ends as it ends everything else."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Final

import typer

from runstream.cli.failure import Failure, Misuse
from runstream.cli.plain_text import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

_ANSWERS: Final = {"y": True, "yes": True, "n": False, "no": False, "": False}
#: A terminal hands over a line at a time, and none is longer.
_LONGEST_LINE: Final = 1 << 16


def is_possible() -> bool:
    """Whether there is a terminal to ask on."""
    return sys.stdin.isatty()


async def ask(prompt: str) -> str:
    """Ask for a line of text until there is one. Raises `Failure` when the person ends the input instead."""
    while True:
        line = await _answer(prompt)
        if line is None:
            raise Failure("there was no answer", code="DECLINED")
        if line:
            return line


async def confirm_deletion(what: Sequence[str], consequence: str, *, yes: bool) -> None:
    """Ask whether to delete. Raises `Failure` when the answer is no, `Misuse` when there is no terminal to ask on."""
    if yes:
        return
    if not is_possible():
        raise Misuse("nothing was deleted: there is no terminal to ask on; add --yes")
    agreed = None
    while agreed is None:
        line = await _answer(f"Delete {', '.join(what)}{consequence}? [y/N]:")
        agreed = _ANSWERS.get((line or "").lower())
    if not agreed:
        raise Failure("nothing was deleted", code="DECLINED")


async def _answer(prompt: str) -> str | None:
    """Return the line that a person types, without the space around it; None when the person ended the input."""
    typer.echo(f"{clean(prompt)} ", nl=False, err=True)
    loop, typed, terminal = asyncio.get_running_loop(), asyncio.Event(), sys.stdin.fileno()
    # A read that blocks would keep the event loop from hearing Ctrl-C.
    loop.add_reader(terminal, typed.set)
    try:
        await typed.wait()
    finally:
        loop.remove_reader(terminal)
    line = os.read(terminal, _LONGEST_LINE)
    return line.decode(errors="replace").strip() if line else None
