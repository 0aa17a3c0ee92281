"""A data folder without a server: held, read as one state, written in synced batches."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

import plyvel

from runstream.storage.folder import DataFolder, FolderUnusable
from runstream.storage.log_end import open_leveldb

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from runstream.storage.overlay import Write

#: Large, for those who fill a folder: fewer tables are written twice.
_WRITE_BUFFER: Final = 16 << 20
#: Greater than every key of the grammar.
_BEHIND_ALL: Final = b"\xff" * 8


class View:
    """One state of a folder: what is written later is not in it."""

    def __init__(self, path: Path, snapshot: Any) -> None:  # noqa: ANN401  # plyvel has no types
        """Take the folder's path, for messages, and the LevelDB snapshot."""
        self._path = path
        self._snapshot = snapshot

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None; a `FolderUnusable` when it cannot be read."""
        with _database_errors(self._path, "read"):
            value: bytes | None = self._snapshot.get(key, verify_checksums=True)
        return value

    def pairs(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys that begin with `prefix`, in their order, and their values.

        A `FolderUnusable` when they cannot be read.
        """
        with (
            _database_errors(self._path, "read"),
            # A raw iterator: the plain one ends quietly at an unreadable block.
            self._snapshot.raw_iterator(verify_checksums=True, fill_cache=False) as iterator,
        ):
            iterator.seek(prefix)
            while iterator.valid():
                pair: tuple[bytes, bytes] = iterator.item()
                if not pair[0].startswith(prefix):
                    return
                yield pair
                iterator.next()


class OfflineFolder:
    """A data folder that this process holds, with its database open; made by `open` or `make`."""

    def __init__(self, path: Path, held: DataFolder, database: Any) -> None:  # noqa: ANN401  # plyvel has no types
        """Take the path, the hold on it, and the database, both of which it closes."""
        self.path = path
        self._held = held
        self._database = database

    @classmethod
    def open(cls, path: Path, *, purpose: str) -> OfflineFolder:
        """Hold the folder at `path`, which must be there; `purpose` says to others what for.

        Raises a `DataFolderError`; `FolderInUse` when a server holds it.
        """
        # Looked at first: to hold a folder is to make it where there is none.
        if not (path / "FORMAT").exists():
            msg = f"{path} is no data folder of Runstream: it has no file FORMAT."
            raise FolderUnusable(msg)
        return cls._open(path, purpose, create=False)

    @classmethod
    def make(cls, path: Path, *, purpose: str) -> OfflineFolder:
        """Make a data folder at `path`, which must be missing or empty, and hold it. A `DataFolderError`."""
        return cls._open(path, purpose, create=True)

    @classmethod
    def _open(cls, path: Path, purpose: str, *, create: bool) -> OfflineFolder:
        held = DataFolder.hold(path, {"purpose": purpose})
        try:
            with _database_errors(path, "opened"):
                database = open_leveldb(
                    held.database,
                    # Never in place of a database that has lost its files: that would be to lose the rest.
                    create_if_missing=create,
                    write_buffer_size=_WRITE_BUFFER,
                    bloom_filter_bits=10,
                    max_open_files=512,
                )
        except BaseException:
            held.release()
            raise
        return cls(path, held, database)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def view(self) -> Iterator[View]:
        """Give the state of now for the length of the block."""
        with self._database.snapshot() as snapshot:
            yield View(self.path, snapshot)

    def write(self, writes: Iterable[Write], *, sync: bool = True) -> None:
        """Write a batch, whole or not at all; on disk when it returns, unless `sync` is off. A `FolderUnusable`."""
        with (
            _database_errors(self.path, "written"),
            self._database.write_batch(transaction=True, sync=sync) as batch,
        ):
            for key, value in writes:
                if value is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)

    def compact(self) -> None:
        """Rewrite the database without what was removed or written over. A `FolderUnusable`."""
        with _database_errors(self.path, "compacted"):
            # With no bounds, plyvel asks for the empty range instead of all.
            self._database.compact_range(start=b"", stop=_BEHIND_ALL)

    @property
    def size(self) -> int:
        """How many bytes the files of the database take."""
        return sum(file.stat().st_size for file in self._held.database.iterdir())

    def close(self) -> None:
        """Close the database and let go of the folder; a repeat does nothing."""
        self._database.close()
        self._held.release()


@contextmanager
def _database_errors(path: Path, verb: str) -> Iterator[None]:
    try:
        yield
    except (plyvel.Error, OSError) as error:
        msg = f"The database in {path} cannot be {verb}: {error}."
        raise FolderUnusable(msg) from error
