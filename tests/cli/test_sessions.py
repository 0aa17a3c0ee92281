from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.processes import CommandLine


@pytest.fixture
def instance(cli: CommandLine, agent: str) -> str:
    cli.ok("instance", "create", f"{agent}-i", "--agent", agent)
    return f"{agent}-i"


def test_a_session_is_created_on_an_instance(cli: CommandLine, instance: str) -> None:
    made = cli.json("session", "create", "--instance", instance, "--subject", "The report", "--tag", instance)
    session_id = made["metadata"]["id"]
    assert cli.json("session", "get", session_id)["spec"]["subject"] == "The report"
    assert "The report" in cli.ok("session", "get", session_id).out
    listed = cli.json("session", "list", "--tag", instance)["entries"]
    assert [entry["metadata"]["id"] for entry in listed] == [session_id]


def test_the_sessions_of_an_agent_are_listed(cli: CommandLine, agent: str, instance: str) -> None:
    ids = [cli.json("session", "create", "--instance", instance)["metadata"]["id"] for _ in range(2)]
    listed = cli.json("session", "list", "--agent", agent)["entries"]
    assert [entry["metadata"]["id"] for entry in listed] == ids[::-1]


def test_a_session_is_created_on_an_agents_default_instance(cli: CommandLine, agent: str) -> None:
    refused = cli("session", "create", "--agent", agent)
    assert refused.code == 1
    assert "no default instance yet" in refused.err
    cli.ok("run", agent, "x", "--detach")
    assert "created" in cli.ok("session", "create", "--agent", agent).out


def test_a_document_names_its_instance_by_slug(cli: CommandLine, instance: str) -> None:
    document = f"kind: Session\nmetadata: {{name: S}}\nspec: {{agent_instance_id: {instance}}}\n"
    first = cli.json("session", "apply", "-f", "-", stdin=document)
    assert cli.json("session", "apply", "-f", "-", stdin=document) == first


def test_a_session_goes_on(cli: CommandLine, agent: str, instance: str) -> None:
    session_id = cli.json("session", "create", "--instance", instance)["metadata"]["id"]
    run = cli.json("run", agent, "x", "--session", session_id, "--detach")
    assert run["spec"]["session_id"] == session_id
    assert cli("session", "delete", session_id, "--yes").code == 1
    cli.ok("session", "delete", session_id, "--cascade", "--yes")
    assert cli("session", "get", session_id).code == 1


def test_a_session_is_named_by_its_id(cli: CommandLine) -> None:
    assert cli("session", "get", "a-slug").code == 2
    assert cli("session", "create").code == 2
    assert cli("session", "list", "--agent", "a", "--tag", "b").code == 2
