from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.care.folders import fill

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound folder with one of everything, for all tests: to be copied, not changed."""
    data = tmp_path_factory.mktemp("sound") / "data"
    asyncio.run(fill(data))
    return data


@pytest.fixture
def data(sound: Path, tmp_path: Path) -> Path:
    """A sound folder with one of everything, for one test."""
    return shutil.copytree(sound, tmp_path / "data")
