"""Recency: which executions changed lately, newest last, each at most once.

Readers that follow many executions share this one list, each with a tick of its own. Its length is bounded; a reader
that fell behind the oldest tick is told so, and starts over from the store.
"""

from __future__ import annotations

from collections import OrderedDict

DEFAULT_CAPACITY = 65_536


class Recency:
    """Ids in the order of their last change. An id that changes again moves to the end."""

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        self._capacity = capacity
        self._ticks: OrderedDict[str, int] = OrderedDict()
        self._tick = 0
        self._forgotten = 0

    @property
    def tick(self) -> int:
        """The tick of the last change; a reader that starts now has seen everything up to it."""
        return self._tick

    def note(self, execution_id: str) -> None:
        """Take down that an execution changed."""
        self._tick += 1
        self._ticks[execution_id] = self._tick
        self._ticks.move_to_end(execution_id)
        if len(self._ticks) > self._capacity:
            _, self._forgotten = self._ticks.popitem(last=False)

    def since(self, tick: int) -> list[str] | None:
        """Return the ids that changed after `tick`, oldest change first; None when that is no longer known."""
        if tick < self._forgotten:
            return None
        newer: list[str] = []
        for execution_id in reversed(self._ticks):
            if self._ticks[execution_id] <= tick:
                break
            newer.append(execution_id)
        newer.reverse()
        return newer
