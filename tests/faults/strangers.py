"""Those who have no business with the server: a crowd that only connects, and one who sends what hurts."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

from grpc import aio

from tests.faults.crowd import crowd
from tests.faults.hostile import HostileMessages
from tests.faults.onslaught import Onslaught
from tests.making import NOWHERE
from tests.process import CHANNEL_OPTIONS

if TYPE_CHECKING:
    from tests.faults.system import System


class Crowd:
    """Connections by the hundred that do nothing good, while the others work on."""

    def __init__(self, number: int = 150) -> None:
        """Take how many there are to be."""
        self._number = number

    async def strike(self, system: System) -> None:
        """Let them stay until those who follow have seen more."""
        victim = system.storm.executions[-1].id if system.storm.executions else f"aex_{NOWHERE}"
        async with crowd(system.server.address, self._number, Random(system.random.random()), victim) as number:
            system.tally["connections that do nothing"] += number
            await system.storm.progress(20)


class Hostility:
    """One hostile message to each method, of names that are nobody's: what is at work is not theirs to end."""

    async def strike(self, system: System) -> None:
        """Send them, and take only clear answers."""
        async with aio.insecure_channel(system.server.address, options=CHANNEL_OPTIONS) as channel:
            onslaught = Onslaught(channel, HostileMessages(Random(system.random.random()), most_bytes=1 << 20))
            await asyncio.wait_for(onslaught.run(1), 120)
        system.tally["hostile messages"] += onslaught.sent.total()
