"""Call counts: what has come and gone through the gate, for each method apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from runstream.model.distribution import SECONDS, Distribution

#: The codes of calls that no error has ended.
OK: Final = "OK"
CANCELLED: Final = "CANCELLED"


@dataclass(eq=False, slots=True)
class CallCounts:
    """The calls of one method, counted on the event loop. Who reads it finds what has been counted so far."""

    #: Calls that have come and not ended; for a method that streams, its open streams.
    open: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    #: Answers of streams.
    messages: int = 0
    #: Calls that have ended, by the name of their code.
    ended: dict[str, int] = field(default_factory=dict)
    #: How long calls with one answer took.
    seconds: Distribution = field(default_factory=lambda: Distribution(SECONDS))

    def note_end(self, code: str) -> None:
        """Count the end of a call."""
        self.open -= 1
        self.ended[code] = self.ended.get(code, 0) + 1
