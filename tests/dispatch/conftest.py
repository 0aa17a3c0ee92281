from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from runstream.storage.leveldb import LevelDBStore
from tests.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still."""
    return FakeClock()


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[LevelDBStore]:
    """A real store in an empty folder."""
    made = LevelDBStore.open(tmp_path / "data", owner={})
    yield made
    await made.close()
