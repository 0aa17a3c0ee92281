"""Fixtures of pytest. Import those you need in a conftest, or name this module in its `pytest_plugins`.

runstream_server        a server in the loop of the test, for tests that are coroutines (pytest-asyncio)
runstream_server_sync   a server in a thread, for tests that are plain functions
runstream_clock         a manual clock; a test that asks for it too has its server run by it
runstream_settings      the settings of both: none; override it in a conftest, to return a dict of your own
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from runstream.testing.clock import ManualClock
from runstream.testing.local import local_server
from runstream.testing.sync import local_server_sync

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from runstream.testing.local import LocalServer
    from runstream.testing.sync import SyncServer


def _async_fixture(function: Callable[[pytest.FixtureRequest], AsyncIterator[LocalServer]]) -> object:
    """Make a fixture that runs in the loop of the test."""
    try:
        make = import_module("pytest_asyncio").fixture
    except ImportError:  # whatever else runs such tests takes plain ones
        make = pytest.fixture
    return make(function)


@pytest.fixture
def runstream_clock() -> ManualClock:
    """Return a clock that stands still until the test moves it."""
    return ManualClock()


@pytest.fixture
def runstream_settings() -> dict[str, Any]:
    """Return the settings of the servers; `timeout` and `data` may be among them."""
    return {}


@_async_fixture
async def runstream_server(request: pytest.FixtureRequest) -> AsyncIterator[LocalServer]:
    """Run a server for one test, in its loop."""
    async with local_server(**_settings(request)) as server:
        yield server


@pytest.fixture
def runstream_server_sync(request: pytest.FixtureRequest) -> Iterator[SyncServer]:
    """Run a server for one test, in a thread."""
    with local_server_sync(**_settings(request)) as server:
        yield server


def _settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return what is set, if the module that asks for the server has imported the fixture, and the clock if asked."""
    settings: dict[str, Any] = {}
    try:
        settings.update(request.getfixturevalue("runstream_settings"))
    except pytest.FixtureLookupError as error:
        if error.argname != "runstream_settings":
            raise
    if "runstream_clock" in request.fixturenames:
        settings["clock"] = request.getfixturevalue("runstream_clock")
    return settings
