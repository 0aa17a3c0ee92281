"""Outlets: the way out for the messages of one stream on the native engine.

The engine holds one message of a stream, beside what HTTP/2 has on its way, takes no further one before that is gone,
and has no way to tell when that is. So a message that it did not take is offered again: first at each turn of the event
loop, since a reader that keeps up makes room in microseconds, then after waits that grow, since one that stands still
may do so for hours, and there may be thousands of them.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

from pygrpc_native import STREAM_FULL, STREAM_SENT

if TYPE_CHECKING:
    from collections.abc import Callable

    #: Offers a message; STREAM_SENT, STREAM_FULL, or STREAM_CLOSED when the client has gone.
    Offer = Callable[[int, bytes], int]

#: After so many messages in a row a stream lets others have the event loop: nothing else would make it wait.
_MESSAGES_PER_TURN: Final = 16
#: For how many turns a message is offered before time is let pass: more for a reader that makes room in that time or
#: soon after, fewer for one that does not. A turn of an idle loop costs some microseconds of processor time.
_LEAST_TURNS: Final = 4
_MOST_TURNS: Final = 64
#: How long is waited then, in seconds, and how the waits grow. A reader that has stood still for a while and reads on
#: is late by half of that while, or by the longest wait.
_FIRST_WAIT: Final = 0.001
_GROWTH: Final = 1.5
_LONGEST_WAIT: Final = 1.0


class Outlet:
    """Sends the messages of one stream, each as soon as there is room for it."""

    def __init__(self, offer: Offer, call_id: int) -> None:
        self._offer = offer
        self._call_id = call_id
        self._sent = 0
        self._turns = _LEAST_TURNS

    def send_now(self, message: bytes) -> bool:
        """Send a message if there is room for it this instant; tell whether it is on its way."""
        return bool(self._offer(self._call_id, message) == STREAM_SENT)

    async def send(self, message: bytes) -> bool:
        """Send a message; return when it is on its way, or False when the client has gone."""
        self._sent += 1
        result = self._offer(self._call_id, message)
        if result == STREAM_FULL:
            result = await self._offer_again(message)
        elif self._sent % _MESSAGES_PER_TURN == 0:
            await asyncio.sleep(0)
        return bool(result == STREAM_SENT)

    async def _offer_again(self, message: bytes) -> int:
        for _ in range(self._turns):
            # The Rust threads make the room: where processors are few or busy, they must be let onto one.
            os.sched_yield()
            await asyncio.sleep(0)
            if (result := self._offer(self._call_id, message)) != STREAM_FULL:
                return result
        await asyncio.sleep(_FIRST_WAIT)
        if (result := self._offer(self._call_id, message)) != STREAM_FULL:
            self._turns = min(self._turns * 2, _MOST_TURNS)
            return result
        self._turns = max(self._turns // 2, _LEAST_TURNS)
        return await self._wait_for_room(message)

    async def _wait_for_room(self, message: bytes) -> int:
        wait = _FIRST_WAIT * _GROWTH
        while True:
            await asyncio.sleep(wait)
            if (result := self._offer(self._call_id, message)) != STREAM_FULL:
                return result
            wait = min(wait * _GROWTH, _LONGEST_WAIT)
