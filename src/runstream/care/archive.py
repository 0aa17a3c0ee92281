r"""The archive: all keys and values of a data folder in one file, checked at every step.

    archive = magic head chunk* end
    magic   = "runstream backup" LF
    head    = "H" frame of JSON: version, format, created, keys, bytes
    chunk   = "C" frame of pairs, compressed with zlib
    end     = "E" SHA-256 of everything before it, 32 bytes; nothing follows

    frame   = size crc content; size and crc are 4 bytes each, big-endian, crc is CRC-32 of the content
    pair    = size of the key, size of the value, each 4 bytes, big-endian; key; value

The pairs stand in the order of their keys, and the head says how many there are. Its JSON ends in spaces, so that it
takes 256 bytes whatever it says: who learns only at the end how many there are can still put it in its place. A chunk
holds about a MiB before it is compressed: that, and the largest value, is what reading takes in memory. Whoever changes
a rule here must raise the number in `VERSION`.

    ArchiveError
    ├── DamagedArchive   torn off, altered, or never one
    └── ForeignArchive   of a version, or a stored format, that is not read here
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Final

from runstream.storage.folder import FORMAT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

VERSION: Final = 1

_MAGIC: Final = b"runstream backup\n"
_HEAD: Final = b"H"
_CHUNK: Final = b"C"
_END: Final = b"E"
_FRAME: Final = struct.Struct(">II")
_PAIR: Final = struct.Struct(">II")
_CHUNK_BYTES: Final = 1 << 20
#: More than any chunk can be: a size beyond it is damage, and not to be believed.
_MOST_BYTES: Final = 1 << 30
_LEVEL: Final = 6
_HEAD_BYTES: Final = 256


class ArchiveError(Exception):
    """An archive cannot be read; the message says why."""


class DamagedArchive(ArchiveError):
    """The file is torn off or altered, or was never an archive."""


class ForeignArchive(ArchiveError):
    """The archive has a version, or holds a stored format, that is not read here."""


@dataclass(frozen=True, slots=True)
class ArchiveHead:
    """What an archive says of itself."""

    #: RFC 3339.
    created: str
    keys: int
    #: The bytes of all keys and values.
    bytes: int
    #: The number of the stored format of the folder.
    format: int = FORMAT
    version: int = VERSION


class ArchiveWriter:
    """Writes an archive to an empty file, from its beginning to its end."""

    def __init__(self, file: IO[bytes], head: ArchiveHead | None = None) -> None:
        """Take the file, and write what comes first. Without a head, `finish` must be given one."""
        self._file = file
        self._sum = hashlib.sha256()
        self._chunk = bytearray()
        self._begin(head or ArchiveHead(created="", keys=0, bytes=0))

    def write_all(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Write all pairs, in the order of their keys, and the end."""
        for key, value in pairs:
            self.add(key, value)
        self.finish()

    def add(self, key: bytes, value: bytes) -> None:
        """Write a pair; its key comes after the one before."""
        self._chunk += _PAIR.pack(len(key), len(value)) + key + value
        if len(self._chunk) >= _CHUNK_BYTES:
            self._end_chunk()

    def finish(self, head: ArchiveHead | None = None) -> None:
        """Write the end. A head takes the place of the one that it began with; the file must be one to be read, too."""
        if self._chunk:
            self._end_chunk()
        if head is not None:
            self._replace_head(head)
        self._file.write(_END + self._sum.digest())

    def _begin(self, head: ArchiveHead) -> None:
        self._write(_MAGIC)
        self._frame(_HEAD, json.dumps(asdict(head)).encode().ljust(_HEAD_BYTES))

    def _replace_head(self, head: ArchiveHead) -> None:
        self._file.seek(0)
        self._sum = hashlib.sha256()
        self._begin(head)
        # A sum cannot be changed at its beginning alone.
        while data := self._file.read(_CHUNK_BYTES):
            self._sum.update(data)

    def _end_chunk(self) -> None:
        self._frame(_CHUNK, zlib.compress(self._chunk, _LEVEL))
        self._chunk.clear()

    def _frame(self, letter: bytes, content: bytes) -> None:
        self._write(letter + _FRAME.pack(len(content), zlib.crc32(content)) + content)

    def _write(self, data: bytes) -> None:
        self._sum.update(data)
        self._file.write(data)


class ArchiveReader:
    """Reads an archive. What it yields counts only when `pairs` has come to its end without an error."""

    def __init__(self, file: IO[bytes]) -> None:
        """Take the file, and read what comes first. Raises an `ArchiveError`."""
        self._file = file
        self._sum = hashlib.sha256()
        self._before_letter = b""
        self._at = 0
        if self._read(len(_MAGIC), "its first line") != _MAGIC:
            raise DamagedArchive("it does not begin as a backup of Runstream does")
        if self._read(1, "its head") != _HEAD:
            raise self._damaged("its head is missing")
        self.head = self._parse_head(self._content())

    def pairs(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all pairs, in the order of their keys. Raises a `DamagedArchive`, whatever was yielded before."""
        keys = size = 0
        last: bytes | None = None
        for chunk in self._chunks():
            for key, value in self._pairs_in(chunk):
                if last is not None and key <= last:
                    raise self._damaged("its keys are not in order")
                last = key
                keys += 1
                size += len(key) + len(value)
                yield key, value
        if (keys, size) != (self.head.keys, self.head.bytes):
            told = f"it holds {keys} keys of {size} bytes, and says {self.head.keys} of {self.head.bytes}"
            raise DamagedArchive(told)

    def _pairs_in(self, chunk: bytes) -> Iterator[tuple[bytes, bytes]]:
        at = 0
        while at < len(chunk):
            if at + _PAIR.size > len(chunk):
                raise self._damaged("a pair is cut off")
            key_size, value_size = _PAIR.unpack_from(chunk, at)
            key_at = at + _PAIR.size
            value_at = key_at + key_size
            at = value_at + value_size
            if at > len(chunk):
                raise self._damaged("a pair is cut off")
            yield chunk[key_at:value_at], chunk[value_at:at]

    def _chunks(self) -> Iterator[bytes]:
        while (letter := self._letter()) == _CHUNK:
            content = self._content()
            try:
                unpacker = zlib.decompressobj()
                chunk = unpacker.decompress(content, _MOST_BYTES)
            except zlib.error as error:
                raise self._damaged(f"a part cannot be decompressed: {error}") from error
            if not unpacker.eof or unpacker.unused_data:
                raise self._damaged("a part is not compressed as a whole")
            yield chunk
        if letter != _END:
            raise self._damaged(f"a part begins with {letter!r}")
        self._check_end()

    def _letter(self) -> bytes:
        self._before_letter = self._sum.digest()  # the sum at the end is of what stands before its letter
        return self._read(1, "the next part")

    def _check_end(self) -> None:
        expected = self._before_letter
        if self._read(len(expected), "its sum") != expected:
            raise self._damaged("its SHA-256 is not that of its contents")
        if self._file.read(1):
            raise self._damaged("something follows its end")

    def _content(self) -> bytes:
        size, crc = _FRAME.unpack(self._read(_FRAME.size, "the size of a part"))
        if size > _MOST_BYTES:
            raise self._damaged(f"a part says that it has {size} bytes")
        content = self._read(size, "a part")
        if zlib.crc32(content) != crc:
            raise self._damaged("the CRC of a part is not that of its contents")
        return content

    def _read(self, size: int, what: str) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise DamagedArchive(f"it is torn off at byte {self._at + len(data)}, inside {what}")
        self._sum.update(data)
        self._at += size
        return data

    def _parse_head(self, content: bytes) -> ArchiveHead:
        try:
            said = json.loads(content)
            head = ArchiveHead(**{name: said[name] for name in ArchiveHead.__slots__})
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged("its head cannot be read") from error
        if head.version != VERSION:
            raise ForeignArchive(f"it has version {head.version}, and {VERSION} is read here")
        if head.format != FORMAT:
            raise ForeignArchive(f"it holds a folder of format {head.format}, and {FORMAT} is read here")
        return head

    def _damaged(self, told: str) -> DamagedArchive:
        return DamagedArchive(f"{told} (at byte {self._at})")
