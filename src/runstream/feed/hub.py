"""The hub: tells whoever waits that something was committed.

A wake is a flag. However many commits happen while a reader is busy, one flag is up when it comes back, and the reader
finds in the log what it missed. So nothing overflows, nothing is dropped, and a slow reader costs one flag.

A reader that waits has passed on every change so far, and a thousand of them would all come back to read the same one.
So a reader may leave an offer beside its flag, a way to pass on a message without it: the next change is given to that,
and the reader waits on. One that is not the next, or is not taken, puts the flag up. Nothing is kept here for later.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Final

from runstream.model.distribution import NUMBERS, Distribution
from runstream.model.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    #: Passes on a message this instant, or tells that it cannot; it does not raise.
    Offer = Callable[[bytes], bool]

#: The topic that every commit to any execution wakes.
ANY_EXECUTION = "*"
#: How many readers are looked at for the one that is furthest behind.
_LOOKED_AT: Final = 10_000
#: How many readers are given a change before others have the event loop: about a millisecond.
_GIVEN_AT_ONCE: Final = 200


class Wake:
    """One reader's flag. Clear it before reading, read, then wait: a commit in between is not missed."""

    def __init__(self, lag: Distribution) -> None:
        """Take where it is counted how far its reader was behind each time that it came back."""
        # An asyncio.Event would do; with a thousand readers of one execution it takes as long as all the rest.
        self._up = False
        self._waiting: asyncio.Future[None] | None = None
        self._closed = False
        self._lag = lag
        self._offer: Offer | None = None
        self._cursor = 0
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

    async def wait_in_step(self, cursor: int, offer: Offer | None) -> int:
        """Return when the flag is up; until then, changes after revision `cursor` go to `offer`, each if it takes it.

        Returns the revision of the last that it took, or `cursor`. The flag is up for all that came after that.
        """
        self._cursor, self._offer = cursor, offer
        try:
            await self.wait()
        finally:
            self._offer = None
        return self._cursor

    def give(self, revision: int, change: bytes) -> bool:
        """Give a change to a reader that is in step, or put the flag up; for the hub. Tell whether it was taken."""
        offer = self._offer
        # Once the flag is up, the reader goes on from the log: what it finds there must not have been passed on.
        if offer is None or self._up or revision != self._cursor + 1 or not offer(change):
            self.raise_flag()
            return False
        self._cursor = revision
        return True

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

    def wake(self, topic: str, change: tuple[int, bytes] | None = None) -> None:
        """Put up the flag of everyone who listens to `topic`. Call it after the commit is on disk.

        With `change`, its revision and encoding, which must be all that was committed to an execution, readers that are
        in step are given it instead, in the next turn of the event loop, and the flags of the others go up then.
        """
        readers = self._readers.get(topic)
        if readers is None:
            return
        self.wakes += len(readers)
        if change is None:
            for wake in readers:
                wake.raise_flag()
        else:
            # Later, so that whoever made the change has the answer before all these have the change.
            asyncio.get_running_loop().call_soon(self._give, list(readers), *change)

    def _give(self, readers: list[Wake], revision: int, change: bytes) -> None:
        """Give a change to some of the readers, and to the others after whatever else the event loop has to do.

        A later change is behind this one all the way, or else puts up the flag of a reader, who then reads both.
        """
        taken = sum([wake.give(revision, change) for wake in readers[:_GIVEN_AT_ONCE]])
        # They were as far behind as everybody is who is told of a commit.
        self.lag.note(1, taken)
        if left := readers[_GIVEN_AT_ONCE:]:
            asyncio.get_running_loop().call_soon(self._give, left, revision, change)

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
