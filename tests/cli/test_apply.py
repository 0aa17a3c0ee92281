from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.processes import CommandLine

ALL_KINDS = """
kind: Agent
metadata: {{name: {name}}}
spec:
  instructions: |
    Look around.
  max_duration: 90s
  runtime: {{model: big, temperature: 0.5, deep: [1, {{x: true}}]}}
---
kind: AgentInstance
metadata: {{name: {name}-i}}
spec: {{agent_id: {name}}}
---
kind: Session
metadata: {{name: {name}-s}}
spec: {{agent_instance_id: {name}-i, subject: no}}
"""


def test_documents_of_all_kinds_refer_to_each_other_by_slug(cli: CommandLine, name: str, tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    file.write_text(ALL_KINDS.format(name=name))
    lines = cli.ok("apply", "-f", str(file)).out.splitlines()
    assert [line.split()[0] for line in lines] == ["agent", "instance", "session"]
    again = cli.json("apply", "-f", str(file))["entries"]
    assert [entry["metadata"]["revision"] for entry in again] == ["1", "1", "1"]
    assert again[0]["spec"]["runtime"]["deep"] == [1, {"x": True}]
    assert again[0]["spec"]["max_duration"] == "90s"
    assert again[2]["spec"]["subject"] == "no"


def test_several_files_and_json_are_applied(cli: CommandLine, name: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.yaml"
    one.write_text(f'{{"kind": "Agent",\n\t"metadata": {{"name": "{name}-1"}}}}')
    two.write_text(f"kind: Agent\nmetadata: {{name: {name}-2}}\n")
    assert len(cli.ok("apply", "-f", str(one), "-f", str(two)).out.splitlines()) == 2


def test_nothing_is_applied_when_a_kind_is_wrong(cli: CommandLine, name: str) -> None:
    documents = f"kind: Agent\nmetadata: {{name: {name}}}\n---\nkind: Nonsense\n"
    refused = cli("apply", "-f", "-", stdin=documents)
    assert refused.code == 2
    assert "document 2: the kind 'Nonsense' is unknown" in refused.err
    assert cli("agent", "get", name).code == 1


def test_nothing_is_applied_when_a_field_is_wrong(cli: CommandLine, name: str) -> None:
    documents = f"kind: Agent\nmetadata: {{name: {name}}}\n---\nkind: Agent\nspec: {{instructionz: x}}\n"
    for command in (("apply",), ("agent", "apply"), ("agent", "create")):
        refused = cli(*command, "-f", "-", stdin=documents)
        assert refused.code == 2
        assert "document 2: spec: no field 'instructionz'" in refused.err
    assert cli("agent", "get", name).code == 1


@pytest.mark.parametrize("command", ["apply", "agent apply", "agent create"])
def test_what_was_done_before_a_refusal_is_told(cli: CommandLine, name: str, command: str) -> None:
    documents = "\n---\n".join(
        f"kind: Agent\nmetadata: {{name: {name}-{number}, slug: {slug}}}"
        for number, slug in enumerate((f"{name}-0", f"{name}-1", "Not A Slug", f"{name}-3"))
    )
    refused = cli(*command.split(), "-f", "-", stdin=documents)
    assert refused.code == 1
    assert [line.split()[1] for line in refused.out.splitlines()] == [f"{name}-0", f"{name}-1"]
    assert "metadata.slug" in refused.err
    cli.ok("agent", "delete", f"{name}-0", "--yes")
    for_scripts = cli(*command.split(), "-f", "-", "-o", "json", stdin=documents.replace(f"{name}-1", f"{name}-2"))
    assert for_scripts.code == 1
    assert [entry["metadata"]["slug"] for entry in for_scripts.json["entries"]] == [f"{name}-0", f"{name}-2"]
    assert '"code": "INVALID_ARGUMENT"' in for_scripts.err


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("metadata: {name: x}", "`kind` is missing"),
        ("kind: AgentExecution", "runstream run -f"),
        ("kind: Agent\nspec: {instructionz: x}", "spec: no field 'instructionz'; there are description"),
        ("kind: Agent\nspec: {max_attempts: x}", "spec.max_attempts:"),
        ("kind: Agent\nkind: Agent", "line 2, column 1: the key 'kind' is there twice"),
        ("kind: Agent\n  spec: x: y", "line 2"),
        ("kind: [Agent", "line"),
        ("- just\n- text", "a document is a mapping"),
        ("", "there is no document in it"),
        ("!!python/object/apply:os.system [true]", "line 1"),
    ],
)
def test_a_wrong_document_is_told_with_its_place(cli: CommandLine, document: str, told: str) -> None:
    refused = cli("apply", "-f", "-", stdin=document)
    assert refused.code == 2
    assert told in refused.err
    assert "standard input" in refused.err or not document


def test_the_server_says_which_field_is_wrong(cli: CommandLine) -> None:
    refused = cli("apply", "-f", "-", "-o", "json", stdin="kind: Agent\nmetadata: {name: x, slug: Not A Slug}")
    assert refused.code == 1
    answer = refused.err
    assert '"code": "INVALID_ARGUMENT"' in answer
    assert '"field": "metadata.slug"' in answer
