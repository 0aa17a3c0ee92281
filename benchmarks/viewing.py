"""Viewers in a process of their own: each watches one execution, and all of them note how old what they see is.

Whoever writes puts the time into the text, ``at=`` and nanoseconds of the clock that all processes of a machine share.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import selectors
import time
from array import array
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.machine import cores
from benchmarks.resources import watch
from benchmarks.wire import Connection, Messages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Event

_STAMP: Final = re.compile(rb"at=(\d+) ")
_PER_CONNECTION: Final = 100
_READY_SECONDS: Final = 120
_END_SECONDS: Final = 300


def stamp() -> str:
    """Return the time as viewers look for it."""
    return f"at={time.monotonic_ns()} "


@dataclass(frozen=True, slots=True)
class Viewers:
    """How many watch what, from after which revision."""

    address: str
    execution_id: str
    count: int
    after: int


class Viewing:
    """Viewers that are at it; `ages` says what they have seen once the execution has ended."""

    def __init__(self, answers: Queue[array[int]], processes: int) -> None:
        self._answers = answers
        self._processes = processes

    def ages(self) -> list[float]:
        """Wait for the end, and return how old every message was when it was seen, in seconds."""
        seen = [self._answers.get(timeout=_END_SECONDS) for _ in range(self._processes)]
        return [nanoseconds / 1e9 for ages in seen for nanoseconds in ages]


@contextmanager
def viewing(viewers: Viewers, processes: int) -> Iterator[Viewing]:
    """Have viewers, in so many processes, for the length of the block; all have seen a change when it begins."""
    spawn = multiprocessing.get_context("spawn")
    answers: Queue[array[int]] = spawn.Queue()
    ready = [spawn.Event() for _ in range(processes)]
    each = Viewers(viewers.address, viewers.execution_id, viewers.count // processes, viewers.after)
    workers = [spawn.Process(target=_process, args=(each, cores()[1], event, answers)) for event in ready]
    for worker in workers:
        worker.start()
    try:
        if not all(event.wait(_READY_SECONDS) for event in ready):
            raise RuntimeError("the viewers do not see anything")
        yield Viewing(answers, processes)
    finally:
        for worker in workers:
            worker.kill()
            worker.join()


def _process(viewers: Viewers, on: set[int], ready: Event, answers: Queue[array[int]]) -> None:
    os.sched_setaffinity(0, on)
    answers.put(_view(viewers, ready))
    answers.close()
    answers.join_thread()


def _view(viewers: Viewers, ready: Event) -> array[int]:
    """Watch until all streams have ended; return the ages of what had a time in it."""
    ages: array[int] = array("q")
    count = -(-viewers.count // _PER_CONNECTION)
    connections = [Connection(viewers.address) for _ in range(count)]
    streams: list[dict[int, Messages]] = [{} for _ in range(count)]
    waiting = set()
    with selectors.DefaultSelector() as selector:
        for number in range(viewers.count):
            place = number % count
            stream = connections[place].send(watch(viewers.execution_id, viewers.after))
            streams[place][stream] = Messages()
            waiting.add((place, stream))
        for place, connection in enumerate(connections):
            connection.flush()
            selector.register(connection.socket, selectors.EVENT_READ, place)
        while any(streams):
            for key, _ in selector.select():
                for piece in connections[key.data].read():
                    messages = streams[key.data][piece.stream].take(piece.data)
                    now = time.monotonic_ns()
                    ages.extend(now - int(found[1]) for message in messages if (found := _STAMP.search(message)))
                    if waiting and messages:
                        waiting.discard((key.data, piece.stream))
                        if not waiting:
                            ready.set()
                    if piece.ended:
                        del streams[key.data][piece.stream]
                connections[key.data].flush()
    return ages
