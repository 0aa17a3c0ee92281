"""Load: calls that are made over and over, so many at a time, and how fast they were answered."""

from __future__ import annotations

import selectors
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.spread import Spread
from benchmarks.wire import Broken, Call, Connection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.server_process import ServerProcess

#: How many connections a load of many calls at a time comes over: those of a handful of clients.
_CONNECTIONS: Final = 8


@dataclass(frozen=True, slots=True)
class Load:
    """What one load has shown: calls per second, seconds per call, and what the server used for them."""

    rate: float
    latency: Spread
    #: How much of its core the server has used, and for how long per call, in seconds.
    busy: float
    cpu: float


@dataclass(slots=True)
class _Place:
    """One of the calls at a time: which call it repeats, and when the one under way began."""

    call: Call
    begun: float = 0.0
    answered: bool = False


def load(target: ServerProcess, calls: Sequence[Call], total: int) -> Load:
    """Make every one of `calls` over and over, all of them at a time, until `total` are answered.

    Runs in this thread. `Broken` when a call is refused.
    """
    used = target.cpu_seconds
    begun = time.perf_counter()
    samples = _Repeating(target.address, calls).run(total)
    took = time.perf_counter() - begun
    used = target.cpu_seconds - used
    return Load(len(samples) / took, Spread.of(samples), used / took, used / len(samples))


class _Repeating:
    """The connections of a load, and what is under way on them."""

    def __init__(self, address: str, calls: Sequence[Call]) -> None:
        count = min(_CONNECTIONS, len(calls))
        self._connections = [Connection(address) for _ in range(count)]
        self._places = [[_Place(call) for call in calls[number::count]] for number in range(count)]
        self._under_way: list[dict[int, _Place]] = [{} for _ in range(count)]
        self._left = 0
        self._samples: list[float] = []

    def run(self, total: int) -> list[float]:
        """Return the seconds that each call took."""
        self._left = total
        with selectors.DefaultSelector() as selector:
            for number, connection in enumerate(self._connections):
                selector.register(connection.socket, selectors.EVENT_READ, number)
                for place in self._places[number]:
                    self._begin(number, place)
                connection.flush()
            while any(self._under_way):
                for key, _ in selector.select():
                    self._hear(key.data)
        for connection in self._connections:
            connection.close()
        return self._samples

    def _begin(self, number: int, place: _Place) -> None:
        if self._left <= 0:
            return
        self._left -= 1
        place.begun, place.answered = time.perf_counter(), False
        self._under_way[number][self._connections[number].send(place.call)] = place

    def _hear(self, number: int) -> None:
        connection, under_way = self._connections[number], self._under_way[number]
        for piece in connection.read():
            place = under_way[piece.stream]
            place.answered = place.answered or bool(piece.data)
            if piece.ended:
                if not place.answered:
                    raise Broken("a call was refused")
                del under_way[piece.stream]
                self._samples.append(time.perf_counter() - place.begun)
                self._begin(number, place)
        connection.flush()
