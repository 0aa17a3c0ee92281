"""Outbox: what an agent has reported and the server has not yet; numbered, in order, each taken exactly once.

Text is gathered, and sent when 50 ms are over or 4 KiB have come together, in any case before what is reported after
it; while an earlier report is on its way it goes on gathering, so that a slow server gets fewer and larger ones.
Everything else is a delta of its own.

One delta is on its way at a time, under the next number (`sequence`), and is sent again under the same one until it is
answered. The server takes a number once. So nothing is lost and nothing doubled, whatever becomes of connection and
server meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from runstream.runner.batch import Batch
from runstream.runner.bell import Bell
from runstream.runner.errors import ReportClosed, ReportRefused
from runstream.runner.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runstream.v1.agent_execution_pb2 import AgentExecution, AgentExecutionStatus, AgentMessage

FLUSH_SECONDS: Final = 0.05
FLUSH_BYTES: Final = 4 << 10
#: The most that may be unsent before a report waits.
MOST_UNSENT: Final = 1 << 20
#: The most that is gathered into one delta, well below the 4 MiB and the 10,000 entries that the server takes.
MOST_GATHERED: Final = 1 << 20
MOST_MESSAGES: Final = 1_000


class Send(Protocol):
    """Sends one delta until the server has answered. Raises `Refusal` when the server does not take it."""

    async def __call__(self, delta: AgentExecutionStatus, sequence: int, replace: Sequence[str], /) -> AgentExecution:
        """Send `delta` as number `sequence`; `replace` names the fields that it replaces whole."""
        ...


@dataclass(frozen=True, slots=True)
class Receipt:
    """A delta that the server has taken. `before` is a revision known from before it was sent, so of before it."""

    before: int
    answer: AgentExecution


@dataclass(slots=True)
class _Parcel:
    delta: AgentExecutionStatus
    replace: Sequence[str]
    bytes: int
    receipt: asyncio.Future[Receipt] | None = None
    last: bool = False


class Outbox:
    """The unsent reports of one attempt. `run` sends them, and must be running for anything to be sent."""

    def __init__(self, send: Send, revision: int = 0) -> None:
        """Send by `send`; `revision` is the one that the execution is known to have."""
        self._send = send
        self._revision = revision
        self._sequence = 0
        self._queue: deque[_Parcel] = deque()
        self._batch: Batch | None = None
        self._ripening: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._added = 0
        self._done = 0
        self._finished = False
        self._closed = False
        self._refused: Refusal | None = None
        #: The execution is at its limit: all that is still taken is its end.
        self._full = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._more = Bell()
        self._less = Bell()

    async def append(self, message: AgentMessage) -> None:
        """Add text to a message: its `content_append`, and whatever else of it is new.

        Returns when it has been taken in, which is at once unless too much is unsent. Raises `ReportClosed`, and
        `ReportRefused` for an earlier report.
        """
        await self.room()
        loop = asyncio.get_running_loop()
        batch = self._batch
        if batch is None:
            batch = self._batch = Batch(loop.time())
            self._ripening = loop.call_later(FLUSH_SECONDS, self._ripen, batch)
        self._unsent += batch.add(message)
        if batch.bytes >= FLUSH_BYTES or loop.time() - batch.opened >= FLUSH_SECONDS:
            self._ripen(batch)
            await asyncio.sleep(0)  # an agent that never waits would keep the loop from sending
        if batch is self._batch and (batch.bytes >= MOST_GATHERED or len(batch) >= MOST_MESSAGES):
            self._seal()

    async def put(self, delta: AgentExecutionStatus, replace: Sequence[str] = ()) -> None:
        """Add a delta of its own; returns and raises as `append` does."""
        await self.room()
        self.post(delta, replace)

    async def record(self, delta: AgentExecutionStatus, *, gather: bool = False) -> Receipt:
        """Add a delta of its own, and return when it is on the server's disk. Raises as `append`, for this delta too.

        With `gather`, it takes along the text that is being gathered, in one commit.
        """
        await self.room()
        return await self._recorded(delta, gather=gather)

    async def finish(self, delta: AgentExecutionStatus) -> None:
        """Record the last delta, with the text that is being gathered. Nothing more is taken in from now on.

        The outbox is closed once the server has taken it. Raises `ReportClosed`, and `ReportRefused` when the server
        does not take it, or has not taken what was reported before it; it may then be finished otherwise.
        """
        if not self._finished:
            self._finished, last = True, self._added
            while self._done < last and not self._closed:
                await self._less.wait()
        refused, self._refused = self._refused, None
        if self._closed:
            raise ReportClosed
        if refused is not None:
            raise _told(refused)
        await self._recorded(delta, gather=True, last=True)

    def post(self, delta: AgentExecutionStatus, replace: Sequence[str] = ()) -> None:
        """Add a delta of its own without waiting for anything; nothing happens when nothing more is taken in."""
        if self._closed or self._finished or self._full:
            return
        self._seal()
        self._enqueue(_Parcel(delta, replace, delta.ByteSize()))

    async def room(self) -> None:
        """Return when there is room for more. Raises `ReportClosed`, and `ReportRefused` for an earlier report."""
        while True:
            self._check()
            if self._unsent < MOST_UNSENT:
                return
            await self._less.wait()

    async def flush(self) -> None:
        """Return when everything that was reported is on the server's disk. Raises as `room` does."""
        self._seal()
        last = self._added
        while self._done < last:
            self._check()
            await self._less.wait()
        self._check()

    def close(self) -> None:
        """Send nothing more. Whoever waits gets `ReportClosed`."""
        self._closed = True
        self._take_batch()
        self._send = _nothing_more  # who sends holds this outbox in turn: both are to go with the run
        for parcel in self._queue:
            _answer(parcel, ReportClosed())
        self._queue.clear()
        self._more.ring()
        self._less.ring()

    async def run(self) -> None:
        """Send until the outbox is closed. Raises `Refusal` when the execution is lost; the outbox is closed then."""
        self._loop = asyncio.get_running_loop()
        while not self._closed:
            parcel = self._next()
            if parcel is None:
                await self._more.wait()
            else:
                await self._deliver(parcel)

    async def _recorded(self, delta: AgentExecutionStatus, *, gather: bool, last: bool = False) -> Receipt:
        if gather and (batch := self._take_batch()) is not None:
            delta.MergeFrom(batch.delta())
        self._seal()
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._enqueue(_Parcel(delta, (), delta.ByteSize(), receipt, last))
        return await receipt

    def _check(self) -> None:
        if self._loop is not None and asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("an agent reports on its runner's loop; in a thread: invocation.wait(report.text(…))")
        if self._closed or self._finished:
            raise ReportClosed
        if self._refused is not None:
            raise _told(self._refused)

    def _ripen(self, batch: Batch) -> None:
        batch.ripe = True
        if batch is self._batch:
            self._more.ring()

    def _seal(self) -> None:
        """Put an end to gathering: what comes now comes after it."""
        if (batch := self._take_batch()) is not None:
            self._enqueue(_Parcel(batch.delta(), (), batch.bytes))

    def _take_batch(self) -> Batch | None:
        """Return the text that is being gathered, if there is any; it is the caller's now."""
        batch, self._batch = self._batch, None
        if batch is not None:
            self._unsent -= batch.bytes
            if self._ripening is not None:
                self._ripening.cancel()
                self._ripening = None
        return batch

    def _enqueue(self, parcel: _Parcel) -> None:
        self._unsent += parcel.bytes
        self._added += 1
        self._queue.append(parcel)
        self._more.ring()

    def _next(self) -> _Parcel | None:
        if not self._queue and self._batch is not None and self._batch.ripe:
            self._seal()
        return self._queue.popleft() if self._queue else None

    async def _deliver(self, parcel: _Parcel) -> None:
        self._sequence += 1
        before = self._revision
        try:
            answer = await self._send(parcel.delta, self._sequence, parcel.replace)
        except Refusal as refusal:
            if refusal.lost:
                _answer(parcel, ReportClosed())
                self.close()
                raise
            self._refuse(parcel, refusal)
        else:
            self._revision = max(before, answer.metadata.revision)
            _answer(parcel, Receipt(before, answer))
            if parcel.last:
                self.close()
        finally:
            self._unsent -= parcel.bytes
            self._done += 1
            self._less.ring()

    def _refuse(self, parcel: _Parcel, refusal: Refusal) -> None:
        """Tell whoever waits for this delta; if nobody does, whoever reports next.

        When the execution is at its limit, tell everybody: what comes after this need not be sent.
        """
        if parcel.receipt is None or refusal.full:
            self._refused = refusal
        _answer(parcel, _told(refusal))
        if refusal.full:
            self._full = True
            self._drop(refusal)

    def _drop(self, refusal: Refusal) -> None:
        """Send nothing of what waits to be sent."""
        self._take_batch()
        for parcel in self._queue:
            self._unsent -= parcel.bytes
            self._done += 1
            _answer(parcel, _told(refusal))
        self._queue.clear()


async def _nothing_more(_: AgentExecutionStatus, __: int, ___: Sequence[str]) -> AgentExecution:
    raise ReportClosed


def _told(refusal: Refusal) -> ReportRefused:
    return ReportRefused(refusal.message, refusal.reason) if refusal.full else ReportRefused(str(refusal))


def _answer(parcel: _Parcel, result: Receipt | Exception) -> None:
    receipt = parcel.receipt
    if receipt is None or receipt.done():
        return
    if isinstance(result, Receipt):
        receipt.set_result(result)
    else:
        receipt.set_exception(result)
