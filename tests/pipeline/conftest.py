from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from runstream.storage.leveldb import LevelDBStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[LevelDBStore]:
    """A real store in an empty folder."""
    made = LevelDBStore.open(tmp_path / "data", owner={})
    yield made
    await made.close()
