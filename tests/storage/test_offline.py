from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runstream.storage.folder import FolderInUse, FolderUnusable
from runstream.storage.offline import OfflineFolder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a thousand keys in tables."""
    with OfflineFolder.make(tmp_path / "data", purpose="test") as folder:
        folder.write([(b"k%04d" % number, b"%d" % number * 50) for number in range(1_000)])
        folder.compact()
    return tmp_path / "data"


def test_a_view_is_one_state(data: Path) -> None:
    """What is written later is not in it."""
    with OfflineFolder.open(data, purpose="test") as folder, folder.view() as view:
        pairs = view.pairs(b"k")
        assert next(pairs)[0] == b"k0000"
        folder.write([(b"k0001", None), (b"k0002", b"other")])
        assert next(pairs)[0] == b"k0001"
        assert view.get(b"k0002") == b"2" * 50
        assert sum(1 for _ in pairs) == 998


def test_a_prefix_is_all_that_is_walked(data: Path) -> None:
    """The pairs under a prefix are those and no others, in order."""
    with OfflineFolder.open(data, purpose="test") as folder, folder.view() as view:
        assert [key for key, _ in view.pairs(b"k001")] == [b"k001%d" % number for number in range(10)]
        assert list(view.pairs(b"z")) == []


def test_what_the_disk_has_altered_is_told(data: Path) -> None:
    """A block that is not what was written is no end of the keys, and no other value: it is an error."""
    (table,) = (data / "leveldb").glob("*.ldb")
    content = bytearray(table.read_bytes())
    content[len(content) // 3] ^= 1
    table.write_bytes(content)
    with (
        OfflineFolder.open(data, purpose="test") as folder,
        folder.view() as view,
        pytest.raises(FolderUnusable, match="cannot be read"),
    ):
        list(view.pairs())


def test_a_folder_is_held_by_one(data: Path) -> None:
    """Whoever comes second is told for what the folder is held."""
    with OfflineFolder.open(data, purpose="rest"), pytest.raises(FolderInUse, match="purpose rest"):
        OfflineFolder.open(data, purpose="test")
    OfflineFolder.open(data, purpose="test").close()


def test_compacting_gives_space_back_and_keeps_the_rest(data: Path) -> None:
    """What was removed takes no space afterwards."""
    with OfflineFolder.open(data, purpose="test") as folder:
        before = folder.size
        folder.write([(b"k%04d" % number, None) for number in range(1, 1_000)])
        folder.compact()
        assert folder.size < before
        with folder.view() as view:
            assert list(view.pairs()) == [(b"k0000", b"0" * 50)]
