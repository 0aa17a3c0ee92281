"""What was lately read or written: records decoded once, and the ends of logs, so that the hot path asks no disk."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from runstream.storage.records import AnyKind
    from runstream.storage.store import Transaction

#: How many bytes of records are kept, counted as serialized; in memory they are a few times that.
_KEPT_BYTES: Final = 8 << 20
#: A record that is larger is read again each time.
_LARGEST: Final = 64 << 10
#: Of how many logs the end is remembered.
_KEPT_ENDS: Final = 65_536


class RecentRecords:
    """Records as they are on disk, shared between those who read them: nobody may change one.

    The least recently used leave first. What is not here may be on disk all the same.
    """

    def __init__(self, max_bytes: int = _KEPT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._records: OrderedDict[tuple[AnyKind, str], tuple[Message, int]] = OrderedDict()

    def get(self, key: tuple[AnyKind, str]) -> Message | None:
        """Return a record if it is here."""
        held = self._records.get(key)
        if held is None:
            return None
        self._records.move_to_end(key)
        return held[0]

    def put(self, key: tuple[AnyKind, str], message: Message, size: int) -> None:
        """Keep a record as it is on disk now, where it takes `size` bytes, in place of what it was."""
        self.drop(key)
        if size > _LARGEST:
            return
        self._records[key] = message, size
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, (_, gone) = self._records.popitem(last=False)
            self._bytes -= gone

    def drop(self, key: tuple[AnyKind, str]) -> None:
        """Forget a record."""
        held = self._records.pop(key, None)
        if held is not None:
            self._bytes -= held[1]

    def clear(self) -> None:
        """Forget everything."""
        self._records.clear()
        self._bytes = 0


class LogEnds:
    """The newest revision of the logs that were lately written to, what is on its way to disk included."""

    def __init__(self, most: int = _KEPT_ENDS) -> None:
        self._most = most
        self._ends: OrderedDict[str, int] = OrderedDict()

    def get(self, execution_id: str) -> int | None:
        """Return the newest revision of a log, or None when it is not remembered."""
        return self._ends.get(execution_id)

    def note(self, transaction: Transaction) -> None:
        """Hear of a transaction that was accepted."""
        for change in transaction.changes:
            execution_id = change.execution_id
            self._ends[execution_id] = change.revision
            self._ends.move_to_end(execution_id)
        while len(self._ends) > self._most:
            self._ends.popitem(last=False)

    def forget(self, execution_id: str) -> None:
        """Forget a log, as when it is purged: another one may be written in its place."""
        self._ends.pop(execution_id, None)

    def clear(self) -> None:
        """Forget everything."""
        self._ends.clear()
