"""The job of a client, the same for every peer: told what to measure by lines of JSON, it answers with lines of JSON.

Only the standard library is used, since this runs in the environment of whatever peer it measures.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.peers.programs.counting import Seen, gone

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence

    from benchmarks.peers.programs.counting import Piece

Answer = dict[str, Any]

FINISHED, FAILED, UNFINISHED, MISSING = "finished", "failed", "unfinished", "missing"
_ENDED = {FINISHED, FAILED}
_AWAY_SECONDS = 0.05
_RETRY_SECONDS = 0.1
_SHORTEST_LOOK_SECONDS = 5.0


class Client(Protocol):
    """What a peer lets a client do."""

    async def connect(self) -> None:
        """Be ready to call."""
        ...

    async def create(self) -> str:
        """Start a trivial run; return its name when the peer has acknowledged it."""
        ...

    async def run(self) -> None:
        """Start a trivial run; return when its result is here."""
        ...

    async def begin(self, events: int, pause: float, *, joined: bool) -> str:
        """Start a run that emits `events` numbers, `pause` seconds apart; return its name.

        `joined` lets the peer send several at once, where it does that by itself.
        """
        ...

    def read(self, run: str, cursor: str | None) -> AsyncGenerator[Piece, None]:
        """Read what a run emits, from the start or after a cursor, until it ends."""
        ...

    async def state(self, run: str) -> str:
        """Tell what has become of a run: one of the four words above."""
        ...


class Follower:
    """A reader that connects again, by its cursor, whatever breaks."""

    def __init__(self, client: Client, run: str) -> None:
        self.seen = Seen()
        self.state = UNFINISHED
        self.ended_at = 0.0
        self._client = client
        self._run = run
        self._more = asyncio.Condition()
        self._last_error = ""

    async def follow(self) -> None:
        """Read until the run has ended."""
        while self.state not in _ENDED:
            with suppress(Exception):  # whatever a broken connection raises: what counts is what arrives
                await self._read()
            with suppress(Exception):
                self.state = await self._client.state(self._run)
            if self.state not in _ENDED:
                await asyncio.sleep(_RETRY_SECONDS)
        self.ended_at = time.monotonic()

    async def until(self, count: int) -> None:
        """Return when so many events were seen."""
        async with self._more:
            await self._more.wait_for(lambda: len(self.seen.numbers) >= count)

    async def _read(self) -> None:
        async with aclosing(self._client.read(self._run, self.seen.cursor)) as pieces:
            async for piece in pieces:
                self.seen.take(piece)
                async with self._more:
                    self._more.notify_all()


class Measuring:
    """The measurements, by name."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._follower: Follower | None = None
        self._following: asyncio.Task[None] | None = None
        self._run = ""
        self._before: list[int] = []

    async def connect(self) -> Answer:
        """Be ready."""
        await self._client.connect()
        return {}

    async def create(self, count: int, limit: float) -> Answer:
        """Start trivial runs, one after another."""
        return await _timed(self._client.create, count, 1, limit)

    async def run(self, count: int, in_flight: int, limit: float) -> Answer:
        """Start trivial runs and wait for each one's result, so many at a time."""
        return await _timed(self._client.run, count, in_flight, limit)

    async def stream(self, events: int, limit: float, *, joined: bool) -> Answer:
        """Read one run from its start to its end."""
        seen, begun, last, whole = Seen(), time.perf_counter(), 0.0, False
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                run = await self._client.begin(events, 0.0, joined=joined)
                while len(seen.numbers) < events:
                    async with aclosing(self._client.read(run, seen.cursor)) as pieces:
                        async for piece in pieces:
                            seen.take(piece)
                            last = time.perf_counter()
                whole = True
        return {"seen": len(seen.numbers), "elapsed": last - begun, "in_time": whole, **seen.compared(events)}

    async def resume(self, events: int, places: Sequence[int], limit: float) -> Answer:
        """Read one run, dropping the connection each time so many events were seen."""
        seen, drops, whole = Seen(), 0, False
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                run = await self._client.begin(events, 0.0, joined=False)
                for place in places:
                    drops += await self._read_until(run, seen, place)
                    await asyncio.sleep(_AWAY_SECONDS)
                await self._read_until(run, seen, None)
                whole = True
        return {"seen": len(seen.numbers), "drops": drops, "in_time": whole, **seen.compared(events)}

    async def follow(self, events: int, pause: float, seen: int, limit: float) -> Answer:
        """Begin a run, and answer when so many of its events were seen; go on reading."""
        self._run = await self._client.begin(events, pause, joined=False)
        self._follower = Follower(self._client, self._run)
        self._following = asyncio.create_task(self._follower.follow())
        async with asyncio.timeout(limit):
            await self._follower.until(seen)
        return {}

    async def after(self, events: int, since: float, limit: float) -> Answer:
        """Tell what became of that run, and of what was seen of it, since it was killed at `since` (monotonic)."""
        follower, following = self._follower, self._following
        if follower is None or following is None:
            raise RuntimeError("nothing is followed")
        await asyncio.wait([following], timeout=limit)
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        finished = follower.state == FINISHED
        answer: Answer = {"state": follower.state, "seconds": follower.ended_at - since if finished else None}
        again = await self._again(events)
        return answer | follower.seen.compared(events) | {"gone": gone(self._before, again)}

    async def killed(self) -> Answer:
        """Remember what was seen until the kill."""
        self._before = list(self._follower.seen.numbers) if self._follower else []
        return {"seen": len(self._before)}

    async def _again(self, events: int) -> list[int]:
        """Read the run from its start, as somebody who comes later."""
        seen = Seen()
        with suppress(Exception):  # what cannot be read is not there
            async with (
                asyncio.timeout(_SHORTEST_LOOK_SECONDS),
                aclosing(self._client.read(self._run, None)) as pieces,
            ):
                async for piece in pieces:
                    seen.take(piece)
                    if len(seen.numbers) >= events:
                        break
        return seen.numbers

    async def _read_until(self, run: str, seen: Seen, place: int | None) -> bool:
        """Read until so many were seen, or to the end; return whether the connection was dropped before that."""
        async with aclosing(self._client.read(run, seen.cursor)) as pieces:
            async for piece in pieces:
                seen.take(piece)
                if place is not None and len(seen.numbers) >= place:
                    return True
        return False


async def _timed(once: Callable[[], Awaitable[object]], count: int, in_flight: int, limit: float) -> Answer:
    """Do it so often, so many at a time, and begin none after the limit."""
    seconds: list[float] = []
    begun = time.perf_counter()

    def left() -> Iterator[None]:
        for _ in range(count):
            if time.perf_counter() - begun > limit:
                return
            yield

    turns = left()

    async def caller() -> None:
        for _ in turns:
            at = time.perf_counter()
            await once()
            seconds.append(time.perf_counter() - at)

    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return {"seconds": seconds, "elapsed": time.perf_counter() - begun}


async def _serve(client: Client) -> None:
    measuring = Measuring(client)
    out = sys.stdout
    sys.stdout = sys.stderr  # what a library prints is no answer
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        try:
            answer = await getattr(measuring, asked.pop("do"))(**asked)
        except Exception as error:  # noqa: BLE001  # told to the one who asked
            answer = {"error": f"{type(error).__name__}: {error}"}
        out.write(json.dumps(answer) + "\n")
        out.flush()


def main(client: Client) -> None:
    """Answer until standard input ends."""
    asyncio.run(_serve(client))
