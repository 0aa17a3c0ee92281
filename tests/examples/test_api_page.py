"""The page about the API: the program on it works as it stands there."""

from __future__ import annotations

import asyncio
import re
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from pathlib import Path

from runstream.v1.agent_execution_pb2 import EXECUTION_COMPLETED
from tests.making import an_execution, stored
from tests.serving import serving

_PAGE = Path(__file__).parents[2] / "docs" / "api.md"


async def test_an_execution_can_be_driven_without_a_runner(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL)
    async with serving(tmp_path / "data") as running:
        execution_id = await an_execution(running.client)
        process = await create_subprocess_exec(
            sys.executable, "-c", program, execution_id, running.server.address, stdout=PIPE, stderr=PIPE
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        execution = await stored(running.client, execution_id)
    assert (process.returncode, out, err) == (0, b"", b"")
    assert (execution.status.phase, execution.status.attempt) == (EXECUTION_COMPLETED, 0)
    assert execution.status.messages[0].content == "Hello, Ada. What a fine day to count revisions. "
