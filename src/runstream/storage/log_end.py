"""The end of LevelDB's log: what a crash may have torn there is dropped, and nothing else ever is.

Every batch is synced before the next one is written, so a crash can spoil the last record of the log and no other one.
LevelDB by itself drops whatever it cannot read, anywhere, and goes on behind it: commits would be missing with later
ones in their place. So it is opened with `paranoid_checks`, which refuses what does not have its checksum; and then the
log is looked at here. A spoilt record with nothing whole behind it is the torn end, and is cut off. One with a commit
behind it was acknowledged: the database is refused.

    log      block*, of 32 KiB each, the last one shorter
    block    record*, and at most 6 zeros
    record   checksum (4), length (2), type (1), data; little-endian; the checksum is of type and data
    type     1 whole   2 first   3 middle   4 last part of a batch   0 nothing was ever written here
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Final

import plyvel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_log = logging.getLogger(__name__)

_BLOCK: Final = 32 << 10
_HEADER: Final = 7
_TYPES: Final = range(1, 5)
#: The types that begin a batch: whole, first.
_BEGINNINGS: Final = (1, 2)
_MASK: Final = 0xA282EAD8


def open_leveldb(database: Path, **options: Any) -> Any:  # noqa: ANN401  # plyvel has no types
    """Open the database with plyvel's options; blocks. A plyvel.CorruptionError for a commit that is damaged."""
    log = _newest_log(database)
    if log is not None:
        _refuse_hole(log, first_damage(log.read_bytes(), sums=False))
    try:
        return plyvel.DB(str(database), paranoid_checks=True, **options)
    except plyvel.CorruptionError:
        if log is None or not _cut_torn_end(log):
            raise
    return plyvel.DB(str(database), paranoid_checks=True, **options)


def first_damage(data: bytes, *, sums: bool) -> int | None:
    """Return where the first record stands that is not whole; None when there is none. Without `sums`, by headers."""
    at = 0
    while at < len(data):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER:
            at += left
            continue
        size = _size_of(data, at)
        if size is None or (sums and not _sum_fits(data, at, size)):
            return at
        at += size
    return None


def commit_behind(data: bytes, damage: int) -> bool:
    """Tell whether a batch begins whole anywhere behind the damage; lengths there cannot be trusted."""
    return any(_begins_whole(data, at) for at in _places_behind(data, damage))


def _newest_log(database: Path) -> Path | None:
    logs = [file for file in database.glob("*.log") if file.stem.isdigit()]
    return max(logs, key=lambda file: int(file.stem), default=None)


def _cut_torn_end(log: Path) -> bool:
    """Cut off the damaged end of the log, durably; False when it is whole. A plyvel.CorruptionError for a hole."""
    data = log.read_bytes()
    damage = first_damage(data, sums=True)
    if damage is None:
        return False
    _refuse_hole(log, damage)
    with log.open("r+b") as file:
        file.truncate(damage)
        os.fsync(file.fileno())
    _log.warning("dropped the torn end of %s: %d bytes that were never acknowledged", log, len(data) - damage)
    return True


def _refuse_hole(log: Path, damage: int | None) -> None:
    if damage is not None and commit_behind(log.read_bytes(), damage):
        raise plyvel.CorruptionError(
            f"{log} is damaged at byte {damage}, and commits follow behind it. Restore a backup; or, to go on with what"
            " was committed before that byte, cut the file there"
        )


def _size_of(data: bytes, at: int) -> int | None:
    """Return how many bytes the record takes by its header; None when that cannot be."""
    if at + _HEADER > len(data):
        return None
    size = _HEADER + int.from_bytes(data[at + 4 : at + 6], "little")
    fits = at % _BLOCK + size <= _BLOCK and at + size <= len(data)
    return size if fits and data[at + 6] in _TYPES else None


def _begins_whole(data: bytes, at: int) -> bool:
    size = _size_of(data, at)
    return size is not None and data[at + 6] in _BEGINNINGS and _sum_fits(data, at, size)


def _places_behind(data: bytes, damage: int) -> Iterator[int]:
    """Yield where a record may begin: anywhere in the damaged block, by their lengths in those behind it."""
    block_end = min(len(data), damage - damage % _BLOCK + _BLOCK)
    yield from range(damage + 1, block_end)
    for block in range(block_end, len(data), _BLOCK):
        at: int | None = block
        while at is not None and at < min(len(data), block + _BLOCK):
            yield at
            size = _size_of(data, at)
            at = None if size is None else at + size


def _sum_fits(data: bytes, at: int, size: int) -> bool:
    crc = _crc32c(data[at + 6 : at + size])
    masked = ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF
    return masked == int.from_bytes(data[at : at + 4], "little")


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _make_table() -> list[int]:
    table = []
    for number in range(256):
        crc = number
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


_TABLE: Final = _make_table()
