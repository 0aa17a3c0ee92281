"""The page about tools: what it shows runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from runstream.runner import tools
from runstream.v1.agent_execution_pb2 import TOOL_CALL_COMPLETED, TOOL_CALL_FAILED
from tests.runner.served import said, serving_agents

PAGE = (Path(__file__).parents[2] / "docs" / "tools.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def shown() -> dict[str, Any]:
    """What the page defines, in one module."""
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, "tools.md", "exec"), names)  # noqa: S102  # our own page
    return names


async def test_the_tools_of_the_page_do_what_it_says(tmp_path: Path) -> None:
    names = shown()
    agents = {name: names[name] for name in ("librarian", "offering", "cautious")}
    async with serving_agents(tmp_path / "data", agents) as served:
        read = await served.result(agent="librarian")
        assert said(read) == [" should read Shells, volume 1."], read.status.error
        outer, inner = read.status.tool_calls
        assert (outer.name, inner.name, inner.parent_call_id) == ("recommend", "search", outer.id)
        assert {outer.status, inner.status} == {TOOL_CALL_COMPLETED}
        assert said(await served.result(agent="offering")) == ["One tool is offered."]
        cautious = (await served.result(agent="cautious")).status
    assert cautious.messages[-1].content == "TOOL_ARGUMENTS_INVALID"
    assert [call.reason for call in cautious.tool_calls] == ["TOOL_NOT_ALLOWED", "TOOL_ARGUMENTS_INVALID"]
    assert {call.status for call in cautious.tool_calls} == {TOOL_CALL_FAILED}


async def test_a_tool_is_called_by_hand_as_the_page_says() -> None:
    assert await shown()["by_hand"]() == "ada should read Shells, volume 1."


def test_the_page_names_every_error_and_reason() -> None:
    errors = [name for name in tools.__all__ if name.startswith("Tool") and name.endswith(("Unknown", "Allowed"))]
    errors += ["ToolArgumentsInvalid", "ToolBroke", "DeadlineExceeded", "BudgetExceeded"]
    assert len(errors) == 6
    assert [name for name in errors if f"`{name}`" not in PAGE] == []
