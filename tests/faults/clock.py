"""A wall clock that somebody sets, for a server in a process of its own: from outside, at any moment."""

from __future__ import annotations

import mmap
import struct
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from runstream.dispatch.system_clock import SystemClock

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

#: How many seconds the wall clock is ahead, as one number that is written at once.
_AHEAD: Final = struct.Struct("=d")


class WallClock:
    """Whoever sets the clock: a file that both processes have mapped, which outlives them."""

    def __init__(self, file: Path) -> None:
        """Take the file; one that is missing is made, of a clock that is right."""
        if not file.exists():
            file.write_bytes(_AHEAD.pack(0.0))
        with file.open("r+b") as opened:
            self._mapped = mmap.mmap(opened.fileno(), _AHEAD.size)

    @property
    def ahead(self) -> float:
        """How many seconds it is ahead of the right time."""
        return float(_AHEAD.unpack_from(self._mapped)[0])

    def set_ahead(self, seconds: float) -> None:
        """Let it jump."""
        _AHEAD.pack_into(self._mapped, 0, seconds)


class SetClock(SystemClock):
    """The machine's clock, but that its wall time is as somebody has set it."""

    def __init__(self, wall: WallClock) -> None:
        self._wall = wall

    def now(self) -> datetime:
        """The wall time as it is set, in UTC."""
        return super().now() + timedelta(seconds=self._wall.ahead)
