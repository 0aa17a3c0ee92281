from __future__ import annotations

import random
import stat
from datetime import UTC, datetime
from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runstream.care import archive
from runstream.care.archive import (
    ArchiveError,
    ArchiveHead,
    ArchiveReader,
    ArchiveWriter,
    DamagedArchive,
    ForeignArchive,
)
from runstream.care.backup import Incoming, TargetTaken, backup, new_file, restore
from runstream.storage.folder import FolderInUse, FolderUnusable
from runstream.storage.offline import OfflineFolder
from tests.care.folders import findings_of, pairs_of
from tests.making import an_agent
from tests.serving import serving

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
Pairs = list[tuple[bytes, bytes]]


def backed_up(data: Path, file: Path) -> Path:
    """Write a backup of a folder."""
    with OfflineFolder.open(data, purpose="test") as folder:
        backup(folder, file, NOW)
    return file


def noise(keys: int = 40, value: int = 100_000) -> Pairs:
    """Pairs that do not compress, for an archive of several chunks."""
    source = random.Random(7)
    return [(b"key %04d" % number, source.randbytes(value)) for number in range(keys)]


def written(pairs: Pairs, **said: Any) -> bytes:  # noqa: ANN401
    """Write an archive; `said` is what its head says otherwise."""
    size = sum(len(key) + len(value) for key, value in pairs)
    head = ArchiveHead(**{"created": "2026-01-31T12:00:00.000Z", "keys": len(pairs), "bytes": size, **said})
    file = BytesIO()
    ArchiveWriter(file, head).write_all(pairs)
    return file.getvalue()


def read(data: bytes) -> Pairs:
    """Read an archive to its end."""
    return list(ArchiveReader(BytesIO(data)).pairs())


def borders(data: bytes) -> list[int]:
    """Where the parts of an archive begin and end."""
    at, found = len(b"runstream backup\n"), []
    while data[at : at + 1] in (b"H", b"C"):
        found.append(at)
        at += 1 + 8 + int.from_bytes(data[at + 1 : at + 5], "big")
    return [0, *found, at, at + 1]


PAIRS = noise()
ARCHIVE = written(PAIRS)
BORDERS = borders(ARCHIVE)


def test_a_folder_comes_back_bit_for_bit(sound: Path, tmp_path: Path) -> None:
    """Every key and value is there again, the folder is sound, and only its owner can enter it."""
    file = backed_up(sound, tmp_path / "all.backup")
    head = restore(file, tmp_path / "deep" / "data")
    assert pairs_of(tmp_path / "deep" / "data") == pairs_of(sound)
    assert head.keys == len(pairs_of(sound))
    assert head.created == "2026-01-31T12:00:00.000Z"
    assert findings_of(tmp_path / "deep" / "data") == []
    assert stat.S_IMODE((tmp_path / "deep" / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.backup", "deep"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["data"]


async def test_a_server_goes_on_with_a_restored_folder(sound: Path, tmp_path: Path) -> None:
    """What was restored is served, and takes new commands."""
    (tmp_path / "data").mkdir()
    restore(backed_up(sound, tmp_path / "all.backup"), tmp_path / "data")
    async with serving(tmp_path / "data") as running:
        await an_agent(running.client, "new")


def test_an_empty_folder_can_be_backed_up(tmp_path: Path) -> None:
    """Nothing is something to come back to, too."""
    OfflineFolder.make(tmp_path / "data", purpose="test").close()
    restore(backed_up(tmp_path / "data", tmp_path / "file"), tmp_path / "again")
    assert pairs_of(tmp_path / "again") == {}


def test_the_same_state_is_the_same_archive(sound: Path, tmp_path: Path) -> None:
    """Two backups at one time of one state are the same file, and so is that of a restored folder."""
    one = backed_up(sound, tmp_path / "one")
    restore(one, tmp_path / "data")
    assert backed_up(tmp_path / "data", tmp_path / "two").read_bytes() == one.read_bytes()


def test_nothing_that_is_there_is_written_over(sound: Path, tmp_path: Path) -> None:
    """A backup takes no other's place, a restore fills no folder that holds something."""
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(TargetTaken, match="exists already"):
        backed_up(sound, file)
    assert file.read_text() == "mine"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "letter").write_text("dear reader")
    made = backed_up(sound, tmp_path / "other")
    for target in (tmp_path / "data", file):
        with pytest.raises(TargetTaken, match="not empty"):
            restore(made, target)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["letter"]


async def test_a_folder_that_a_server_holds_is_refused(tmp_path: Path) -> None:
    """Who runs on it is told."""
    async with serving(tmp_path / "data") as running:
        with pytest.raises(FolderInUse, match=running.server.address):
            OfflineFolder.open(tmp_path / "data", purpose="test")


def test_what_is_no_data_folder_is_refused_and_left(tmp_path: Path) -> None:
    """A missing folder is not made by looking at it, and a lost database is not made anew."""
    with pytest.raises(FolderUnusable, match="no data folder"):
        OfflineFolder.open(tmp_path / "data", purpose="test")
    assert not (tmp_path / "data").exists()
    OfflineFolder.make(tmp_path / "data", purpose="test").close()
    (tmp_path / "data" / "leveldb" / "CURRENT").unlink()
    with pytest.raises(FolderUnusable, match="cannot be opened"):
        OfflineFolder.open(tmp_path / "data", purpose="test")


def test_an_archive_of_several_chunks_is_read_as_it_was_written() -> None:
    """The tests after this one have borders to cut at."""
    assert read(ARCHIVE) == PAIRS
    assert len(BORDERS) > 5


@pytest.mark.parametrize("beside", [-1, 0, 1])
@pytest.mark.parametrize("border", range(len(BORDERS)))
def test_a_torn_file_is_refused_wherever_it_was_torn(border: int, beside: int) -> None:
    """Cut off at any part, a byte before it or behind it: it is told where."""
    at = max(0, BORDERS[border] + beside)
    with pytest.raises(DamagedArchive, match="torn off at byte"):
        read(ARCHIVE[:at])


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, len(ARCHIVE) - 1) | st.sampled_from(BORDERS[:-1]), bit=st.integers(0, 7))
def test_a_flipped_bit_is_found(at: int, bit: int) -> None:
    """Whichever bit of the file is another: it is refused."""
    altered = bytearray(ARCHIVE)
    altered[at] ^= 1 << bit
    with pytest.raises(ArchiveError):
        read(bytes(altered))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_parts_that_are_moved_lost_or_doubled_are_found(data: st.DataObject) -> None:
    """Every part has a right sum by itself; that they are all there, once and in order, is seen too."""
    starts = BORDERS[2:-1]
    parts = [ARCHIVE[start:end] for start, end in pairwise(starts)]
    other = data.draw(st.lists(st.sampled_from(parts), max_size=len(parts) + 1).filter(lambda them: them != parts))
    with pytest.raises(DamagedArchive):
        read(ARCHIVE[: starts[0]] + b"".join(other) + ARCHIVE[starts[-1] :])


def test_keys_out_of_order_are_refused() -> None:
    """An archive that somebody has put together is not believed."""
    with pytest.raises(DamagedArchive, match="not in order"):
        read(written([(b"b", b""), (b"a", b"")]))
    with pytest.raises(DamagedArchive, match="not in order"):
        read(written([(b"a", b""), (b"a", b"")]))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (written(PAIRS[:1], keys=2), "holds 1 keys"),
        (written(PAIRS[:1], bytes=2), "and says 1 of 2"),
        (ARCHIVE + b"x", "something follows"),
        (b"PK\x03\x04" + bytes(100), "does not begin"),
        (b"", "torn off at byte 0"),
    ],
)
def test_what_does_not_fit_is_told(data: bytes, told: str) -> None:
    """A file that is something else, or more, or less, is refused in words."""
    with pytest.raises(DamagedArchive, match=told):
        read(data)


@pytest.mark.parametrize("said", [{"version": archive.VERSION + 1}, {"format": 99}])
def test_another_version_is_refused(said: dict[str, int]) -> None:
    """An archive of a later version is told from a damaged one."""
    with pytest.raises(ForeignArchive, match="is read here"):
        read(written(PAIRS[:1], **said))


@pytest.mark.parametrize("cut", [10, 3_000_000, len(ARCHIVE) - 1])
def test_a_bad_file_leaves_nothing_behind(tmp_path: Path, cut: int) -> None:
    """Neither the folder nor what was written beside it is there after a refusal."""
    (tmp_path / "file").write_bytes(ARCHIVE[:cut])
    with pytest.raises(DamagedArchive):
        restore(tmp_path / "file", tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def incoming(file: Path, slices: list[Pairs], keys: int, size: int) -> None:
    """Write an archive of what comes in slices, and is said to have been so much."""
    with new_file(file) as target:
        archive = Incoming(target)
        for pairs in slices:
            archive.add([key for key, _ in pairs], [value for _, value in pairs])
        archive.finish(ArchiveHead("2026-01-31T12:00:00.000Z", keys, size))


def test_what_comes_in_slices_makes_the_same_archive(tmp_path: Path) -> None:
    """How many there are is learnt at the end, and stands at the beginning all the same: bit for bit the same file."""
    size = sum(len(key) + len(value) for key, value in PAIRS)
    incoming(tmp_path / "file", [PAIRS[:1], PAIRS[1:30], [], PAIRS[30:]], len(PAIRS), size)
    assert (tmp_path / "file").read_bytes() == ARCHIVE
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
    incoming(tmp_path / "empty", [], 0, 0)
    assert (tmp_path / "empty").read_bytes() == written([])


@pytest.mark.parametrize(
    ("slices", "keys", "told"),
    [
        ([[(b"a", b"1")]], 2, "1 keys of 2 bytes have come, and the server has sent 2 of 2"),
        ([[(b"a", b"")], [(b"a", b"")]], 2, "not in order"),
        ([[(b"b", b""), (b"a", b"")]], 2, "not in order"),
    ],
)
def test_slices_that_do_not_fit_make_no_file(tmp_path: Path, slices: list[Pairs], keys: int, told: str) -> None:
    """What is lost, doubled or out of order on its way is found before the file has its name."""
    with pytest.raises(DamagedArchive, match=told):
        incoming(tmp_path / "file", slices, keys, 2)
    assert list(tmp_path.iterdir()) == []


def test_keys_without_values_are_refused(tmp_path: Path) -> None:
    """They cannot be told apart any more."""
    with pytest.raises(DamagedArchive, match="2 keys with 1 values"), new_file(tmp_path / "file") as target:
        Incoming(target).add([b"a", b"b"], [b""])


def test_a_file_that_has_come_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    """Whoever is first has the name, also when a backup took long."""
    with pytest.raises(TargetTaken), new_file(tmp_path / "file"):
        (tmp_path / "file").write_text("mine")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_backup_that_fails_leaves_nothing_behind(sound: Path, tmp_path: Path) -> None:
    """A folder that cannot be read to its end makes no file."""

    def fail(step: str, _done: int, _total: int | None) -> None:
        if step == "writing":
            raise KeyboardInterrupt

    with OfflineFolder.open(sound, purpose="test") as folder, pytest.raises(KeyboardInterrupt):
        backup(folder, tmp_path / "file", NOW, fail)
    assert list(tmp_path.iterdir()) == []
