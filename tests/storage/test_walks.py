from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import plyvel
import pytest

from runstream.storage import walks

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path
    from typing import Any

T = TypeVar("T")


@pytest.fixture
def snapshot(tmp_path: Path) -> Iterator[Any]:
    """LevelDB with a handful of keys."""
    with plyvel.DB(str(tmp_path / "db"), create_if_missing=True) as db:
        for key in (b"p1", b"p2", b"p3", b"q1", b"q3", b"r"):
            db.put(key, key * 10)
        with db.snapshot() as snapshot:
            yield snapshot


def answer(walk: Generator[None, None, T]) -> T:
    """Walk to the end."""
    while True:
        try:
            next(walk)
        except StopIteration as end:
            found: T = end.value
            return found


def test_pairs_end_with_the_one_that_reaches_the_bytes(snapshot: Any) -> None:  # noqa: ANN401  # plyvel has no types
    """However large that is; and at the end there is nothing."""
    assert answer(walks.pairs(snapshot, b"", 1)) == [(b"p1", b"p1" * 10)]
    assert [key for key, _ in answer(walks.pairs(snapshot, b"p1\0", 23))] == [b"p2", b"p3"]
    assert [key for key, _ in answer(walks.pairs(snapshot, b"q", 1 << 20))] == [b"q1", b"q3", b"r"]
    assert answer(walks.pairs(snapshot, b"r\0", 1)) == []


@pytest.mark.parametrize(
    ("added", "removed", "expected"),
    [
        (set(), set(), 3),
        ({b"p9"}, set(), 4),
        ({b"p1"}, set(), 3),  # on disk already, though not yet settled
        (set(), {b"p1"}, 2),
        (set(), {b"p0"}, 3),  # gone from disk already
        ({b"p1", b"p8"}, {b"p2", b"p0"}, 3),
    ],
)
def test_a_count_is_right_while_its_writes_reach_the_disk(
    snapshot: Any,  # noqa: ANN401
    added: set[bytes],
    removed: set[bytes],
    expected: int,
) -> None:
    """A key is counted once, whether it is pending, on disk, or just between."""
    assert answer(walks.count(snapshot, b"p", 99, (set(added), removed))) == expected
    assert answer(walks.count(snapshot, b"p", 2, (set(added), removed))) == min(2, expected)


def test_prefixes_end_where_they_end(snapshot: Any) -> None:  # noqa: ANN401
    """A walk neither leaves its prefix nor the database, at either end."""
    whole = (b"", b"\xff")
    assert answer(walks.ids(snapshot, [[b"p"]], whole, 9)) == [b"3", b"2", b"1"]
    assert answer(walks.ids(snapshot, [[b"r"]], whole, 9)) == [b""]
    assert answer(walks.ids(snapshot, [[b"z"]], whole, 9)) == []
    assert answer(walks.ids(snapshot, [[b"a"]], whole, 9)) == []
    assert answer(walks.ids(snapshot, [[b"p"], [b"q"]], whole, 9)) == [b"3", b"1"]
    assert answer(walks.ids(snapshot, [[b"p"], [b"q"]], (b"2", b"\xff"), 9)) == [b"3"]
    assert answer(walks.span(snapshot, b"p2", b"q3", 9)) == [b"p2", b"p3", b"q1"]
    assert answer(walks.values(snapshot, b"r", b"s", 9, 1)) == [(b"r", b"r" * 10)]
