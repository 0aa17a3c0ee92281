"""The hub: tells whoever waits that something was committed, and nothing of what it was.

A wake is a flag. However many commits happen while a reader is busy, one flag is up when it comes back, and the reader
finds in the log what it missed. So nothing overflows, nothing is dropped, and a slow reader costs one flag.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Final

from runstream.model.distribution import NUMBERS, Distribution
from runstream.model.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The topic that every commit to any execution wakes.
ANY_EXECUTION = "*"
#: How many readers are looked at for the one that is furthest behind.
_LOOKED_AT: Final = 10_000


class Wake:
    """One reader's flag. Clear it before reading, read, then wait: a commit in between is not missed."""

    def __init__(self, lag: Distribution) -> None:
        """Take where it is counted how far its reader was behind each time that it came back."""
        # An asyncio.Event would do; with a thousand readers of one execution it takes as long as all the rest.
        self._up = False
        self._waiting: asyncio.Future[None] | None = None
        self._closed = False
        self._lag = lag
        #: How many commits have put the flag up since its reader came to read the last time.
        self.behind = 0

    def clear(self) -> None:
        """Lower the flag. Raises `Unavailable` when the hub has closed."""
        if self._closed:
            raise shutting_down()
        if self.behind:
            self._lag.note(self.behind)
            self.behind = 0
        self._up = False

    async def wait(self) -> None:
        """Return when the flag is up."""
        if not self._up:
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None

    def raise_flag(self, *, closed: bool = False) -> None:
        """Put the flag up; for the hub."""
        self._closed = self._closed or closed
        self.behind += 1
        self._up = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


def shutting_down() -> Unavailable:
    """Make the error that ends a stream when the server stops."""
    return Unavailable(
        "SHUTTING_DOWN", "The server is shutting down. Connect again and continue from the last revision."
    )


class Hub:
    """Readers by topic. A topic is the id of an execution, or ``ANY_EXECUTION``."""

    def __init__(self) -> None:
        self._readers: dict[str, set[Wake]] = {}
        self._closed = False
        #: How many flags commits have put up, or found up.
        self.wakes = 0
        #: How many commits readers were behind when they came back to read.
        self.lag = Distribution(NUMBERS)

    @contextmanager
    def listen(self, topic: str) -> Iterator[Wake]:
        """Have a flag that goes up with every commit to `topic`, until the block is left."""
        wake = Wake(self.lag)
        if self._closed:
            wake.raise_flag(closed=True)
        readers = self._readers.setdefault(topic, set())
        readers.add(wake)
        try:
            yield wake
        finally:
            readers.discard(wake)
            if not readers and self._readers.get(topic) is readers:
                del self._readers[topic]

    def wake(self, topic: str) -> None:
        """Put up the flag of everyone who listens to `topic`. Call it after the commit is on disk."""
        readers = self._readers.get(topic)
        if readers is not None:
            self.wakes += len(readers)
            for wake in readers:
                wake.raise_flag()

    @property
    def listeners(self) -> int:
        """How many readers listen, over all topics."""
        return sum(len(readers) for readers in self._readers.values())

    @property
    def slowest(self) -> int:
        """How many commits the reader that is furthest behind has not come to read; of the first 10,000 readers."""
        readers = (wake.behind for readers in self._readers.values() for wake in readers)
        return max(islice(readers, _LOOKED_AT), default=0)

    def close(self) -> None:
        """End every reader with `Unavailable`, those that come later too."""
        self._closed = True
        for readers in self._readers.values():
            for wake in readers:
                wake.raise_flag(closed=True)
