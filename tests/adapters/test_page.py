"""The page about adapters: what it shows of LangGraph runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.adapters.frameworks import require

if TYPE_CHECKING:
    from runstream.testing import LocalServer

require("langchain")

PAGE = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")
(SECTION,) = re.findall(r"\n## LangGraph and deepagents\n(.*?)\n## ", PAGE, re.DOTALL)


async def test_the_graphs_of_the_page_do_what_it_says(runstream_server: LocalServer) -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL):
        exec(compile(block, "adapters.md", "exec"), names)  # noqa: S102  # our own page
    await runstream_server.serve(names["agents"])
    adder = (await runstream_server.run("adder", "go")).expect()
    assert (adder.texts, adder.tool("add").result) == (["Let me add. ", "It is 3."], "3")
    assert (await runstream_server.run("greeter", "go")).expect().tool("greet").result == "Hello, nobody."
    assert (await runstream_server.run("shouter", "hear me")).expect().answer == "HEAR ME"
    careful = await runstream_server.start("careful", "go")
    await careful.approve("add")
    assert (await careful.result()).expect().answer == "Thank you."
