from __future__ import annotations

import json
from typing import TYPE_CHECKING

from runstream.v1.agent_execution_pb2 import (
    EXECUTION_COMPLETED,
    EXECUTION_IN_PROGRESS,
    SUB_AGENT_COMPLETED,
    SUB_AGENT_IN_PROGRESS,
    TODO_COMPLETED,
    TODO_PENDING,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_RUNNING,
    AgentExecutionStatus,
    SubAgentExecution,
    TodoItem,
    ToolCall,
)
from tests.cli.running import Runner

if TYPE_CHECKING:
    from tests.cli.processes import CommandLine
    from tests.serving import Client


async def test_every_step_is_a_line_where_nobody_looks(cli: CommandLine, client: Client, execution: str) -> None:
    watch = cli.start("watch", execution)
    watch.wait_for("phase PENDING")
    runner = Runner(client, execution)
    await runner.write(
        AgentExecutionStatus(
            phase=EXECUTION_IN_PROGRESS, todos={"1": TodoItem(content="look around", status=TODO_PENDING)}
        )
    )
    await runner.speak("m1", "Let me ")
    await runner.speak("m1", "look.")
    await runner.write(
        AgentExecutionStatus(
            tool_calls=[ToolCall(id="c1", name="search", status=TOOL_CALL_RUNNING)],
            sub_agent_executions=[
                SubAgentExecution(id="s1", name="reader", input="read it", status=SUB_AGENT_IN_PROGRESS)
            ],
        )
    )
    watch.wait_for("search")
    await runner.speak("m2", "I read.", owner="s1")
    await runner.write(
        AgentExecutionStatus(
            phase=EXECUTION_COMPLETED,
            tool_calls=[ToolCall(id="c1", status=TOOL_CALL_COMPLETED)],
            sub_agent_executions=[SubAgentExecution(id="s1", output="all read", status=SUB_AGENT_COMPLETED)],
            todos={"1": TodoItem(status=TODO_COMPLETED)},
        )
    )
    assert watch.wait() == 0
    lines = watch.output.splitlines()
    assert lines[:-1] == [
        "you: do it",
        "phase PENDING",
        "[ ] look around",
        "phase IN_PROGRESS",
        "agent: Let me look.",
        "… search",
        "… sub-agent reader read it",
        "✓ search",
        "reader: I read.",
        "✓ sub-agent reader all read",
        "[x] look around",
    ]
    assert lines[-1].startswith("COMPLETED in ")


async def test_every_change_is_printed_once_and_in_order(cli: CommandLine, client: Client, execution: str) -> None:
    watch = cli.start("watch", execution, "--changes", "-o", "json")
    runner = Runner(client, execution)
    await runner.start()
    for number in range(50):
        await runner.speak("m1", f"{number} ")
    await runner.complete()
    assert watch.wait() == 0
    changes = [json.loads(line) for line in watch.output.splitlines()]
    assert [change["revision"] for change in changes] == [str(number) for number in range(1, 54)]
    assert "created" in changes[0]
    assert changes[-1]["terminal"] is True


async def test_changes_begin_after_a_revision(cli: CommandLine, client: Client, execution: str) -> None:
    runner = Runner(client, execution)
    await runner.start()
    await runner.complete()
    result = cli.ok("watch", execution, "--from-revision", "1")
    assert [line.split()[0] for line in result.out.splitlines()] == ["2", "3"]
    assert "phase=COMPLETED" in result.out
    assert cli.ok("watch", execution, "--from-revision", "3").out == ""


def test_the_exit_code_is_that_of_an_end_long_ago(cli: CommandLine, execution: str) -> None:
    cli.ok("terminate", execution)
    assert cli("watch", execution).code == 5
    assert cli("watch", execution, "--changes").code == 5
    assert cli("watch", execution, "--from-revision", "2").code == 5


def test_a_revision_ahead_is_refused_at_once(cli: CommandLine, execution: str) -> None:
    refused = cli("watch", execution, "--from-revision", "99")
    assert refused.code == 1
    assert "reason: REVISION_AHEAD" in refused.err


def test_what_does_not_exist_is_not_waited_for(cli: CommandLine) -> None:
    refused = cli("watch", "aex_01m7yp1d35nh79685zp4amr7aw")
    assert refused.code == 1
    assert "connection lost" not in refused.err


def test_a_deletion_ends_it(cli: CommandLine, execution: str) -> None:
    watch = cli.start("watch", execution)
    watch.wait_for("phase PENDING")
    cli.ok("delete", execution, "--yes")
    assert watch.wait() == 1
    assert "reason: EXECUTION_DELETED" in watch.output
