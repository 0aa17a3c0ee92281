"""Frameworks are optional: nothing is imported that is not asked for, and what is missing is named."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Modules, the framework that each needs, and the extra that brings it.
NEEDS = [
    ("runstream.adapters.langgraph", "langgraph", "langgraph"),
    ("runstream.adapters.pydantic_ai", "pydantic_ai", "pydantic-ai"),
    ("runstream.adapters.openai_agents", "agents", "openai-agents"),
    ("runstream.testing.langchain", "langchain_core", "langgraph"),
]


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a Python of its own."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_adapters_import_no_framework_before_one_is_asked_for() -> None:
    heavy = sorted({framework for _, framework, _ in NEEDS})
    program = f"import runstream.adapters, runstream.testing, sys; print(sorted(sys.modules.keys() & {heavy}))"
    assert run(program).stdout.strip() == "[]"


@pytest.mark.parametrize(("module", "framework", "extra"), NEEDS)
def test_a_framework_that_is_missing_is_named_with_what_to_install(module: str, framework: str, extra: str) -> None:
    ended = run(f"import sys; sys.modules[{framework!r}] = None; import {module}")
    assert ended.returncode != 0
    assert ended.stderr.splitlines()[-1].endswith(f"pip install 'runstream[{extra}]'")
