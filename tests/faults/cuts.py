"""Paths between the server and the others that break, or carry nothing for a while."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.faults.system import LEASE

if TYPE_CHECKING:
    from tests.end_to_end.blocked import BlockedPath
    from tests.faults.system import System


def _path(system: System) -> BlockedPath:
    return system.random.choice((system.to_people, system.to_runners))


class Cut:
    """All connections over a path are reset, some times in a row: to the server it is as if all there were killed."""

    async def strike(self, system: System) -> None:
        """Cut one path, and let them come back in between."""
        path = _path(system)
        for _ in range(system.random.randrange(1, 5)):
            path.cut()
            system.tally["paths cut"] += 1
            await asyncio.sleep(system.random.random() * 0.3)


class Block:
    """A path carries nothing in one direction or in both, and nobody is told: both ends are half open."""

    async def strike(self, system: System) -> None:
        """Block one path for a while; what has waited arrives, or is lost with its connections."""
        path = _path(system)
        system.tally["paths blocked"] += 1
        system.random.choice((path.to_server.block, path.to_runner.block, path.block))()
        try:
            await asyncio.sleep(LEASE * system.random.choice((0.2, 0.6, 1.5)))
        finally:
            if system.random.random() < 0.5:
                path.cut()
            path.free()
