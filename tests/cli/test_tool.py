from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from runstream.cli.app import app

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.processes import CommandLine, Result

TOOLS = '''
import asyncio
import threading

from runstream.runner import Approval, ExecutionContext, ToolDispatcher, ToolRegistry

registry = ToolRegistry()
dispatcher = ToolDispatcher(registry)


@registry.tool
def search(query: str, limit: int = 3) -> dict[str, object]:
    """Search the library.

    By title.
    """
    return {"titles": [query] * limit}


@registry.tool
async def whoami(context: ExecutionContext) -> str:
    await context.report.text("Let me see. ")
    await dispatcher.call("search", {"query": "me"}, context)
    return f"{context.user or 'nobody'} in {context.session}: \\x1b[31m{context.secret('KEY')}"


@registry.tool
def broken(context: ExecutionContext) -> None:
    raise LookupError(f"no {context.secret('KEY')}")


@registry.tool
async def hang(context: ExecutionContext) -> None:
    await context.report.text("I hang.")
    await asyncio.Event().wait()


@registry.tool
def block(context: ExecutionContext) -> None:
    context.wait(context.report.text("I block."))
    threading.Event().wait()


@registry.tool
async def give_up() -> None:
    raise asyncio.CancelledError


@registry.tool(approval=Approval())
def deploy() -> None: ...


def untyped(thing): ...


number = 7
'''

ALL = ("--import", "my_tools:registry")
#: What a command has that is no module run by Python: the current folder is not on its path.
INSTALLED = {"PYTHONSAFEPATH": "1"}


class Tools:
    """The command, in a folder with tools."""

    def __init__(self, cli: CommandLine, folder: Path) -> None:
        self.cli = cli
        self.folder = folder

    def __call__(self, *arguments: str, stdin: str = "", env: dict[str, str] | None = None) -> Result:
        """Run it to its end."""
        return self.cli("tool", *arguments, stdin=stdin, env=INSTALLED | (env or {}), folder=self.folder)


@pytest.fixture
def tools(cli: CommandLine, tmp_path: Path) -> Tools:
    """A module with tools."""
    (tmp_path / "my_tools.py").write_text(TOOLS)
    return Tools(cli, tmp_path)


@pytest.mark.parametrize("command", ["call", "list", "schema"])
def test_every_command_explains_itself_with_examples(command: str) -> None:
    shown = CliRunner().invoke(app, ["tool", command, "--help"])
    assert shown.exit_code == 0
    assert f"$ runstream tool {command}" in shown.output


def test_a_tool_prints_its_result_and_nothing_else_on_the_output(tools: Tools) -> None:
    shown = tools("call", "search", *ALL, "--data", '{"query": "Emma", "limit": 1}')
    assert (shown.code, shown.out) == (0, '{\n  "titles": [\n    "Emma"\n  ]\n}\n')
    assert "✓ search limit=1 query=Emma" in shown.err
    assert tools("call", "search", *ALL, "--data", '{"query": "Emma"}', "-o", "yaml").out.startswith("titles:\n")


def test_arguments_come_from_the_input_or_a_file_too(tools: Tools) -> None:
    (tools.folder / "query.json").write_text('{"query": "Persuasion", "limit": 1}')
    assert tools("call", "search", *ALL, "--data", "@query.json", "-o", "json").json == {"titles": ["Persuasion"]}
    read = tools("call", "search", *ALL, "--data", "-", "-o", "json", stdin='{"query": "Emma", "limit": 0}')
    assert read.json == {"titles": []}
    missing = tools("call", "search", *ALL, "--data", "@none.json")
    assert (missing.code, "none.json: No such file" in missing.err) == (2, True)


def test_what_a_tool_reports_is_told_as_it_comes_and_its_context_is_as_given(tools: Tools) -> None:
    (tools.folder / "context.json").write_text('{"user": "ada"}')
    shown = tools("call", "whoami", *ALL, "--context", "@context.json", "--env", "KEY=k-1")
    assert (shown.code, shown.out) == (0, "ada in None: k-1\n")
    steps = ["agent: Let me see.", "  … search query=me", "  ✓ search query=me", "✓ whoami"]
    lines = iter(shown.err.splitlines())
    assert all(any(line.startswith(step) for line in lines) for step in steps)
    as_json = tools("call", "whoami", *ALL, "--secret", "KEY", "-o", "json", env={"KEY": "k-2"})
    assert as_json.json == "nobody in None: \x1b[31mk-2"
    assert "\x1b" not in as_json.out


def test_a_context_can_be_made_of_a_session(tools: Tools, agent: str, name: str) -> None:
    tools.cli.ok("instance", "create", f"{name}-here", "--agent", agent)
    session = tools.cli.json("session", "create", "--instance", f"{name}-here")["metadata"]["id"]
    shown = tools("call", "whoami", *ALL, "--session", session, "--env", "KEY=k-1")
    assert (shown.code, shown.out) == (0, f"nobody in {session}: k-1\n")
    without = tools("call", "whoami", *ALL, "--session", "stateless_execution", "--env", "KEY=k-1")
    assert (without.code, without.out) == (0, "nobody in None: k-1\n")
    unknown = tools("call", "whoami", *ALL, "--session", f"ses_{'0' * 26}", "-o", "json")
    assert (unknown.code, json.loads(unknown.err)["code"]) == (1, "NOT_FOUND")


def test_without_a_session_no_server_is_needed(tools: Tools) -> None:
    assert tools("call", "search", *ALL, "--data", '{"query": "x"}', "--server", "127.0.0.1:1").code == 0
    away = tools("call", "search", *ALL, "--session", f"ses_{'0' * 26}", "--server", "127.0.0.1:1")
    assert away.code == 6


@pytest.mark.parametrize(
    ("arguments", "code", "reason", "told"),
    [
        (["serch"], "NOT_FOUND", "TOOL_UNKNOWN", "Did you mean 'search'?"),
        (["search"], "INVALID_ARGUMENT", "TOOL_ARGUMENTS_INVALID", "query: Field required"),
        (["search", "--data", "{"], "INVALID_ARGUMENT", "TOOL_ARGUMENTS_INVALID", "they are not JSON"),
        (["search", "--context", '{"allowed_tools": []}'], "PERMISSION_DENIED", "TOOL_NOT_ALLOWED", "is not allowed"),
        (["hang", "--context", '{"max_duration": 0.01}'], "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "The deadline"),
        (["give_up", "--context", '{"budget": {"tool_calls": 0}}'], "RESOURCE_EXHAUSTED", "BUDGET_EXCEEDED", "0 tool"),
        (["deploy"], "FAILED_PRECONDITION", "NOBODY_TO_ASK", "nobody to ask"),
        (["broken", "--env", "KEY=hush-hush"], "FAILED", "TOOL_ERROR", "LookupError: no ***"),
        (["give_up"], "CANCELLED", "", "has cancelled itself"),
    ],
)
def test_what_goes_wrong_is_told_with_its_reason(
    tools: Tools, arguments: list[str], code: str, reason: str, told: str
) -> None:
    refused = tools("call", *arguments, *ALL, "-o", "json")
    assert (refused.code, refused.out) == (1, "")
    failure = json.loads(refused.err.splitlines()[-1])
    assert (failure["code"], failure["reason"]) == (code, reason)
    assert told in failure["message"]
    assert "hush-hush" not in refused.err


def test_a_person_is_told_where_a_tool_has_failed(tools: Tools) -> None:
    refused = tools("call", "broken", *ALL, "--env", "KEY=x")
    line = TOOLS.splitlines().index("""    raise LookupError(f"no {context.secret('KEY')}")""") + 1
    assert f"hint: it was raised in {tools.folder / 'my_tools.py'}, line {line}\n" in refused.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["call", "search", *ALL, "--context", "{"], "--context: is not JSON"),
        (["call", "search", *ALL, "--context", "[]"], "--context: must be a JSON object"),
        (["call", "search", *ALL, "--context", '{"user": 7}'], "--context: user must be a text, not 7"),
        (["call", "search", *ALL, "--context", '{"usr": "ada"}'], "--context: has no usr; it has org, user"),
        (["call", "search", *ALL, "--env", "KEY"], "--env takes KEY=VALUE"),
        (["list", "--import", "my_tools"], "--import takes MODULE:ATTRIBUTE, as in my_tools:registry"),
        (["list", "--import", "my_tools:number"], "neither a ToolRegistry nor a function, but of type int"),
        (["list", "--import", "my_tools:ToolRegistry"], "neither a ToolRegistry nor a function, but a class"),
        (["list", "--import", "my_tools:untyped"], "does not say of which type its parameter 'thing' is"),
    ],
)
def test_what_makes_no_sense_is_misuse(tools: Tools, arguments: list[str], told: str) -> None:
    refused = tools(*arguments)
    assert refused.code == 2
    assert told in refused.err


@pytest.mark.parametrize(("name", "said"), [("hang", "I hang."), ("block", "I block.")])
def test_an_interrupt_cancels_the_tool(tools: Tools, name: str, said: str) -> None:
    process = tools.cli.start("tool", "call", name, *ALL, env=INSTALLED, folder=tools.folder)
    process.wait_for(said)
    process.signal(signal.SIGINT)
    assert process.wait() == 130
    assert f"! {name} " in process.output
    assert "Traceback" not in process.output


def test_tools_are_listed_with_what_they_are_for(tools: Tools) -> None:
    shown = tools("list", *ALL)
    assert shown.code == 0
    assert "search   Search the library.\n" in shown.out
    listed = tools("list", "--import", "my_tools:dispatcher", "-o", "json").json
    assert [each["name"] for each in listed][:2] == ["search", "whoami"]
    assert [each["name"] for each in tools("list", "--import", "my_tools:search", "-o", "json").json] == ["search"]


def test_a_schema_is_what_a_model_is_told(tools: Tools) -> None:
    shown = tools("schema", "search", *ALL)
    assert shown.code == 0
    assert shown.json["description"] == "Search the library.\n\nBy title."
    assert shown.json["parameters"]["properties"]["limit"] == {"type": "integer", "default": 3}
    assert tools("schema", "search", *ALL, "-o", "json").json == shown.json
    unknown = tools("schema", "nobody", *ALL)
    assert (unknown.code, "there are search, whoami" in unknown.err) == (1, True)
