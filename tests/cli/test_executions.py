from __future__ import annotations

import json
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.processes import CommandLine


def _status(cli: CommandLine, execution: str, **delta: object) -> str:
    return cli.ok("status", execution, "--data", json.dumps(delta)).out


def test_a_status_is_merged_from_data_and_file(cli: CommandLine, execution: str, tmp_path: Path) -> None:
    assert "PENDING, revision 2" in _status(cli, execution, todos={"a": {"content": "look"}})
    file = tmp_path / "delta.yaml"
    file.write_text("phase: EXECUTION_IN_PROGRESS\nmessages:\n- {id: m, type: MESSAGE_AI, content: Hello}\n")
    assert "IN_PROGRESS, revision 3" in cli.ok("status", execution, "-f", str(file)).out
    assert "COMPLETED" in cli.ok("status", execution, "--phase", "completed").out
    state = cli.json("get", execution)["status"]
    assert state["messages"][0]["content"] == "Hello"
    assert state["todos"]["a"]["content"] == "look"


def test_a_repeated_sequence_changes_nothing(cli: CommandLine, execution: str) -> None:
    first = cli.ok("status", execution, "--phase", "in-progress", "--sequence", "1").out
    assert cli.ok("status", execution, "--phase", "in-progress", "--sequence", "1").out == first


def test_a_list_is_replaced_whole(cli: CommandLine, execution: str) -> None:
    _status(cli, execution, todos={"a": {"content": "x"}, "b": {"content": "y"}})
    cli.ok("status", execution, "--replace", "todos")
    assert "todos" not in cli.json("get", execution)["status"]


def test_a_wrong_delta_is_told(cli: CommandLine, execution: str) -> None:
    assert "no field 'phasee'" in cli("status", execution, "--data", '{"phasee": 1}').err
    assert cli("status", execution, "--data", "{").code == 2
    assert cli("status", execution, "--data", "{}", "-f", "-").code == 2
    assert cli("status", execution, "--replace", "phase").code == 2
    refused = cli("status", execution, "--phase", "waiting-for-input")
    assert refused.code == 1
    assert "reason: INVALID_TRANSITION" in refused.err


def test_get_tells_the_whole_story(cli: CommandLine, execution: str) -> None:
    _status(
        cli,
        execution,
        phase="EXECUTION_IN_PROGRESS",
        messages=[{"id": "m1", "type": "MESSAGE_AI", "content": "Looking \u001b[31minto\u001b]0;title\u0007 it"}],
        tool_calls=[{"id": "c", "name": "search", "args": {"q": "x"}, "status": "TOOL_CALL_FAILED", "error": "down"}],
        sub_agent_executions=[{"id": "s", "name": "reader", "input": "read", "status": "SUB_AGENT_IN_PROGRESS"}],
        todos={"a": {"content": "look", "status": "TODO_COMPLETED"}},
        usage=[{"id": "u", "input_tokens": "1200", "output_tokens": "34"}],
    )
    shown = cli.ok("get", execution).out
    for told in (
        "you: do it",
        "agent: Looking into it",
        "✗ search q=x down",
        "sub-agent reader read",
        "[x] look",
        "1,200 tokens in, 34 out",
    ):
        assert told in shown
    assert "\x1b" not in shown
    assert "\x07" not in shown


def test_scripts_get_control_characters_escaped(cli: CommandLine, execution: str) -> None:
    text = "a\x1b[31mb\x9b31mc\u202ed"
    _status(cli, execution, messages=[{"id": "m1", "type": "MESSAGE_AI", "content": text}])
    as_json = cli.ok("get", execution, "-o", "json")
    as_yaml = cli.ok("get", execution, "-o", "yaml")
    assert as_json.json["status"]["messages"][0]["content"] == text
    assert yaml.safe_load(as_yaml.out)["status"]["messages"][0]["content"] == text
    assert not {"\x1b", "\x9b", "\u202e"} & set(as_json.out)
    assert not {"\x1b", "\x9b"} & set(as_yaml.out)


def test_basic_leaves_out_what_was_said(cli: CommandLine, execution: str) -> None:
    _status(cli, execution, messages=[{"id": "m1", "content": "Hello"}])
    assert "messages" not in cli.json("get", execution, "--basic")["status"]


def test_executions_are_deleted(cli: CommandLine, agent: str) -> None:
    ids = [cli.ok("run", agent, "x", "--detach").out.strip() for _ in range(2)]
    deleted = cli.ok("delete", *ids, "--yes").out.splitlines()
    assert deleted == [f"execution {each} deleted" for each in ids]
    refused = cli("get", ids[0])
    assert refused.code == 1
    assert "reason: AGENT_EXECUTION_NOT_FOUND" in refused.err


def test_an_error_is_json_for_a_script(cli: CommandLine) -> None:
    refused = cli("get", "nonsense", "-o", "json")
    error = json.loads(refused.err)
    assert set(error) == {"code", "reason", "message", "fields"}
    assert error["code"] == "INVALID_ARGUMENT"
    assert error["fields"][0]["field"] == "value"
    misuse = json.loads(cli("run", "-o", "json").err)
    assert misuse["code"] == "USAGE"
