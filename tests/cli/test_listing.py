from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.processes import CommandLine


def _ids(cli: CommandLine, *arguments: str) -> list[str]:
    return [entry["metadata"]["id"] for entry in cli.json("list", *arguments)["entries"]]


def test_executions_are_filtered(cli: CommandLine, agent: str) -> None:
    one = cli.json("run", agent, "x", "--detach", "-l", f"{agent}=1", "--tag", agent)
    two = cli.json("run", agent, "y", "--detach", "--tag", agent)
    first, second = one["metadata"]["id"], two["metadata"]["id"]
    cli.ok("status", second, "--phase", "in-progress")
    assert _ids(cli, "--agent", agent) == [second, first]
    assert _ids(cli, "--agent", one["spec"]["agent_id"], "--phase", "pending") == [first]
    assert _ids(cli, "--agent", agent, "-p", "PENDING", "-p", "in-progress") == [second, first]
    assert _ids(cli, "--label", f"{agent}=1") == [first]
    assert _ids(cli, "--tag", agent) == [second, first]
    assert _ids(cli, "--session", two["spec"]["session_id"]) == [second]


def test_executions_are_filtered_by_time(cli: CommandLine, agent: str, execution: str) -> None:
    assert _ids(cli, "--agent", agent, "--created-after", "1h") == [execution]
    assert _ids(cli, "--agent", agent, "--created-before", "1h") == []
    assert _ids(cli, "--agent", agent, "--created-after", "2100-01-01T00:00:00Z") == []
    assert cli("list", "--created-after", "yesterday").code == 2


def test_a_person_gets_a_table(cli: CommandLine, agent: str, execution: str) -> None:
    lines = cli.ok("list", "--agent", agent).out.splitlines()
    assert lines[0].split() == ["ID", "PHASE", "AGE", "TOOK", "NAME"]
    assert lines[1].split()[:2] == [execution, "PENDING"]


def test_a_list_of_a_page_and_all(cli: CommandLine, agent: str) -> None:
    ids = [cli.ok("run", agent, "x", "--detach").out.strip() for _ in range(3)][::-1]
    page = cli.json("list", "--agent", agent, "-n", "2")
    assert [entry["metadata"]["id"] for entry in page["entries"]] == ids[:2]
    assert _ids(cli, "--agent", agent, "--page-token", page["next_page_token"]) == ids[2:]
    assert _ids(cli, "--agent", agent, "--all") == ids


def test_full_brings_what_was_said(cli: CommandLine, agent: str, execution: str) -> None:
    cli.ok("status", execution, "--data", '{"messages": [{"id": "m", "content": "Hello"}]}')
    assert "messages" not in cli.json("list", "--agent", agent)["entries"][0]["status"]
    assert "messages" in cli.json("list", "--agent", agent, "--full")["entries"][0]["status"]


def test_a_watched_list_prints_each_change(cli: CommandLine, agent: str, execution: str) -> None:
    watch = cli.start("list", "--agent", agent, "--watch")
    watch.wait_for(f"{execution}  PENDING")
    cli.ok("terminate", execution)
    watch.wait_for(f"{execution}  TERMINATED")
    later = cli.ok("run", agent, "x", "--detach").out.strip()
    watch.wait_for(f"{later}  PENDING")
    watch.signal(signal.SIGINT)
    assert watch.wait() == 130
    assert "Traceback" not in watch.output


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_a_watched_list_is_a_stream_for_scripts(cli: CommandLine, agent: str, execution: str, form: str) -> None:
    watch = cli.start("list", "--agent", agent, "--watch", "-o", form)
    watch.wait_for("EXECUTION_PENDING")
    cli.ok("terminate", execution)
    watch.wait_for("EXECUTION_TERMINATED")
    watch.signal(signal.SIGINT)
    watch.wait()
    if form == "json":
        first, second = (json.loads(line) for line in watch.output.splitlines())
        assert (first["metadata"]["revision"], second["metadata"]["revision"]) == ("1", "2")
    else:
        assert watch.output.startswith("---\n")
        assert watch.output.count("\n---\n") == 1


def test_a_watched_list_has_no_pages(cli: CommandLine) -> None:
    assert cli("list", "--watch", "--page-token", "x").code == 2
