from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.processes import CommandLine


def test_an_instance_is_created_by_its_name_and_agent(cli: CommandLine, agent: str) -> None:
    cli.ok("instance", "create", f"{agent}-staging", "--agent", agent, "--description", "For tests")
    found = cli.json("instance", "get", f"{agent}-staging")
    assert found["spec"]["agent_id"] == cli.json("agent", "get", agent)["metadata"]["id"]
    assert "For tests" in cli.ok("instance", "get", found["metadata"]["id"]).out


def test_a_document_names_its_agent_by_slug(cli: CommandLine, agent: str) -> None:
    document = f"metadata: {{name: {agent}-i}}\nspec: {{agent_id: {agent}}}\n"
    applied = cli.json("instance", "apply", "-f", "-", stdin=document)
    assert applied["spec"]["agent_id"].startswith("agt_")


def test_the_instances_of_an_agent_are_listed(cli: CommandLine, agent: str) -> None:
    for number in range(2):
        cli.ok("instance", "create", f"{agent}-{number}", "--agent", agent)
    listed = cli.json("instance", "list", "--agent", agent)["entries"]
    assert [entry["metadata"]["slug"] for entry in listed] == [f"{agent}-1", f"{agent}-0"]
    assert len(cli.ok("instance", "list", "--agent", agent).out.splitlines()) == 3


def test_an_instance_is_deleted(cli: CommandLine, agent: str) -> None:
    cli.ok("instance", "create", f"{agent}-i", "--agent", agent)
    assert "deleted" in cli.ok("instance", "delete", f"{agent}-i", "--yes").out
    assert cli("instance", "get", f"{agent}-i").code == 1


def test_an_instance_needs_an_agent(cli: CommandLine, name: str) -> None:
    assert cli("instance", "create", name).code == 2
    assert cli("instance", "create", name, "--agent", f"{name}-none").code == 1
    assert cli("instance", "list").code == 2
