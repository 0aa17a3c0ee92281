"""What a soak does, one round after the other: each on a data folder of its own, for some seconds, from one seed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.end_to_end.siege import Siege
from tests.faults.barrage import Barrage
from tests.faults.faulty_server import FaultyServer
from tests.faults.full_disk import FullDisk
from tests.faults.kit import conclude, draw, strike
from tests.faults.small_disk import small_disk
from tests.faults.strangers import Crowd
from tests.faults.system import system
from tests.faults.torn_tails import TornTails

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path
    from random import Random

#: How many executions are begun in a second of a storm.
_PER_SECOND: Final = 2.5
_MOST_ACKNOWLEDGED: Final = 500
#: How many connections there are in a crowd.
_CROWD: Final = 2_000
_CROWDED: Final = 0.1


@dataclass(slots=True)
class Round:
    """One round: where, for how long, by which seed, and what it counts."""

    place: Path
    random: Random
    seconds: float
    tally: Counter[str]
    environment: Mapping[str, str]
    _turns: int = 0
    _begun: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    def goes_on(self) -> bool:
        """Whether to do more; once in any case."""
        self._turns += 1
        return self._turns == 1 or asyncio.get_running_loop().time() - self._begun < self.seconds

    def server(self, folder: str = "data") -> FaultyServer:
        """Make the server of the round."""
        settings = {"cancel_grace": 3600, "drain_timeout": 1}
        return FaultyServer(self.place / folder, place=self.place, environment=self.environment, **settings)


async def storm_round(this: Round) -> None:
    """Runners and people at work, struck with one fault after the other."""
    async with system(this.place / "data", this.random, environment=this.environment, tally=this.tally) as struck:
        struck.storm.submit(round(this.seconds * _PER_SECOND), seconds=this.seconds * 0.9)
        while this.goes_on():
            await strike(struck, Crowd(_CROWD) if this.random.random() < _CROWDED / 10 else draw(struck))
        await conclude(struck)


async def barrage_round(this: Round) -> None:
    """Every command, with the server killed in the middle of them."""
    server = this.server()
    try:
        await server.start()
        barrage = Barrage(server, this.random, this.tally)
        await barrage.learn()
        while this.goes_on():
            await barrage.fire()
    finally:
        await server.stop()


async def siege_round(this: Round) -> None:
    """Clients with a mixed load, and a server that is killed under it."""
    server = this.server()
    try:
        await server.start()
        siege = Siege(server, this.random)
        await siege.prepare()
        while this.goes_on():
            await siege.strike_at(this.random.randrange(_MOST_ACKNOWLEDGED))
            this.tally["server kills"] += 1
            await server.start()
        await siege.make_peace()
    finally:
        await server.stop()


async def disk_round(this: Round) -> None:
    """A disk that is full again and again, and a server that is killed on it."""
    with small_disk(this.place / "disk") as disk:
        server = this.server("disk/data")
        try:
            full = FullDisk(server, disk, this.random, this.tally)
            await full.prepare()
            while this.goes_on():
                await full.fill_and_free()
                await full.kill_while_full()
            await full.conclude()
        finally:
            await server.stop()


async def tail_round(this: Round) -> None:
    """Logs whose end is torn after a kill."""
    server = this.server()
    try:
        torn = TornTails(server, this.random, this.tally)
        while this.goes_on():
            await torn.tear_what_nobody_was_told()
            this.tally["server kills"] += 1
    finally:
        await server.stop()


#: Each kind of round with how often it is drawn.
ROUNDS: Final[Sequence[tuple[Callable[[Round], Awaitable[None]], float]]] = (
    (storm_round, 10),
    (barrage_round, 3),
    (siege_round, 2),
    (disk_round, 1),
    (tail_round, 1),
)


def draw_round(random: Random) -> Callable[[Round], Awaitable[None]]:
    """Draw what a round does."""
    rounds, weights = zip(*ROUNDS, strict=True)
    drawn: Callable[[Round], Awaitable[None]] = random.choices(rounds, weights)[0]
    return drawn
