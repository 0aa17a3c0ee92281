"""The kit: every fault there is, and a system that is struck with them while it works."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from tests.faults.cuts import Block, Cut
from tests.faults.freezes import FreezeRunner, FreezeServer
from tests.faults.jumps import JumpClock
from tests.faults.kills import EndRunner, EndServer, KillBoth, KillRunner, KillServer
from tests.faults.refusals import RefuseWrites
from tests.faults.strangers import Crowd, Hostility

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.faults.fault import Fault
    from tests.faults.system import System

#: Each with how often it is drawn.
FAULTS: Final[Sequence[tuple[Fault, float]]] = (
    (KillServer(), 6),
    (KillRunner(), 8),
    (KillBoth(), 2),
    (EndServer(), 1),
    (EndRunner(), 1),
    (FreezeServer(), 1),
    (FreezeRunner(), 1),
    (Cut(), 8),
    (Block(), 2),
    (RefuseWrites(), 2),
    (JumpClock(), 2),
    (Crowd(), 1),
    (Hostility(), 1),
)
#: At most so many changes are seen from one fault to the next.
_MOST_CHANGES: Final = 40
#: How long it may take until all work is done once nothing is broken any more.
SETTLE_SECONDS: Final = 90


def draw(system: System) -> Fault:
    """Draw a fault, the frequent ones more often."""
    faults, weights = zip(*FAULTS, strict=True)
    drawn: Fault = system.random.choices(faults, weights)[0]
    return drawn


async def strike(system: System, fault: Fault) -> None:
    """Strike at a moment that is not foreseen."""
    if system.random.random() < 2 / 3:
        await system.storm.progress(system.random.randrange(_MOST_CHANGES))
    await asyncio.sleep(system.random.random() * 0.1)
    await fault.strike(system)


async def conclude(system: System) -> None:
    """Wait for all work to end, and check everything that anybody was told against what is on disk."""
    await system.storm.settled(SETTLE_SECONDS)
    await system.storm.conclude()
