"""The tool calls of a LangGraph run: which one a node works on, and which one a result is of."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(slots=True, eq=False)
class Asked:
    """A tool call as a model has asked for it, and the task of the sub-agent whose model that is."""

    id: str
    name: str
    args: Mapping[str, Any]
    owner: str
    #: What the narration knows it by: its id, unless another open call has that.
    key: str
    #: The task that carries it out, once that has begun; nodes that run all tools have none.
    task: str = ""
    #: The task again, if a sub-agent does it.
    agent: str = ""
    #: Whether it may not be made.
    refused: bool = False
    open: bool = True


class Calls:
    """The calls of one run."""

    def __init__(self) -> None:
        self._made: list[Asked] = []
        self._tasks: dict[str, Asked] = {}

    @property
    def open(self) -> Iterator[Asked]:
        """Those that have no result yet, in order."""
        return (call for call in self._made if call.open)

    def add(self, call: Mapping[str, Any], owner: str, *, ended: bool = False) -> Asked:
        """Take a call that a model has asked for; `ended` if its result was told by an earlier attempt."""
        call_id = str(call["id"])
        taken = {each.key for each in self.open if each.owner == owner}
        keys = itertools.chain([call_id], (f"{call_id}-{number}" for number in itertools.count(2)))
        key = next(key for key in keys if key not in taken)
        made = Asked(call_id, call["name"], call["args"], owner, key, open=not ended)
        self._made.append(made)
        return made

    def begun(self, task: str, call: Mapping[str, Any], owner: str) -> Asked | None:
        """Return the call that a task carries out; it may be its second beginning. None for one nobody asked for."""
        if task not in self._tasks:
            fits = [each for each in self._made if _is(each, str(call["id"]), owner) and not each.task]
            same = [each for each in fits if each.args == call["args"]] or fits
            found = next((each for each in same if each.open), None) or next(iter(same[-1:]), None)
            if found is None:
                return None
            self._bind(task, found)
        return self._tasks[task]

    def carried_out(self, task: str, call: Asked) -> None:
        """Note that a task carries out a call."""
        self._bind(task, call)

    def of_task(self, task: str) -> Asked | None:
        """Return the call that a task carries out, if it does."""
        return self._tasks.get(task)

    def answered(self, call_id: str, owner: str) -> Asked | None:
        """Return the open call that a result with this id is of; None if only the end of a task tells which."""
        fits = [each for each in self.open if _is(each, call_id, owner)]
        several = len(fits) > 1 and all(each.task for each in fits)
        return None if several else next(iter(fits), None)

    def _bind(self, task: str, call: Asked) -> None:
        call.task = task
        self._tasks[task] = call


def _is(call: Asked, call_id: str, owner: str) -> bool:
    return (call.id, call.owner) == (call_id, owner)
