"""The README: what it tells a newcomer to type works as it stands there."""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from pathlib import Path
from typing import TYPE_CHECKING

from runstream.v1.agent_execution_pb2 import EXECUTION_COMPLETED, EXECUTION_PENDING
from runstream.v1.agent_execution_service_pb2 import ListAgentExecutionsRequest
from tests.making import stored
from tests.process import server_process

if TYPE_CHECKING:
    from tests.serving import Client

_README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    """The code blocks of the README in a language."""
    return re.findall(rf"```{language}\n(.*?)```", _README.read_text(encoding="utf-8"), re.DOTALL)


def commands(beginning: str) -> list[list[str]]:
    """The commands of the README that begin with some words, split, without their comments."""
    lines = [line.partition("#")[0] for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith(beginning)]


async def run(*arguments: str, server: str) -> tuple[int | None, str]:
    """Run a program of this Python; return its exit code and what it printed."""
    process = await create_subprocess_exec(
        sys.executable, *arguments, stdout=PIPE, stderr=PIPE, env={"RUNSTREAM_SERVER": server, "PATH": "/usr/bin:/bin"}
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode, (out + err).decode()


async def pending(client: Client) -> str:
    """The id of the execution that waits to be done, as soon as there is one."""
    request = ListAgentExecutionsRequest(phase=EXECUTION_PENDING)
    changes = client.queries.WatchList(request)
    await changes.initial_metadata()
    for execution in (await client.queries.List(request)).entries:
        return execution.metadata.id
    async for execution in changes:
        return execution.metadata.id
    raise AssertionError("the stream ended")


async def test_the_agent_of_the_readme_does_what_the_readme_says(tmp_path: Path) -> None:
    program = tmp_path / "greet.py"
    program.write_text(blocks("python")[0], encoding="utf-8")
    (create,), (follow,) = commands("runstream agent create"), commands("runstream run")
    async with server_process(tmp_path / "data") as server, server.client() as client:
        made = await run("-m", "runstream.cli.main", *create[1:], server=server.address)
        following = asyncio.create_task(run("-m", "runstream.cli.main", *follow[1:], server=server.address))
        async with asyncio.timeout(60):
            execution_id = await pending(client)
        worked = await run(str(program), execution_id, server.address, server=server.address)
        followed = await following
        execution = await stored(client, execution_id)
    assert made[0] == worked[0] == followed[0] == 0, (made, worked, followed)
    assert execution.status.phase == EXECUTION_COMPLETED
    assert execution.status.messages[0].content == "Hello, Ada. What a fine day to count revisions. "
    assert execution_id in followed[1]
    assert "What a fine day" in followed[1]


def test_the_agent_of_the_readme_is_as_short_as_it_looks() -> None:
    lines = [line for line in blocks("python")[0].splitlines() if line.strip()]
    assert len(lines) <= 15
