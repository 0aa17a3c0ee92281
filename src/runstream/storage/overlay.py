"""What is accepted and not yet on disk: key by key, the newest value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.storage import keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

    from runstream.storage.records import AnyKind
    from runstream.storage.store import Transaction

#: One change of the key space: a key and its new value, None to remove it.
Write = tuple[bytes, bytes | None]


class Overlay:
    """The writes on their way to disk, which pending reads lay over the database.

    Lives on the event loop. Each write carries the number of its transaction: when that one is on
    disk its keys leave, except where a later transaction has written over them.
    """

    def __init__(self) -> None:
        self._writes: dict[bytes, tuple[int, bytes | None]] = {}
        #: The records among them, decoded; None for one that is removed.
        self._records: dict[tuple[AnyKind, str], tuple[int, Message | None]] = {}
        #: What stands on disk, as far as it was reported, in the place of some of these records.
        self.standing: dict[tuple[AnyKind, str], Message | None] = {}
        #: The index entries among them, by what `keys.entries` says, so that a count need not look
        #: at everything.
        self._entries: dict[bytes, set[bytes]] = {}

    def __len__(self) -> int:
        return len(self._writes)

    def __contains__(self, key: bytes) -> bool:
        return key in self._writes

    def __getitem__(self, key: bytes) -> bytes | None:
        return self._writes[key][1]

    def add(self, number: int, writes: list[Write]) -> None:
        """Lay the writes of transaction `number` over everything before."""
        for key, value in writes:
            self._writes[key] = (number, value)
            if key[:1] == keys.ENTRY:
                self._entries.setdefault(keys.entries_of(key), set()).add(key)

    def settle(self, number: int, writes: list[Write]) -> None:
        """Forget the writes of transaction `number`, which are on disk now."""
        for key, _ in writes:
            held = self._writes.get(key)
            if held is not None and held[0] == number:
                del self._writes[key]
                if key[:1] == keys.ENTRY:
                    self._forget_entry(key)

    def add_records(
        self, number: int, transaction: Transaction, standing: Mapping[tuple[AnyKind, str], Message | None]
    ) -> None:
        """Lay the records of transaction `number` over everything before, and remember what was standing."""
        self.standing.update(standing)
        for key, message in transaction.puts.items():
            self._records[key] = number, message
        for key in transaction.deletes:
            self._records[key] = number, None

    def settle_records(self, number: int, transaction: Transaction) -> None:
        """Forget the records of transaction `number`, which are on disk now."""
        for key in (*transaction.puts, *transaction.deletes):
            held = self._records.get(key)
            if held is not None and held[0] == number:
                del self._records[key]
                self.standing.pop(key, None)
            elif key in self.standing:
                self.standing[key] = transaction.puts.get(key)

    def record(self, key: tuple[AnyKind, str]) -> tuple[int, Message | None] | None:
        """Return the newest number and value of a record on its way to disk, or None when it is not."""
        return self._records.get(key)

    def clear(self) -> None:
        """Forget everything."""
        self._writes.clear()
        self._records.clear()
        self.standing.clear()
        self._entries.clear()

    def entries(self, prefix: bytes) -> tuple[set[bytes], set[bytes]]:
        """Return the entries under a prefix of `keys.entries`: those to come and those to go."""
        found = self._entries.get(prefix, set())
        added = {key for key in found if self._writes[key][1] is not None}
        return added, found - added

    def _forget_entry(self, key: bytes) -> None:
        prefix = keys.entries_of(key)
        group = self._entries[prefix]
        group.discard(key)
        if not group:
            del self._entries[prefix]
