"""Batch: pieces of text on their way, gathered into one delta."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.runner.text import size
from runstream.v1.agent_execution_pb2 import AgentExecutionStatus, AgentMessage

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What an entry takes beside its text, about.
_ENTRY_BYTES = 64


class Batch:
    """Messages and what is appended to them, in the order in which they were begun."""

    def __init__(self, opened: float) -> None:
        """Take the time at which it was opened, in the loop's seconds."""
        self.opened = opened
        self.bytes = 0
        #: Whether it may be sent: it has waited, or grown, for long enough.
        self.ripe = False
        self._messages: dict[str, AgentMessage] = {}
        self._pieces: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, message: AgentMessage) -> int:
        """Add a message, or what is new of one, which becomes the batch's; return by how many bytes that has grown."""
        known = self._messages.get(message.id)
        grown = size(message.content) + size(message.content_append)
        if known is None:
            grown += _ENTRY_BYTES + message.metadata.ByteSize()
            self._messages[message.id] = message
            self._pieces[message.id] = [message.content_append]
        elif message.content:  # in place of what was said before
            known.content = message.content
            self._pieces[message.id] = [message.content_append]
        else:
            self._pieces[message.id].append(message.content_append)
        self.bytes += grown
        return grown

    def delta(self) -> AgentExecutionStatus:
        """Return all of it as one delta."""
        return AgentExecutionStatus(messages=self._joined())

    def _joined(self) -> Iterator[AgentMessage]:
        for message_id, message in self._messages.items():
            message.content_append = "".join(self._pieces[message_id])
            yield message
