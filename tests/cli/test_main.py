from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from runstream.cli.app import app
from runstream.cli.exit_codes import MEANINGS

if TYPE_CHECKING:
    from tests.cli.processes import CommandLine

VERBS = ("apply", "create", "get", "list", "delete")
COMMANDS = [
    *("run", "watch", "list", "get", "cancel", "terminate", "status", "delete", "apply", "serve"),
    *("pause", "resume", "recover", "approve", "input", "runner"),
    *("tool call", "tool list", "tool schema", "doctor", "backup", "restore", "compact"),
    *(f"{kind} {verb}" for kind in ("agent", "instance", "session") for verb in VERBS),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples(command: str) -> None:
    shown = CliRunner().invoke(app, [*command.split(), "--help"])
    assert shown.exit_code == 0
    assert f"$ runstream {command}" in shown.output


def test_the_help_tells_the_exit_codes(cli: CommandLine) -> None:
    shown = cli.ok("--help").out
    assert "Exit codes" in shown
    assert all(meaning in shown for meaning in MEANINGS.values())


def test_the_version_is_told(cli: CommandLine) -> None:
    assert cli.ok("--version").out == f"runstream {version('runstream')}\n"


def test_a_shell_completes_commands(cli: CommandLine) -> None:
    env = {"_RUNSTREAM_COMPLETE": "complete_bash", "COMP_WORDS": "runstream ag", "COMP_CWORD": "1"}
    assert "agent" in cli("ag", env=env).out


def test_what_is_no_text_is_misuse(cli: CommandLine) -> None:
    assert cli("agent", "get", "caf\udce9").code == 2
    assert cli("run", "x", "y", "--secret", "KEY", env={"KEY": "\udcff"}).code == 2
    assert cli("agent", "create", "x", "--idempotency-key", "a\nb").code == 2


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["list", "--output", "xml"], ["get"]])
def test_misuse_has_its_exit_code(cli: CommandLine, arguments: list[str]) -> None:
    assert cli(*arguments).code == 2
