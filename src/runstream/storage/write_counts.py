"""Write counts: what the writer has put on disk, and what it could not. Filled once for each batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runstream.model.distribution import NUMBERS, SECONDS, Distribution

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(eq=False, slots=True)
class WriteCounts:
    """The writer's thread fills it, before the waiting commands hear of the batch; the event loop reads it."""

    commits: int = 0
    #: Keys and values, as given to the database.
    bytes: int = 0
    #: Batches that did not get to disk.
    failures: int = 0
    #: How often the database took writes again after that. The event loop counts it.
    recoveries: int = 0
    #: Transactions of each batch.
    batches: Distribution = field(default_factory=lambda: Distribution(NUMBERS))
    #: How long each batch took to be written and synced.
    seconds: Distribution = field(default_factory=lambda: Distribution(SECONDS))

    def note_batch(self, sizes: Sequence[int], seconds: float) -> None:
        """Count a batch that is on disk, by the sizes of its transactions; one of nothing but waiting is none."""
        if sizes:
            self.commits += len(sizes)
            self.bytes += sum(sizes)
            self.batches.note(len(sizes))
            self.seconds.note(seconds)
