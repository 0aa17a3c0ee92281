"""Messages: what the agent says, streamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from runstream.runner.desk import now
from runstream.runner.text import clean, pieces
from runstream.v1.agent_execution_pb2 import (
    MESSAGE_AI,
    MESSAGE_SYSTEM,
    MESSAGE_THINKING,
    MESSAGE_TOOL,
    AgentMessage,
    MessageType,
)

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Struct

    from runstream.runner.desk import Desk

#: The most that goes into one delta at a time.
PIECE_BYTES: Final = 256 << 10

MessageKind = Literal["ai", "thinking", "tool", "system"]

_TYPES: Final[dict[str, MessageType.ValueType]] = {
    "ai": MESSAGE_AI,
    "thinking": MESSAGE_THINKING,
    "tool": MESSAGE_TOOL,
    "system": MESSAGE_SYSTEM,
}


class Message:
    """A message that can be gone on with, for as long as the agent runs."""

    def __init__(self, desk: Desk, opening: AgentMessage) -> None:
        """Take what the message begins with; nothing is reported before `begin` or `text`."""
        self._desk = desk
        self._opening: AgentMessage | None = opening
        # What an earlier attempt said under this id is replaced by what this one says.
        self._replaces = desk.record.has_message(opening.id)
        self._said: list[str] = []
        self.id: str = opening.id

    @property
    def said(self) -> str:
        """What was said so far."""
        return "".join(self._said)

    async def begin(self) -> None:
        """Report the message, without text if it has none yet."""
        if self._opening is not None:
            await self._append("")

    async def text(self, text: str) -> None:
        """Append to the message. Of any length; waits only when too much is unsent."""
        for piece in pieces(clean(text), PIECE_BYTES):
            if piece:
                await self._append(piece)
                self._said.append(piece)

    async def _append(self, piece: str) -> None:
        await self._desk.outbox.room()  # before the opening is used up: what follows may not be interrupted
        delta, self._opening = self._opening or AgentMessage(id=self.id), None
        if self._replaces and piece:
            delta.content, self._replaces = piece, False
        else:
            delta.content_append = piece
        await self._desk.outbox.append(delta)


def opening(message_id: str, kind: MessageKind, owner: str, metadata: Struct | None = None) -> AgentMessage:
    """Make what a message begins with. ValueError for a kind that is unknown."""
    if kind not in _TYPES:
        raise ValueError(f"kind must be one of {', '.join(_TYPES)}, not {kind!r}")
    return AgentMessage(id=message_id, type=_TYPES[kind], owner_id=owner, timestamp=now(), metadata=metadata)
