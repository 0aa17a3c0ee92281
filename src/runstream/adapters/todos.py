"""Todos: what an agent means to do, as frameworks tell it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from runstream.runner.text import cut
from runstream.runner.todos import LONGEST_TODO, todo_status
from runstream.v1.agent_execution_pb2 import TodoItem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runstream.runner.todos import TodoState

_DIGITS: Final = 8
_STATES: Final[Mapping[str, TodoState]] = {
    "pending": "pending",
    "in_progress": "in_progress",
    "completed": "completed",
    "cancelled": "cancelled",
}


def todo_of(position: int, content: str, state: str) -> TodoItem:
    """Make a todo; one in an unknown state is pending.

    Frameworks give no ids. Its place and what it says are its id, so that it keeps it while only its state changes.
    """
    digits = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    item = TodoItem(id=f"{position + 1}-{digits}", content=cut(content, LONGEST_TODO))
    item.status = todo_status(_STATES.get(state, "pending"))
    return item
