from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from tests.serving import Client, Serving, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest_asyncio.fixture
async def running(tmp_path: Path) -> AsyncIterator[Serving]:
    """A real server on an empty data folder, and a client of it."""
    async with serving(tmp_path / "data") as made:
        yield made


@pytest_asyncio.fixture
async def client(running: Serving) -> Client:
    """A client of a real server on an empty data folder."""
    return running.client
