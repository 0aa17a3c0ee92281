"""The announcer: the one place that turns commits into wakes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.feed.hub import ANY_EXECUTION
from runstream.model.phases import is_terminal
from runstream.storage.records import EXECUTION_HEAD, TOMBSTONE

if TYPE_CHECKING:
    from runstream.feed.follow import Follower
    from runstream.feed.hub import Hub
    from runstream.feed.recency import Recency
    from runstream.storage.folds import Folds
    from runstream.storage.store import Transaction


class Announcer:
    """Listens to the store's commits and wakes whoever follows the executions in them."""

    def __init__(self, hub: Hub, recency: Recency, folds: Folds, follower: Follower) -> None:
        self._hub = hub
        self._recency = recency
        self._folds = folds
        self._follower = follower

    def __call__(self, transaction: Transaction) -> None:
        """Wake the readers of every execution that the transaction changed or deleted."""
        for kind, record_id in transaction.deletes:
            if kind is TOMBSTONE:
                # Another execution of this id may stand there now: what readers of the deleted one still had read goes.
                self._forget(record_id)
        for (kind, record_id), message in transaction.puts.items():
            if kind is EXECUTION_HEAD:
                self._recency.note(record_id)
                self._folds.note_commit(record_id, message)
                # Streams end with the terminal change, and that is for the readers themselves to do.
                terminal = is_terminal(message.status.phase)
                self._hub.wake(record_id, None if terminal else _only_change(transaction, record_id))
                self._hub.wake(ANY_EXECUTION)
            elif kind is TOMBSTONE:
                self._forget(record_id)
                self._hub.wake(record_id)

    def _forget(self, execution_id: str) -> None:
        self._folds.forget(execution_id)
        self._follower.forget(execution_id)


def _only_change(transaction: Transaction, execution_id: str) -> tuple[int, bytes] | None:
    """Return the one change of an execution in a transaction, as it is stored; None when there are several, or none."""
    changes = [
        (change.revision, encoded)
        for change, encoded in zip(transaction.changes, transaction.encoded_changes, strict=True)
        if change.execution_id == execution_id
    ]
    return changes[0] if len(changes) == 1 else None
