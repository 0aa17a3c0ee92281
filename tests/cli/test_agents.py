from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
import yaml

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.processes import CommandLine


def test_an_agent_is_created_by_its_name(cli: CommandLine, name: str) -> None:
    created = cli.ok(
        "agent", "create", name, "--instructions", "Look.", "--description", "Looks", "-l", "a=b", "--tag", "t"
    )
    assert created.out.startswith(f"agent {name} (agt_")
    found = cli.json("agent", "get", name)
    assert found["spec"] == {"description": "Looks", "instructions": "Look."}
    assert found["metadata"]["labels"] == {"a": "b"}
    assert found["metadata"]["tags"] == ["t"]


def test_instructions_come_from_a_file(cli: CommandLine, name: str, tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("Line one\nLine two\n")
    cli.ok("agent", "create", name, "--instructions-file", str(file))
    assert cli.json("agent", "get", name)["spec"]["instructions"] == "Line one\nLine two\n"


def test_agents_are_created_from_documents(cli: CommandLine, name: str, tmp_path: Path) -> None:
    file = tmp_path / "agents.yaml"
    file.write_text(f"metadata: {{name: {name}-a}}\n---\nkind: Agent\nmetadata: {{name: {name}-b}}\n")
    created = cli.json("agent", "create", "-f", str(file))
    assert [entry["metadata"]["slug"] for entry in created["entries"]] == [f"{name}-a", f"{name}-b"]


def test_an_agent_is_found_by_id_and_by_slug(cli: CommandLine, agent: str) -> None:
    by_slug = cli.json("agent", "get", agent)
    assert cli.json("agent", "get", by_slug["metadata"]["id"]) == by_slug


def test_a_slug_is_looked_for_in_its_organization(cli: CommandLine, name: str) -> None:
    cli.ok("agent", "create", name, "--org", "acme")
    assert cli("agent", "get", name).code == 1
    assert cli.json("agent", "get", name, "--org", "acme")["metadata"]["org"] == "acme"


def test_a_person_sees_details(cli: CommandLine, name: str) -> None:
    cli.ok("agent", "create", name, "--instructions", "Look around.")
    shown = cli.ok("agent", "get", name).out
    assert "Look around." in shown
    assert "revision" in shown


def test_a_list_is_filtered_by_label_and_tag(cli: CommandLine, name: str) -> None:
    for number in ("1", "2"):
        cli.ok("agent", "create", f"{name}-{number}", "-l", f"{name}={number}", "--tag", name)
    both = cli.json("agent", "list", "--tag", name)["entries"]
    one = cli.json("agent", "list", "--tag", name, "--label", f"{name}=2")["entries"]
    assert [entry["metadata"]["slug"] for entry in both] == [f"{name}-2", f"{name}-1"]
    assert [entry["metadata"]["slug"] for entry in one] == [f"{name}-2"]


def test_a_list_goes_on_where_its_token_says(cli: CommandLine, name: str) -> None:
    for number in range(3):
        cli.ok("agent", "create", f"{name}-{number}", "--tag", name)
    first = cli.json("agent", "list", "--tag", name, "--limit", "2")
    assert len(first["entries"]) == 2
    rest = cli.json("agent", "list", "--tag", name, "--page-token", first["next_page_token"])
    assert [entry["metadata"]["slug"] for entry in rest["entries"]] == [f"{name}-0"]
    assert rest["next_page_token"] == ""
    assert len(cli.json("agent", "list", "--tag", name, "--all")["entries"]) == 3
    assert "--page-token" in cli.ok("agent", "list", "--tag", name, "-n", "2").err


def test_a_table_has_a_line_for_each(cli: CommandLine, name: str) -> None:
    cli.ok("agent", "create", name, "--tag", name, "--description", "d" * 300)
    lines = cli.ok("agent", "list", "--tag", name).out.splitlines()
    assert lines[0].split() == ["ID", "SLUG", "ORG", "AGE", "DESCRIPTION"]
    assert len(lines) == 2
    assert cli.ok("agent", "list", "--tag", f"{name}-none").err == "nothing found\n"


def test_apply_creates_then_updates(cli: CommandLine, name: str) -> None:
    document = f"metadata: {{name: {name}}}\nspec: {{instructions: One}}\n"
    assert "revision 1" in cli.ok("agent", "apply", "-f", "-", stdin=document).out
    assert "revision 1" in cli.ok("agent", "apply", "-f", "-", stdin=document).out
    assert "revision 2" in cli.ok("agent", "apply", "-f", "-", stdin=document.replace("One", "Two")).out


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_what_get_prints_can_be_applied(cli: CommandLine, name: str, form: str) -> None:
    cli.ok("agent", "create", name, "--instructions", "no: 1e3\n  # 2026-01-01\n")
    printed = cli.ok("agent", "get", name, "-o", form).out
    assert "revision 1" in cli.ok("agent", "apply", "-f", "-", stdin=printed).out


def test_what_list_prints_can_be_applied(cli: CommandLine, name: str) -> None:
    for number in range(2):
        cli.ok("agent", "create", f"{name}-{number}", "--tag", name)
    printed = cli.ok("agent", "list", "--tag", name, "-o", "yaml").out
    assert len(yaml.safe_load(printed)["entries"]) == 2
    assert len(cli.ok("agent", "apply", "-f", "-", stdin=printed).out.splitlines()) == 2


def test_an_agent_in_use_is_deleted_with_what_uses_it(cli: CommandLine, agent: str) -> None:
    execution = cli.ok("run", agent, "x", "--detach").out.strip()
    unasked = cli("agent", "delete", agent, "--cascade")
    assert (unasked.code, "add --yes" in unasked.err) == (2, True)
    refused = cli("agent", "delete", agent, "--yes")
    assert refused.code == 1
    assert "reason:" in refused.err
    assert "deleted" in cli.ok("agent", "delete", agent, "--cascade", "--yes").out
    assert cli("get", execution).code == 1


def test_a_terminal_is_asked_before_anything_is_deleted(cli: CommandLine, agent: str) -> None:
    for answers in ("n\n", "\n", "what?\nNO\n", "\x04"):
        declined = cli.open("agent", "delete", agent)
        declined.wait_for("Delete")
        declined.type(answers)
        assert declined.wait() == 1
        assert "nothing was deleted" in declined.text
    accepted = cli.open("agent", "delete", agent)
    accepted.wait_for("Delete")
    accepted.type("y\n")
    assert accepted.wait() == 0
    assert cli("agent", "get", agent).code == 1


def test_a_question_is_given_up_with_ctrl_c(cli: CommandLine, agent: str) -> None:
    terminal = cli.open("agent", "delete", agent)
    terminal.wait_for("Delete")
    terminal.signal(signal.SIGINT)
    assert terminal.wait() == 130
    cli.ok("agent", "get", agent)


def test_what_was_deleted_before_a_refusal_is_told(cli: CommandLine, agent: str) -> None:
    refused = cli("agent", "delete", agent, f"{agent}-none", "--yes")
    assert refused.code == 1
    assert refused.out.startswith(f"agent {agent} (agt_")
    assert "NOT_FOUND" in refused.err


def test_yes_answers_the_question_beforehand(cli: CommandLine, agent: str) -> None:
    terminal = cli.open("agent", "delete", agent, "--yes")
    assert terminal.wait() == 0


def test_a_repeat_with_an_idempotency_key_creates_nothing(cli: CommandLine, name: str) -> None:
    first = cli.json("agent", "create", name, "--idempotency-key", name)
    assert cli.json("agent", "create", name, "--idempotency-key", name) == first


def test_a_taken_slug_is_told_with_its_reason(cli: CommandLine, agent: str) -> None:
    refused = cli("agent", "create", agent)
    assert refused.code == 1
    assert refused.err.startswith("error: ")
    assert "reason: SLUG_TAKEN" in refused.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["agent", "create"],
        ["agent", "create", "x", "-f", "-"],
        ["agent", "create", "x", "--label", "novalue"],
        ["agent", "apply"],
        ["agent", "apply", "-f", "/no/such/file"],
        ["agent", "nonsense"],
        ["agent", "list", "--limit", "0"],
    ],
)
def test_what_cannot_be_understood_is_misuse(cli: CommandLine, arguments: list[str]) -> None:
    assert cli(*arguments).code == 2
