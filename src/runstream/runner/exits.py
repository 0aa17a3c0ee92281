"""Exits: what would end the process, raised by an agent or a tool, ends no more than that."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def exits_contained(whose: str) -> Iterator[None]:
    """Turn SystemExit and KeyboardInterrupt of `whose` code into a RuntimeError that names it.

    A task that raises one of them takes the runner's loop with it. Signals are heard by the runner, so neither is
    anybody's Ctrl-C.
    """
    try:
        yield
    except SystemExit as error:
        raise RuntimeError(f"{whose} called exit({error.code!r})") from error
    except KeyboardInterrupt as error:
        raise RuntimeError(f"{whose} raised KeyboardInterrupt") from error
