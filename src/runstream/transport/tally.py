"""Tally: how much of something is under way, how much may be, and what is said when that is reached."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runstream.model.errors import ResourceExhausted

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(frozen=True, slots=True)
class Counted:
    """What is counted: the setting that limits it, and how a refusal is told."""

    setting: str
    reason: str
    #: Completes "The server has 5 ", with what would be right.
    told: str
    #: In how many seconds to try again.
    retry_after: float


class Tally:
    """Counts what is under way. To take a place, `take` it and enter it as a block, whose end gives it back."""

    __slots__ = ("_counted", "_most", "count")

    def __init__(self, counted: Counted, most: int) -> None:
        """Let there be `most` at once; 0: any number."""
        self.count = 0
        self._counted = counted
        self._most = most or sys.maxsize

    def check(self, client: str = "") -> None:
        """Raise `ResourceExhausted` when all places are taken; `client` is whose they are, if they are one's."""
        if self.count >= self._most:
            raise self._full(client)

    def take(self) -> Tally:
        """Take a place, which must have been checked, and return what gives it back."""
        self.count += 1
        return self

    def __enter__(self) -> None:
        """Begin; the place is taken already."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Give the place back."""
        self.count -= 1

    def _full(self, client: str) -> ResourceExhausted:
        counted = self._counted
        whose = f"Client {client!r}" if client else "The server"
        metadata = {"limit": str(self._most), "current": str(self.count), "setting": counted.setting}
        return ResourceExhausted(
            counted.reason,
            f"{whose} has {self.count} {counted.told}",
            metadata=metadata | ({"client": client} if client else {}),
            retry_after=counted.retry_after,
        )
