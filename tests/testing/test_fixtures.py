"""The fixtures, in folders of tests such as users have."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT, create_subprocess_exec
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_ASYNC = """
    [pytest]
    asyncio_mode = auto
    asyncio_default_fixture_loop_scope = function
"""
_PLUGIN = """
    pytest_plugins = ["runstream.testing.fixtures"]
"""


class Folder:
    """A folder of tests, which run in a process of their own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, name: str, text: str) -> None:
        """Write a file."""
        (self._path / name).write_text(dedent(text), encoding="utf-8")

    async def run(self, *options: str) -> tuple[int | None, str]:
        """Run the tests; return the exit code and what was written."""
        return await python("-m", "pytest", "-q", "-p", "no:cacheprovider", *options, folder=self._path)


async def python(*arguments: str, folder: Path) -> tuple[int | None, str]:
    """Run this Python in a folder; return the exit code and what it wrote."""
    process = await create_subprocess_exec(sys.executable, *arguments, cwd=folder, stdout=PIPE, stderr=STDOUT)
    async with asyncio.timeout(60):
        told, _ = await process.communicate()
    return process.returncode, told.decode()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    made.write("pytest.ini", _ASYNC)
    return made


async def test_they_can_be_named_as_a_plugin(folder: Folder) -> None:
    folder.write("conftest.py", _PLUGIN)
    folder.write(
        "test_agents.py",
        """
        from runstream.testing import Script

        async def test_in_the_loop(runstream_server, runstream_clock):
            assert runstream_server.clock is runstream_clock
            assert (await runstream_server.run(Script("Hi."))).answer == "Hi."

        def test_in_a_thread(runstream_server_sync):
            assert runstream_server_sync.clock is None
            assert runstream_server_sync.run(Script("Hi.")).answer == "Hi."
        """,
    )
    code, told = await folder.run()
    assert code == 0, told
    assert "2 passed" in told


async def test_one_alone_can_be_imported(folder: Folder) -> None:
    folder.write(
        "test_agents.py",
        """
        from runstream.testing import Script
        from runstream.testing.fixtures import runstream_server

        async def test_in_the_loop(runstream_server):
            assert (await runstream_server.run(Script("Hi."))).answer == "Hi."
        """,
    )
    code, told = await folder.run()
    assert code == 0, told


async def test_settings_that_cannot_be_made_are_an_error(folder: Folder) -> None:
    folder.write("conftest.py", _PLUGIN)
    folder.write(
        "test_agents.py",
        """
        import pytest

        @pytest.fixture
        def runstream_settings(nowhere):
            return {}

        def test_in_a_thread(runstream_server_sync):
            pass
        """,
    )
    code, told = await folder.run()
    assert code == 1
    assert "'nowhere' not found" in told


async def test_plain_tests_need_no_plugin_for_coroutines(folder: Folder) -> None:
    folder.write("pytest.ini", "[pytest]\n")
    folder.write("conftest.py", _PLUGIN)
    folder.write(
        "pytest_asyncio.py",
        """
        raise ImportError("this stands for an environment without it")
        """,
    )
    folder.write(
        "test_agents.py",
        """
        from runstream.testing import Script

        def test_in_a_thread(runstream_server_sync):
            assert runstream_server_sync.run(Script("Hi.")).answer == "Hi."
        """,
    )
    code, told = await folder.run("-p", "no:asyncio")
    assert code == 0, told


async def test_a_failing_test_tells_where_the_execution_stands(folder: Folder) -> None:
    folder.write("conftest.py", _PLUGIN)
    folder.write(
        "test_agents.py",
        """
        async def broken(invocation):
            raise ValueError("no such town")

        async def test_fails(runstream_server):
            state = await runstream_server.run(broken)
            assert state.expect().answer == "Hi."
        """,
    )
    code, told = await folder.run()
    assert code == 1
    assert "AssertionError: expected completed: execution aex_" in told
    assert "error: ValueError: no such town" in told
    assert "Traceback" in told  # of the agent, from its runner's log
    assert "1 failed" in told


async def test_pytest_is_not_needed_to_run_a_server(tmp_path: Path) -> None:
    program = """
        import sys
        from runstream.testing import Script, local_server_sync

        with local_server_sync() as server:
            print(server.run(Script("Hi.")).answer)
        assert not any(name.partition(".")[0] in ("pytest", "_pytest", "pytest_asyncio") for name in sys.modules)
    """
    code, told = await python("-c", dedent(program), folder=tmp_path)
    assert code == 0, told
    assert told.strip() == "Hi."
