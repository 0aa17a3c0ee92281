"""Quiet: when a draining server has taken in the calls that were on their way to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runstream.transport.gate import Gate

#: How often the event loop must have come round with no new call before it counts as quiet, however busy it is.
_TURNS = 20
#: How long it must have been quiet at most, however much time there is to drain.
_SECONDS = 0.2


def quiet_seconds(grace: float) -> float:
    """How long no call must have come: 0.2 s or a fiftieth of `grace`, the shorter."""
    return min(grace / 50, _SECONDS)


async def until_quiet(gate: Gate, grace: float) -> None:
    """Return when no call has come for that long, or after five times that in all; the gate must drain.

    The calls are held until then: clients that were refused at once would call again on the same connections, and it
    would never become quiet.
    """
    for _ in range(5):
        held = gate.held
        for _ in range(_TURNS):
            await asyncio.sleep(quiet_seconds(grace) / _TURNS)
        if held == gate.held:
            break
