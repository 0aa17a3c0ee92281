"""Entries: how many a request may have in its lists and maps.

The time that a request takes grows with its entries, and an empty one is two bytes on the wire: without a bound, a
small request would hold up everybody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.model.errors import ResourceExhausted

if TYPE_CHECKING:
    from google.protobuf.message import Message

MOST_ENTRIES = 10_000


def check_entries(message: Message) -> None:
    """Raise `ResourceExhausted`, reason TOO_MANY_ENTRIES, for more than 10,000 entries in lists and maps together."""
    # No entry is shorter than a byte, so most requests need no count.
    if message.ByteSize() > MOST_ENTRIES and _count(message, 0) > MOST_ENTRIES:
        raise ResourceExhausted(
            "TOO_MANY_ENTRIES",
            f"The request has more than {MOST_ENTRIES} entries in its lists and maps together; send it in parts.",
        )


def _count(message: Message, counted: int) -> int:
    """Add the entries of a message to those counted; goes into no list that has too many already."""
    for field, value in message.ListFields():
        if not field.is_repeated:
            counted = counted if field.message_type is None else _count(value, counted)
            continue
        counted += len(value)
        if counted > MOST_ENTRIES or field.message_type is None:
            continue
        for entry in value.values() if field.message_type.GetOptions().map_entry else value:
            counted = counted if isinstance(entry, str) else _count(entry, counted)
    return counted
