"""docs/testing.md: every block of it runs as it stands there."""

from __future__ import annotations

import asyncio
import re
import sys
from asyncio.subprocess import PIPE, STDOUT, create_subprocess_exec
from pathlib import Path

_PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


def blocks(language: str) -> list[str]:
    """The code blocks of the page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL)


async def test_every_block_runs(tmp_path: Path) -> None:
    names = []
    for block in blocks("python"):
        named = re.match(r"# (\S+\.py)\n", block)
        assert named is not None, f"a block names the file that it is: {block}"
        names.append(named[1])
        (tmp_path / named[1]).write_text(block, encoding="utf-8")
    (project,) = blocks("toml")
    strict = 'asyncio_default_fixture_loop_scope = "function"\nfilterwarnings = ["error"]\n'
    (tmp_path / "pyproject.toml").write_text(project + strict, encoding="utf-8")
    tests = sum(len(re.findall(r"def test_", block)) for block in blocks("python"))
    process = await create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"), cwd=tmp_path, stdout=PIPE, stderr=STDOUT
    )
    async with asyncio.timeout(60):
        told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()
    assert f"{tests} passed" in told.decode()
    assert len(set(names)) == len(names)


def test_the_page_names_everything_that_can_be_imported() -> None:
    import runstream.testing  # noqa: PLC0415  # what is tested is what it exports

    page = _PAGE.read_text(encoding="utf-8")
    told_as_values = {"Handle", "LocalServer", "Phase", "State", "Step", "SyncHandle", "SyncServer"}
    assert [name for name in runstream.testing.__all__ if name not in page and name not in told_as_values] == []
