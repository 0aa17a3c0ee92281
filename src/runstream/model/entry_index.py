"""The entry index: where an entry of a status stands, by its id, so that a merge need not search.

The lists of a status only grow, at their end, unless a merge empties them and has the index forget
them. So an index is never wrong, only behind: it catches up with what was appended meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runstream.v1.agent_execution_pb2 import (
        AgentExecutionStatus,
        AgentMessage,
        SubAgentExecution,
        ToolCall,
        Usage,
    )

    Entry: TypeAlias = AgentMessage | ToolCall | SubAgentExecution | Usage


class Positions:
    """Where the entries of one list stand, by id. Of entries with the same id, the first counts."""

    __slots__ = ("_by_id", "_seen")

    def __init__(self) -> None:
        self._by_id: dict[str, int] = {}
        self._seen = 0

    # Containers of generated messages share no public generic type that has add() and len().
    def find(self, entries: Any, entry_id: str) -> int | None:  # noqa: ANN401
        """Return the place of an entry in `entries`, or None when there is no such entry."""
        if self._seen != len(entries):
            self._catch_up(entries)
        return self._by_id.get(entry_id)

    def appended(self, entry_id: str) -> None:
        """Take note of an entry that was just added at the end, right after it was not found."""
        self._by_id[entry_id] = self._seen
        self._seen += 1

    def _catch_up(self, entries: Any) -> None:  # noqa: ANN401
        for at in range(self._seen, len(entries)):
            self._by_id.setdefault(entries[at].id, at)
        self._seen = len(entries)


class EntryIndex:
    """Finds the entries of one status by id. Built as it is needed, and kept by the merge.

    It belongs to one state, and to copies that are merged no further: entries that anything but
    the merge removes or reorders are not noticed. A new index fits any state.
    """

    def __init__(self) -> None:
        self._lists: dict[str, Positions] = {}
        self._nested: dict[str, Positions] = {}
        self._unwritten: dict[str, list[str]] | None = None
        self.stale_bytes = 0
        """About how many bytes of replaced text the state still holds in memory.

        A protobuf message frees nothing before it goes as a whole, and a text that grows is
        written anew each time. Whoever keeps a state for long copies it when this number passes
        what the state itself takes, drops the original, and sets the number to 0. The index fits
        the copy.
        """

    def positions(self, name: str) -> Positions:
        """Return the positions of one of the status's lists, by its field name."""
        found = self._lists.get(name)
        if found is None:
            found = self._lists[name] = Positions()
        return found

    def nested(self, message_id: str) -> Positions:
        """Return the positions of the tool calls inside a message."""
        found = self._nested.get(message_id)
        if found is None:
            found = self._nested[message_id] = Positions()
        return found

    def forget(self, names: Iterable[str]) -> None:
        """Forget lists that were emptied."""
        for name in names:
            self._lists.pop(name, None)
            if name == "messages":
                self._nested.clear()
                self.drop_text()

    def clear(self) -> None:
        """Forget everything: the state was replaced."""
        self._lists.clear()
        self._nested.clear()
        self.drop_text()

    def append_text(self, message: AgentMessage, text: str) -> None:
        """Append to a message's content, now or, between `defer_text` and `write_text`, later."""
        if self._unwritten is None:
            self._write(message, text)
        else:
            self._unwritten.setdefault(message.id, []).append(text)

    def drop_text(self, message_id: str | None = None) -> None:
        """Drop text not yet written, of one message or of all: its content was replaced."""
        if self._unwritten and message_id is None:
            self._unwritten.clear()
        elif self._unwritten and message_id is not None:
            self._unwritten.pop(message_id, None)

    def defer_text(self) -> None:
        """From now on gather appended text, so that each message is written once."""
        self._unwritten = {}

    def write_text(self, status: AgentExecutionStatus, *, go_on: bool = False) -> None:
        """Write what was gathered since `defer_text`; `go_on` gathering, if that was begun, or end it."""
        unwritten = self._unwritten or {}
        self._unwritten = {} if go_on and self._unwritten is not None else None
        positions = self.positions("messages")
        for message_id, pieces in unwritten.items():
            at = positions.find(status.messages, message_id)
            if at is not None:
                self._write(status.messages[at], "".join(pieces))

    def _write(self, message: AgentMessage, text: str) -> None:
        before = message.content
        self.stale_bytes += len(before)
        message.content = before + text
