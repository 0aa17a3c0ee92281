"""A disk that refuses to take more for a while, in the middle of whatever it is told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.system import System


class RefuseWrites:
    """The log takes some bytes more, perhaps half a record, and then nothing; later the disk takes everything again."""

    async def strike(self, system: System) -> None:
        """Refuse for a while."""
        system.tally["disk refusals"] += 1
        system.server.refuse_writes(after=system.random.randrange(4_000))
        try:
            await asyncio.sleep(system.random.random())
        finally:
            system.server.take_writes()
