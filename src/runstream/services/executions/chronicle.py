"""The chronicle: what the server does to executions by itself, in the log: for time, for dispatch, for a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from runstream.dispatch.dispatcher import LOST_EVENT
from runstream.model.phases import phase_name
from runstream.v1.agent_execution_pb2 import CHANGE_AUTHOR_SYSTEM, ControlAction

if TYPE_CHECKING:
    from runstream.storage.store import Transaction
    from runstream.v1.agent_execution_pb2 import ExecutionChange

_LOG = structlog.get_logger(__name__)
_ASSIGNED = "assigned"


class Chronicle:
    """Listens to commits. `verbose`: what happens to every execution once is logged too, for debugging."""

    def __init__(self, *, verbose: bool = False) -> None:
        self._verbose = verbose

    def on_commit(self, transaction: Transaction) -> None:
        """Log the changes of the server's own: their execution, revision and attempt, what happened, and the phase."""
        for change in transaction.changes:
            if change.author == CHANGE_AUTHOR_SYSTEM:
                self._tell(change)

    def _tell(self, change: ExecutionChange) -> None:
        what = _what(change)
        if not what or (what == _ASSIGNED and not self._verbose):
            return
        told: dict[str, Any] = {"execution_id": change.execution_id, "revision": change.revision}
        told |= {"attempt": change.attempt, "what": what}
        if change.status.phase:
            told["phase"] = phase_name(change.status.phase)
        if change.status.reason:
            told["reason"] = change.status.reason
        tell = _LOG.debug if what == _ASSIGNED else _LOG.warning if what == LOST_EVENT else _LOG.info
        tell("by_server", **told)


def _what(change: ExecutionChange) -> str:
    """Name what a change did; an empty text for what a parent only hears of its sub-executions."""
    if change.HasField("control") and change.control.action:
        return "asked_" + ControlAction.Name(change.control.action).removeprefix("CONTROL_").lower()
    return change.status.audit.status_audit.event
