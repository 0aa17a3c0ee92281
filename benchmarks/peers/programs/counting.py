"""What a reader has seen, next to what was emitted: numbers from 0 on, each once, in order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Piece:
    """What arrived at once: the events by number, and where to go on after them by the peer's own means.

    `restated` is said of a state from which the events so far can be read: it takes the place of what was seen.
    """

    cursor: str
    numbers: list[int]
    restated: bool = False


@dataclass(slots=True)
class Seen:
    """What one reader has seen, over all of its connections."""

    numbers: list[int] = field(default_factory=list)
    cursor: str | None = None

    def take(self, piece: Piece) -> None:
        """Take what arrived."""
        if piece.restated:
            self.numbers = list(piece.numbers)
        else:
            self.numbers += piece.numbers
        self.cursor = piece.cursor

    def compared(self, emitted: int) -> dict[str, int]:
        """Tell how many of the numbers below `emitted` are lost, how many came more than once, how many too early."""
        times = Counter(self.numbers)
        return {
            "emitted": emitted,
            "lost": sum(number not in times for number in range(emitted)),
            "duplicated": sum(count - 1 for count in times.values()),
            "disordered": sum(later < earlier for earlier, later in zip(self.numbers, self.numbers[1:], strict=False)),
        }


def gone(before: Iterable[int], after: Iterable[int]) -> int:
    """Count the events that were seen before and are not found after."""
    return len(set(before) - set(after))
