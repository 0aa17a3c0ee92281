"""Limits: how long and how large the log of one execution may become.

Whatever is reported counts, and sub-executions that are asked for. What people do, and halts, have some room beyond
that. What ends an execution is always taken, and so is what the server has to write: one at its limit can do nothing
but end, and that it can.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from runstream.model.errors import ResourceExhausted
from runstream.services.executions.loading import LOADED
from runstream.storage.records import EXECUTION_HEAD

if TYPE_CHECKING:
    from runstream.pipeline.context import RequestContext
    from runstream.stored.v1.stored_pb2 import ExecutionHead

#: The room beyond the limits for what people do, and for halts.
MORE_CHANGES: Final = 1_000
MORE_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class ExecutionLimits:
    """How many changes the log of an execution may have, and how many bytes they may take."""

    changes: int
    bytes: int

    @classmethod
    def of(cls, changes: int, size: int) -> ExecutionLimits:
        """Make the limits of settings, where 0 means none."""
        return cls(changes or sys.maxsize, size or sys.maxsize)

    def check(self, execution_id: str, head: ExecutionHead, *, more: bool = False) -> None:
        """Raise `ResourceExhausted` when an execution that comes to `head` would be beyond its limits.

        With `more`, it may use the room beyond them. Reasons EXECUTION_TOO_LONG, EXECUTION_TOO_LARGE.
        """
        if head.revision <= self.changes and head.log_bytes <= self.bytes:
            return
        if more and head.revision <= self.changes + MORE_CHANGES and head.log_bytes <= self.bytes + MORE_BYTES:
            return
        raise self._beyond(execution_id, head)

    def _beyond(self, execution_id: str, head: ExecutionHead) -> ResourceExhausted:
        if head.revision > self.changes:
            reason, setting, limit, current = "EXECUTION_TOO_LONG", "max_execution_changes", self.changes, head.revision
            told = f"would have {current} changes, but may have {limit}"
        else:
            reason, setting, limit, current = "EXECUTION_TOO_LARGE", "max_execution_bytes", self.bytes, head.log_bytes
            told = f"would have {current} bytes in its log, but may have {limit}"
        return ResourceExhausted(
            reason,
            f"Execution {execution_id} {told}. It can still end; go on in another one.",
            metadata={"id": execution_id, "limit": str(limit), "current": str(current), "setting": setting},
        )


class RefuseBeyondLimits:
    """Refuses what would take the execution beyond its limits. RESOURCE_EXHAUSTED; see `ExecutionLimits.check`.

    With `more`, it may use the room beyond them.
    """

    def __init__(self, limits: ExecutionLimits, *, more: bool = False) -> None:
        self._limits = limits
        self._more = more

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Look at the head that is staged."""
        execution_id = context.value(LOADED).id
        self._limits.check(execution_id, _staged(context, execution_id), more=self._more)


class RefuseNewBeyondLimits:
    """Refuses a new execution that is too large, or whose parent can take no more. RESOURCE_EXHAUSTED."""

    def __init__(self, limits: ExecutionLimits) -> None:
        self._limits = limits

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Look at the heads that are staged: its own, and its parent's."""
        for change in context.transaction.changes:
            self._limits.check(change.execution_id, _staged(context, change.execution_id))


def _staged(context: RequestContext[Any, Any], execution_id: str) -> ExecutionHead:
    return cast("ExecutionHead", context.transaction.puts[EXECUTION_HEAD, execution_id])
