"""The README: what it tells a newcomer to type works as it stands there."""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
from asyncio.subprocess import PIPE, STDOUT, create_subprocess_exec
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from runstream.v1.agent_execution_pb2 import EXECUTION_COMPLETED
from tests.making import stored
from tests.process import server_process

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator

_README = Path(__file__).parents[2] / "README.md"
_SECONDS = 60


class Terminal:
    """Runs commands of the README as somebody does who has followed it so far."""

    def __init__(self, folder: Path, server: str) -> None:
        self._folder = folder
        self._server = server

    @asynccontextmanager
    async def running(self, command: list[str]) -> AsyncIterator[Process]:
        """Run a command for the length of the block."""
        process = await create_subprocess_exec(
            *(sys.executable, "-m", "runstream.cli.main", *command[1:]),
            stdout=PIPE,
            stderr=STDOUT,
            cwd=self._folder,
            env={"RUNSTREAM_SERVER": self._server, "PATH": "/usr/bin:/bin"},
        )
        try:
            async with asyncio.timeout(_SECONDS):
                yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def to_its_end(self, command: list[str]) -> tuple[int | None, str]:
        """Run a command; return its exit code and what it printed."""
        async with self.running(command) as process:
            said, _ = await process.communicate()
        return process.returncode, said.decode()


def blocks(language: str) -> list[str]:
    """The code blocks of the README in a language."""
    return re.findall(rf"```{language}\n(.*?)```", _README.read_text(encoding="utf-8"), re.DOTALL)


def command(beginning: str) -> list[str]:
    """The one command of the README that begins with some words, split, without its comment."""
    lines = [line.partition("#")[0] for block in blocks("sh") for line in block.splitlines()]
    (found,) = [shlex.split(line) for line in lines if line.startswith(beginning)]
    return found


async def said_until(process: Process, pattern: str) -> str:
    """Read what a process prints, up to the line that has this in it; return it all."""
    assert process.stdout is not None
    said = ""
    async for line in process.stdout:
        said += line.decode()
        if re.search(pattern, line.decode()):
            return said
    raise AssertionError(f"{pattern} did not come: {said}")


async def test_the_agent_of_the_readme_does_what_the_readme_says(tmp_path: Path) -> None:
    (tmp_path / "greet.py").write_text(blocks("python")[0], encoding="utf-8")
    async with server_process(tmp_path / "data") as server, server.client() as client:
        terminal = Terminal(tmp_path, server.address)
        async with terminal.running(command("runstream runner")) as runner:
            await said_until(runner, "attached as ")
            async with terminal.running(command("runstream run ")) as run:
                said = await said_until(run, "phase WAITING_FOR_APPROVAL")
                (execution_id,) = set(re.findall(r"aex_\w+", said))
                approve = [execution_id if word == "aex_…" else word for word in command("runstream approve")]
                approved = await terminal.to_its_end(approve)
                said += await said_until(run, "COMPLETED in ")
                assert await run.wait() == 0
            runner.terminate()
            assert await runner.wait() == 0
        execution = await stored(client, execution_id)
    assert approved[0] == 0, approved
    assert "Hello, Ada. What a fine day to count revisions." in said
    assert execution.status.phase == EXECUTION_COMPLETED
    assert [call.name for call in execution.status.tool_calls] == ["look_up", "send_card"]
    assert execution.status.messages[-1].content == "The card is on its way."


def test_the_agent_of_the_readme_is_as_short_as_it_looks() -> None:
    lines = [line for line in blocks("python")[0].splitlines() if line.strip()]
    assert len(lines) <= 15


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", _README.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (_README.parent / link).exists()] == []
