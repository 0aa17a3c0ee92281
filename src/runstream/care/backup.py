"""Backup and restore: a data folder, or what a server sends of it, into an archive, and back."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from runstream.care.archive import ArchiveHead, ArchiveReader, ArchiveWriter, DamagedArchive
from runstream.care.examination import no_progress
from runstream.model.times import to_rfc3339
from runstream.storage.folder import FolderUnusable
from runstream.storage.offline import OfflineFolder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from runstream.care.examination import Progress
    from runstream.storage.offline import View

#: How many bytes one batch of a restore gathers.
_BATCH_BYTES: Final = 4 << 20
_TELL_EVERY: Final = 1_000


class TargetTaken(Exception):
    """What a backup or a restore would write is there already; the message says so."""


def backup(folder: OfflineFolder, file: Path, now: datetime, progress: Progress = no_progress) -> ArchiveHead:
    """Write everything in a folder into `file`, for its owner's eyes only; on disk when it returns.

    The file appears whole or not at all. Raises `TargetTaken` when there is one, `FolderUnusable`, an `OSError`.
    """
    with new_file(file) as target, folder.view() as view:
        head = _head_of(view, now, progress)
        writer = ArchiveWriter(target, head)
        writer.write_all(_counted(view.pairs(), progress, "writing", head.keys))
    return head


class Incoming:
    """What a server sends of a backup, on its way into an archive. It counts only when `finish` was right."""

    def __init__(self, target: IO[bytes]) -> None:
        """Take the file to write, which is empty and can also be read."""
        self._writer = ArchiveWriter(target)
        self._last: bytes | None = None
        #: How many keys have come, and the bytes of these and their values.
        self.keys = self.bytes = 0

    def add(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Write what has come. `DamagedArchive` when it cannot be what comes next."""
        if len(keys) != len(values):
            raise DamagedArchive(f"the server has sent {len(keys)} keys with {len(values)} values")
        for key, value in zip(keys, values, strict=True):
            if self._last is not None and key <= self._last:
                raise DamagedArchive("the server has sent keys that are not in order")
            self._last = key
            self._writer.add(key, value)
            self.bytes += len(key) + len(value)
        self.keys += len(keys)

    def finish(self, head: ArchiveHead) -> None:
        """Write the end and, at the beginning, what it was. `DamagedArchive` when that is not what has come."""
        if (self.keys, self.bytes) != (head.keys, head.bytes):
            told = f"{self.keys} keys of {self.bytes} bytes have come, and the server has sent {head.keys}"
            raise DamagedArchive(f"{told} of {head.bytes}")
        self._writer.finish(head)


@contextmanager
def new_file(file: Path) -> Iterator[IO[bytes]]:
    """Give a file to write and read, for its owner's eyes only, which becomes `file` when the block ends well.

    It is on disk by then, and there is nothing of it when the block fails. Raises `TargetTaken`, an `OSError`.
    """
    _check_free(file)
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", suffix=".part", dir=file.parent)
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as target:
            yield target
            target.flush()
            os.fsync(target.fileno())
        _take_name(draft, file)
    finally:
        draft.unlink(missing_ok=True)
    _sync(file.parent)


def restore(file: Path, path: Path, progress: Progress = no_progress) -> ArchiveHead:
    """Make the data folder `path`, which must be missing or empty, out of an archive; on disk when it returns.

    All is written beside it first, and takes its name only when the last sum was right. Raises `TargetTaken`, an
    `ArchiveError`, `FolderUnusable`, an `OSError`.
    """
    path = path.absolute()
    _check_target(path)
    with file.open("rb") as source:
        reader = ArchiveReader(source)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".restoring", dir=path.parent))
        try:
            with OfflineFolder.make(draft, purpose="restore") as folder:
                _fill(folder, _counted(reader.pairs(), progress, "restoring", reader.head.keys))
            _put_in_place(draft, path)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    return reader.head


def _head_of(view: View, now: datetime, progress: Progress) -> ArchiveHead:
    keys = size = 0
    for key, value in _counted(view.pairs(), progress, "counting", None):
        keys += 1
        size += len(key) + len(value)
    return ArchiveHead(created=to_rfc3339(now), keys=keys, bytes=size)


def _counted(
    pairs: Iterable[tuple[bytes, bytes]], progress: Progress, step: str, total: int | None
) -> Iterator[tuple[bytes, bytes]]:
    for done, pair in enumerate(pairs, 1):
        if done % _TELL_EVERY == 0 or done == total:
            progress(step, done, total)
        yield pair


def _fill(folder: OfflineFolder, pairs: Iterable[tuple[bytes, bytes]]) -> None:
    batch: list[tuple[bytes, bytes | None]] = []
    size = 0
    for key, value in pairs:
        batch.append((key, value))
        size += len(key) + len(value)
        if size >= _BATCH_BYTES:
            folder.write(batch, sync=False)
            batch, size = [], 0
    folder.write(batch, sync=False)  # its files are synced as a whole, before it takes its name


def _check_free(file: Path) -> None:
    if os.path.lexists(file):
        raise TargetTaken(f"{file} exists already; a backup never takes the place of another.")


def _take_name(draft: Path, file: Path) -> None:
    try:
        file.hardlink_to(draft)  # as a rename does, but for what may have taken the name meanwhile
    except OSError:
        _check_free(file)
        draft.rename(file)  # a file system without links


def _check_target(path: Path) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise TargetTaken(f"{path} exists and is not empty; a restore never changes what is there.")


def _put_in_place(draft: Path, path: Path) -> None:
    for name in (draft, *draft.rglob("*")):
        _sync(name)
    try:
        draft.rename(path)  # takes the place of an empty folder, and of nothing else
    except OSError as error:
        msg = f"The restored folder cannot take the name {path}: {error.strerror or error}."
        raise FolderUnusable(msg) from error
    with suppress(OSError):
        _sync(path.parent)


def _sync(path: Path) -> None:
    """Put a file, or the names in a folder, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
