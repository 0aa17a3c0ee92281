"""The page about contexts: what it shows runs as it stands there."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from runstream.runner import ExecutionContext
from runstream.testing import local_server
from runstream.v1.agent_execution_pb2 import AgentExecution

PAGE = (Path(__file__).parents[2] / "docs" / "context.md").read_text(encoding="utf-8")


def shown() -> dict[str, Any]:
    """What the page defines, in one module."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "context.md", "exec"), names)  # noqa: S102  # our own page
    return names


async def test_the_agents_of_the_page_do_what_it_says() -> None:
    names = shown()
    served = ("interpreter", "careful", "proofreader", "editor", "writer")
    request = AgentExecution()
    request.spec.message = "good morning"
    request.spec.context.user_id, request.spec.context.language = "ada", "de"
    async with local_server() as server:
        await server.serve({name: names[name] for name in served})
        assert (await server.run("interpreter", request)).expect().answer == "good morning (ada, de)"
        assert (await server.run("careful", request)).expect().answer == "2 tools left"
        assert (await server.run("editor")).expect().answer == "A draft"
        written = "outline of bees, filled in + outline of bees, filled in, filled in"
        assert (await server.run("writer", "bees")).expect().answer == written


def test_the_table_names_every_field() -> None:
    table = PAGE.partition("## What is in it")[2].partition("## The rules")[0]
    fields = [field.name for field in dataclasses.fields(ExecutionContext) if not field.name.startswith("_")]
    assert [name for name in fields if f"`{name}`" not in table] == []
