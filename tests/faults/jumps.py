"""Wall clocks that somebody sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.faults.system import System

#: Idempotency keys are kept for a day by the wall clock, so that it may not run ahead by more.
_FARTHEST: Final = 6 * 3600


class JumpClock:
    """The server's wall clock is set forwards or backwards, by a little or by hours; it stays there over restarts."""

    async def strike(self, system: System) -> None:
        """Set it, mostly wrong."""
        system.tally["clock jumps"] += 1
        farthest = system.random.choice((0, 1, 60, _FARTHEST))
        system.server.clock.set_ahead(system.random.uniform(-farthest, farthest))
