"""Copies of everything: a LevelDB snapshot that lasts from slice to slice, until it is let go or taken away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

from runstream.model.errors import Unavailable
from runstream.storage import walks
from runstream.storage.folder import FORMAT

if TYPE_CHECKING:
    from runstream.storage.database import Database


class KeptSnapshot:
    """A snapshot that outlives the walks over it.

    To a walk it is a snapshot as any other; but it is borrowed, and to close it is to give it back. Between two walks
    it keeps no iterator, so that of the database's files it holds none: only that LevelDB drops nothing it can see.
    """

    def __init__(self, snapshot: Any) -> None:  # noqa: ANN401  # plyvel has no types
        """Take the LevelDB snapshot, which it closes."""
        self._snapshot = snapshot
        self._borrowed = False
        self._released = False

    def borrow(self) -> Self:
        """Give it to one walk. Raises `Unavailable` when it was released."""
        if self._released:
            raise Unavailable(
                "BACKUP_CUT_OFF",
                "The database was closed under the backup, or opened anew after a failed write. Begin it again.",
            )
        self._borrowed = True
        return self

    def raw_iterator(self, **options: bool) -> Any:  # noqa: ANN401
        """Make a raw iterator, as a LevelDB snapshot does."""
        return self._snapshot.raw_iterator(**options)

    def close(self) -> None:
        """Give it back."""
        self._borrowed = False
        if self._released:
            self._snapshot.close()

    def release(self) -> None:
        """Close it, as soon as no walk has it any more; a repeat does nothing."""
        self._released = True
        if not self._borrowed:
            self._snapshot.close()


class LevelDBCopy:
    """A `Copy` of a LevelDB."""

    #: The number of the stored format of what is copied.
    format: Final = FORMAT

    def __init__(self, database: Database, kept: KeptSnapshot) -> None:
        """Take the snapshot, and the database that it is of."""
        self._database = database
        self._kept = kept
        self._start = b""

    async def next_slice(self, max_bytes: int) -> list[tuple[bytes, bytes]]:
        """Return the entries that come next; see `Copy.next_slice`."""
        start = self._start
        found = await self._database.walk(lambda db: walks.pairs(db, start, max_bytes), self._kept)
        if found:
            self._start = found[-1][0] + b"\x00"
        return found

    def release(self) -> None:
        """Let go of the state; a repeat does nothing."""
        self._database.let_go(self._kept)
