"""Processes that are stopped for a while, with their connections open, and go on as if nothing had been."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.faults.system import LEASE

if TYPE_CHECKING:
    from tests.faults.system import System


def _while(system: System) -> float:
    """Draw a time that is shorter than a lease, or longer."""
    return LEASE * system.random.choice((0.2, 0.6, 1.3, 2.0))


class FreezeServer:
    """SIGSTOP to the server, and SIGCONT."""

    async def strike(self, system: System) -> None:
        """Stop it for a while."""
        system.tally["server freezes"] += 1
        system.server.freeze()
        try:
            await asyncio.sleep(_while(system))
        finally:
            system.server.thaw()


class FreezeRunner:
    """SIGSTOP to a runner, and SIGCONT."""

    async def strike(self, system: System) -> None:
        """Stop one for a while."""
        system.tally["runner freezes"] += 1
        victim = system.random.choice(system.storm.running)
        victim.freeze()
        try:
            await asyncio.sleep(_while(system))
        finally:
            victim.thaw()
