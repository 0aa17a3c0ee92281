"""Todos: what the agent means to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

from runstream.runner.desk import now
from runstream.runner.text import cut
from runstream.v1.agent_execution_pb2 import (
    TODO_CANCELLED,
    TODO_COMPLETED,
    TODO_IN_PROGRESS,
    TODO_PENDING,
    TodoItem,
    TodoStatus,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: The longest content of a todo; what is longer is cut, with a mark.
LONGEST_TODO: Final = 10_000

TodoState = Literal["pending", "in_progress", "completed", "cancelled"]

_STATUSES: Final[dict[str, TodoStatus.ValueType]] = {
    "pending": TODO_PENDING,
    "in_progress": TODO_IN_PROGRESS,
    "completed": TODO_COMPLETED,
    "cancelled": TODO_CANCELLED,
}


def todo_status(state: TodoState) -> TodoStatus.ValueType:
    """Return a state as the API writes it. ValueError for one that is unknown."""
    if state not in _STATUSES:
        raise ValueError(f"the status of a todo must be one of {', '.join(_STATUSES)}, not {state!r}")
    return _STATUSES[state]


def todo_items(items: Iterable[str | TodoItem] | Mapping[str, str]) -> dict[str, TodoItem]:
    """Make the todos, by id and in order: PENDING unless they say otherwise."""
    time = now()
    made: dict[str, TodoItem] = {}
    for position, (key, item) in enumerate(_keyed(items)):
        todo = made[key] = TodoItem(status=TODO_PENDING, created_at=time, position=position)
        if isinstance(item, TodoItem):
            todo.MergeFrom(item)
        else:
            todo.content = cut(item, LONGEST_TODO)
    return made


def _keyed(items: Iterable[str | TodoItem] | Mapping[str, str]) -> Iterator[tuple[str, str | TodoItem]]:
    if isinstance(items, Mapping):
        yield from items.items()
        return
    for number, item in enumerate(items, start=1):
        yield (item.id if isinstance(item, TodoItem) else "") or str(number), item
