"""Memory: what the server has resident when much is stored, many read slowly, and one execution is very long.

Resident memory has two parts: the server's own, and files that it has mapped, libraries and tables of the database,
which the kernel takes away when others need the room. Both are told; the target is for the sum.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from benchmarks.figure import Figure, Measurement
from benchmarks.flat_cost import grow
from benchmarks.lists import pages
from benchmarks.load import load
from benchmarks.population import populate
from benchmarks.resources import Resources, text, watch
from benchmarks.server_process import server
from benchmarks.wire import Connection, Messages, answer

if TYPE_CHECKING:
    from benchmarks.figure import Run
    from benchmarks.server_process import Memory, ServerProcess

_MB: Final = 10**6
_MOST: Final = 200
_READERS: Final = 1_000
_PER_CONNECTION: Final = 100
#: What a reader takes before it stops reading: the least that HTTP/2 begins with.
_WINDOW: Final = 16_384
_BYTES: Final = 512
_SETTLE_SECONDS: Final = 2.0


def measure(run: Run) -> Measurement:
    """Measure the three, each with a server of its own."""
    stored, readers = run.of(1_000_000, 50_000), run.of(_READERS, 200)
    length = run.of(100_000, 5_000)
    idle, asked = _idle(run, stored)
    slow = _slow_readers(run, readers, run.of(2_000, 500))
    long = _long(run, length)
    return Measurement(
        figures=[
            *_figures(f"memory, idle, {stored:,} executions stored", idle),
            Figure("  after a page of every filter", asked.resident / _MB, "MB"),
            *_figures(f"memory, {readers:,} slow Watch readers", slow),
            *_figures(f"memory, one execution of {length:,} changes, live", long),
            Figure("  at most", long.peak / _MB, "MB"),
        ],
        conditions="VmRSS; slow readers stop reading after 16 KiB of a log that is longer, and goes on growing; the"
        " long execution is watched from its beginning by one reader, which keeps up",
        seen={"idle": _seen(idle), "asked": _seen(asked), "slow readers": _seen(slow), "long": _seen(long)},
    )


def _idle(run: Run, stored: int) -> tuple[Memory, Memory]:
    population = populate(run.kept, stored, run.seed)
    with server(population.data, **run.settings) as target:
        time.sleep(_SETTLE_SECONDS)
        idle = target.memory
        connection = Connection(target.address)
        for call in pages(population).values():
            answer(connection, call)
        connection.close()
        return idle, target.memory


def _slow_readers(run: Run, readers: int, updates: int) -> Memory:
    """Have readers begin at the log's beginning and stop reading, while it goes on growing."""
    with server(run.scratch / "memory-slow", **run.settings) as target, Resources(target.address) as resources:
        execution_id = resources.at_work(resources.agent())
        _stream(target, execution_id, updates)
        connections = [Connection(target.address, window=_WINDOW) for _ in range(-(-readers // _PER_CONNECTION))]
        for number in range(readers):
            connections[number % len(connections)].send(watch(execution_id))
        for connection in connections:
            connection.flush()
        time.sleep(_SETTLE_SECONDS)
        _stream(target, execution_id, updates)
        time.sleep(_SETTLE_SECONDS)
        memory = target.memory
        for connection in connections:
            connection.close()
        return memory


def _long(run: Run, length: int) -> Memory:
    with server(run.scratch / "memory-long", **run.settings) as target, Resources(target.address) as resources:
        execution_id = resources.at_work(resources.agent())
        grow(target, execution_id, length)
        connection = Connection(target.address)
        connection.send(watch(execution_id))
        connection.flush()
        messages, seen = Messages(), 0
        while seen < length:
            seen += sum(len(messages.take(piece.data)) for piece in connection.read())
        memory = target.memory
        connection.close()
        return memory


def _stream(target: ServerProcess, execution_id: str, updates: int) -> None:
    load(target, [text(execution_id, _BYTES)] * 16, updates)


def _figures(name: str, memory: Memory) -> list[Figure]:
    return [
        Figure(name, memory.resident / _MB, "MB", _MOST),
        Figure("  its own", memory.anonymous / _MB, "MB"),
        Figure("  files mapped", memory.file / _MB, "MB"),
    ]


def _seen(memory: Memory) -> dict[str, int]:
    return {name: getattr(memory, name) for name in ("resident", "anonymous", "file", "peak")}
