"""Names: ids that frameworks give, made unique in the execution."""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING, Final, Literal
from weakref import WeakKeyDictionary

from runstream.runner.text import clean, size
from runstream.v1.agent_execution_pb2 import (
    SUB_AGENT_COMPLETED,
    SUB_AGENT_FAILED,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_FAILED,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runstream.runner.desk import Desk
    from runstream.v1.agent_execution_pb2 import AgentExecutionStatus, SubAgentExecution, ToolCall

Kind = Literal["message", "call", "sub-agent", "usage"]

#: The longest id that is taken as it is. The server takes 256 characters, and a suffix needs room.
_LONGEST: Final = 200
_DIGITS: Final = 32
_ENDED_SUB_AGENTS: Final = frozenset({SUB_AGENT_COMPLETED, SUB_AGENT_FAILED})


class Names:
    """The ids that are in use in one attempt, by kind."""

    def __init__(self, recorded: AgentExecutionStatus) -> None:
        """Take what earlier attempts have reported: their ids are not used again, but for what is gone on with."""
        self._calls = {call.id: call for call in recorded.tool_calls}
        self._cut_short = [sub for sub in recorded.sub_agent_executions if sub.status not in _ENDED_SUB_AGENTS]
        self._taken: set[tuple[Kind, str]] = {("message", message.id) for message in recorded.messages}
        self._taken.update(("sub-agent", sub_agent.id) for sub_agent in recorded.sub_agent_executions)
        self._taken.update(("usage", usage.id) for usage in recorded.usage)

    def free(self, kind: Kind, wanted: str) -> str:
        """Take an id that nothing else of its kind has: the wanted one, or that with a number."""
        return self._take(kind, wanted, lambda _: True)

    def of_call(self, wanted: str, call: ToolCall) -> str:
        """Take an id for a tool call, which has none yet.

        It is the id of the same call of an earlier attempt if that was cut short: it is gone on with. The same it is by
        its id, name and arguments; or by the latter two, if it had not begun, or a person was asked about it: nobody is
        asked twice.
        """
        known = [each for each in self._calls.values() if ("call", each.id) not in self._taken]
        for each in sorted(known, key=lambda each: each.id != wanted):
            if _goes_on(each, call) and (each.id == wanted or each.HasField("approval") or not each.started_at):
                self._taken.add(("call", each.id))
                return each.id
        return self._take("call", wanted, lambda name: name not in self._calls or _goes_on(self._calls[name], call))

    def of_sub_agent(self, wanted: str, entry: SubAgentExecution) -> str:
        """Take an id for a sub-agent: that of the same one of an earlier attempt, for the same call, if cut short.

        It begins anew; but what people have decided for it holds.
        """
        for known in self._cut_short:
            if entry.call_id and _asked_for(known) == _asked_for(entry):
                self._cut_short.remove(known)
                return known.id
        return self.free("sub-agent", wanted)

    def has_ended(self, call_id: str, call: ToolCall) -> bool:
        """Tell whether an earlier attempt has made this call, of a framework's id, to its end."""
        return any(_same(each, call) and not _goes_on(each, call) for each in self._called(call_id))

    def _called(self, call_id: str) -> Iterator[ToolCall]:
        """Return the calls of earlier attempts that a framework has given this id."""
        first = _short(call_id)
        for each in self._calls.values():
            name, _, number = each.id.rpartition("-")
            if each.id == first or (name == first and number.isdigit()):
                yield each

    def _take(self, kind: Kind, wanted: str, fits: Callable[[str], bool]) -> str:
        first = _short(wanted) or kind
        names = itertools.chain([first], (f"{first}-{number}" for number in itertools.count(2)))
        found = next(name for name in names if (kind, name) not in self._taken and fits(name))
        self._taken.add((kind, found))
        return found


def names_of(desk: Desk, recorded: AgentExecutionStatus) -> Names:
    """Return the names of the attempt that reports at `desk`: all that is narrated in it shares them."""
    names = _NAMES.get(desk)
    if names is None:
        names = _NAMES[desk] = Names(recorded)
    return names


_NAMES: Final[WeakKeyDictionary[Desk, Names]] = WeakKeyDictionary()


def _goes_on(known: ToolCall, call: ToolCall) -> bool:
    return known.status not in (TOOL_CALL_COMPLETED, TOOL_CALL_FAILED) and _same(known, call)


def _asked_for(sub_agent: SubAgentExecution) -> tuple[str, str, str]:
    return sub_agent.call_id, sub_agent.name, sub_agent.input


def _same(known: ToolCall, call: ToolCall) -> bool:
    return (known.name, known.owner_id, known.args) == (call.name, call.owner_id, call.args)


def _short(name: str) -> str:
    """Return an id that is too long for the server as one that is not."""
    name = clean(name)
    return name if size(name) <= _LONGEST else hashlib.sha256(name.encode()).hexdigest()[:_DIGITS]
