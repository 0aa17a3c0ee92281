"""The log of an execution as `runstream watch --changes` prints it: a line for every change."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

LONGEST_LINE = 96

_LINE = re.compile(r" *(\d+) (\S+Z) (.*)")
_ATTEMPT = re.compile(r"\battempt=(\d+)\b")


@dataclass(frozen=True, slots=True)
class Change:
    """One commit of an execution."""

    revision: int
    time: datetime
    what: str
    """Who did it, and what."""

    @property
    def attempt(self) -> int:
        """The number of the attempt that begins with it; 0 when none does."""
        found = _ATTEMPT.search(self.what) if self.what.startswith("system ") else None
        return int(found[1]) if found else 0

    @property
    def requeues(self) -> bool:
        """Whether the server puts the execution back into the queue with it."""
        return self.what.startswith("system ") and "phase=PENDING" in self.what

    def line(self) -> str:
        """Return it in a line that fits."""
        line = f"{self.revision:>5} {self.time:%H:%M:%S.%f}"[:-3] + f" {self.what}"
        return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1] + "…"


def changes_in(printed: str) -> list[Change]:
    """Read what was printed; whatever else stands there is left out."""
    found = (_LINE.fullmatch(line) for line in printed.splitlines())
    return [Change(int(each[1]), datetime.fromisoformat(each[2]), each[3]) for each in found if each]


def in_short(changes: list[Change]) -> list[str]:
    """Return the lines of a log that tell most: where it begins, changes hands and ends, each with its neighbours."""
    last = len(changes) - 1
    telling = [at for at, change in enumerate(changes) if change.requeues or change.attempt or at in {0, last}]
    near = sorted({near for at in telling for near in (at - 1, at, at + 1) if 0 <= near <= last})
    lines: list[str] = []
    before = -1
    for at in near:
        if at - before > 1:
            lines.append(f"    … {at - before - 1} more")
        lines.append(changes[at].line())
        before = at
    return lines
