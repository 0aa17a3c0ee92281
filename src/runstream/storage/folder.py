"""The data folder: whose it is, which format it has, and who holds it now.

    <folder>/FORMAT        one line, "runstream <number>": which stored format everything beside it
    has <folder>/lock          empty; held with flock for the life of the store <folder>/server.json
    who holds the lock: a flat object of strings, for people and for the command line
    <folder>/leveldb/      the database <folder>/probe         there only while a full disk is tried
    out

    DataFolderError
    ├── ForeignFolder      something else lives in the folder
    ├── UnknownFormat      a newer Runstream wrote it, or FORMAT is damaged
    ├── FolderInUse        another server holds it
    └── FolderUnusable     the system or the database refuses

FORMAT is on disk before the database is created, and nothing is written into a folder before it is
known to be ours: a refused folder stays as it was, byte for byte.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

#: The number of the stored format; see the grammars in `keys` and in the protos of
#: `runstream.stored`.
FORMAT: Final = 1

_FORMAT_LINE: Final = re.compile(r"runstream (\d{1,9})\n")
#: What may stand in a folder that is still to be filled: left by a crash while it was being made,
#: or by a new disk.
_OF_A_NEW_FOLDER: Final = frozenset({"lock", "FORMAT.tmp", "lost+found"})
_PROBE_BLOCK: Final = 1 << 20


class DataFolderError(Exception):
    """The data folder cannot be used; the message says why and what would help."""


class ForeignFolder(DataFolderError):
    """Something else lives in the folder."""


class UnknownFormat(DataFolderError):
    """The folder has a format that this version does not read."""


class FolderInUse(DataFolderError):
    """Another server holds the folder.

    `owner` is what it says about itself, empty when it says nothing.
    """

    def __init__(self, path: Path, owner: Mapping[str, str]) -> None:
        """Take the folder and what its owner wrote down."""
        who = ", ".join(f"{key} {value}" for key, value in owner.items()) or "which has not said who it is"
        super().__init__(f"The data folder {path} is in use by another server: {who}. Stop it first.")
        self.owner = dict(owner)


class FolderUnusable(DataFolderError):
    """The system or the database refuses the folder."""


class DataFolder:
    """A data folder that this process holds; made by `DataFolder.hold`."""

    def __init__(self, path: Path, lock: int) -> None:
        """Take the path and the descriptor that holds the lock."""
        self._path = path
        self._lock: int | None = lock

    @classmethod
    def hold(cls, path: Path, owner: Mapping[str, str]) -> DataFolder:
        """Take hold of the folder at `path`, making it if need be, and write down the `owner`.

        The id of this process is added to what the owner says. Durable: a folder that was made is
        there after a crash. Raises a `DataFolderError`.
        """
        with _system_errors(path):
            _make(path)
            _check_format(path)
            lock = _take_lock(path)
            try:
                # Looked at once more: before the lock was held, another server may have made or
                # filled the folder.
                if not _check_format(path):
                    _write_durably(path, "FORMAT", f"runstream {FORMAT}\n")
                _make(path / "leveldb")
                held = cls(path, lock)
                held.announce(owner)
            except BaseException:
                os.close(lock)
                raise
            return held

    @property
    def database(self) -> Path:
        """The folder of the database."""
        return self._path / "leveldb"

    def announce(self, owner: Mapping[str, str]) -> None:
        """Write down who holds the folder, in place of what stood there.

        The id of the process is added.
        """
        said = {"pid": str(os.getpid()), **owner}
        _write_durably(self._path, "server.json", json.dumps(said, indent=2) + "\n")

    def probe(self, size: int) -> None:
        """Find out whether the disk takes `size` bytes, rounded up to whole MiB.

        An `OSError` if not. Blocks.
        """
        probe = self._path / "probe"
        block = os.urandom(_PROBE_BLOCK)  # not zeros, which some file systems store in no space at all
        try:
            with probe.open("wb", buffering=0) as file:
                for _ in range(-(-size // _PROBE_BLOCK)):
                    _write_all(file.fileno(), block)
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)

    def release(self) -> None:
        """Let go of the folder; a repeat does nothing.

        The lock file stays, so that nobody locks a removed one.
        """
        if self._lock is None:
            return
        with suppress(OSError):  # a disk that refuses even this must not keep the lock
            (self._path / "server.json").unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None


def read_owner(path: Path) -> dict[str, str]:
    """Return what the holder of a folder wrote down; empty when there is nothing to read.

    It may be left over from a server that crashed: only the lock tells whether there is a holder.
    """
    try:
        said = json.loads((path / "server.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(said, dict):
        return {}
    return {str(key): str(value) for key, value in said.items()}


def _make(path: Path) -> None:
    """Create a folder for its owner's eyes only, and make its name durable.

    One that is there is left as it is.
    """
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700)
    _sync_folder(path.parent)


def _check_format(path: Path) -> bool:
    """Return whether the folder has our format, False when it is still to be filled.

    Anything else raises.
    """
    try:
        line = (path / "FORMAT").read_text("utf-8", errors="replace")
    except FileNotFoundError:
        found = sorted(entry.name for entry in path.iterdir())
        if not _OF_A_NEW_FOLDER.issuperset(found):
            first = next(name for name in found if name not in _OF_A_NEW_FOLDER)
            msg = f"{path} is not empty and no data folder of Runstream: it holds {first!r}."
            raise ForeignFolder(msg) from None
        return False
    match = _FORMAT_LINE.fullmatch(line)
    if match is None:
        msg = f"{path / 'FORMAT'} holds {line[:40]!r}, not 'runstream {FORMAT}'; left as it was."
        raise UnknownFormat(msg)
    if int(match[1]) != FORMAT:
        msg = f"{path} has format {match[1]}, this version reads {FORMAT}; left as it was."
        raise UnknownFormat(msg)
    return True


def _take_lock(path: Path) -> int:
    """Lock the folder; the descriptor that is returned holds the lock until it is closed."""
    lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # Our own lock beside LevelDB's: it is held while the database is closed and opened again
        # after a failed write. flock, unlike a POSIX lock, also keeps out a second opener in the
        # same process.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise FolderInUse(path, read_owner(path)) from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _write_durably(folder: Path, name: str, text: str) -> None:
    """Put a file in place of what was there: after a crash the old or the new one is there."""
    draft = folder / f"{name}.tmp"
    with draft.open("wb", buffering=0) as file:
        _write_all(file.fileno(), text.encode())
        os.fsync(file.fileno())
    draft.replace(folder / name)
    _sync_folder(folder)


def _write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`: a nearly full disk takes a part first and refuses only the next call."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _system_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        msg = f"The data folder {path} cannot be used: {error.strerror or error}."
        raise FolderUnusable(msg) from error
