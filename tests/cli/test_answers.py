from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest
from google.protobuf.struct_pb2 import Struct

from runstream.v1.agent_execution_pb2 import (
    EXECUTION_WAITING_FOR_APPROVAL,
    EXECUTION_WAITING_FOR_INPUT,
    MESSAGE_AI,
    TOOL_CALL_WAITING_APPROVAL,
    AgentExecutionStatus,
    AgentMessage,
    ToolCall,
)
from tests.cli.running import Runner

if TYPE_CHECKING:
    from typing import Any

    from tests.cli.processes import CommandLine
    from tests.serving import Client


async def _waits_for_approval(client: Client, execution: str, *call_ids: str) -> Runner:
    """Bring an execution to where its tool calls wait."""
    args = Struct()
    args["env"] = "prod"
    runner = Runner(client, execution)
    await runner.start()
    calls = [ToolCall(id=each, name="deploy", args=args, status=TOOL_CALL_WAITING_APPROVAL) for each in call_ids]
    await runner.write(AgentExecutionStatus(phase=EXECUTION_WAITING_FOR_APPROVAL, tool_calls=calls))
    return runner


async def _waits_for_input(client: Client, execution: str) -> Runner:
    """Bring an execution to where it has asked something."""
    runner = Runner(client, execution)
    await runner.start()
    question = AgentMessage(id="m1", type=MESSAGE_AI, content="Which colour?")
    await runner.write(AgentExecutionStatus(phase=EXECUTION_WAITING_FOR_INPUT, messages=[question]))
    return runner


def _call(cli: CommandLine, execution: str, call_id: str) -> dict[str, Any]:
    calls = cli.json("get", execution)["status"]["tool_calls"]
    return next(call for call in calls if call["id"] == call_id)


async def test_the_one_call_that_waits_is_approved(cli: CommandLine, client: Client, execution: str) -> None:
    await _waits_for_approval(client, execution, "c1")
    approved = cli.ok("approve", execution, "--comment", "go ahead")
    assert approved.out == f"execution {execution} tool call c1 approved, IN_PROGRESS\n"
    call = _call(cli, execution, "c1")
    assert call["status"] == "TOOL_CALL_PENDING"
    assert call["approval"]["action"] == "APPROVAL_APPROVE"
    assert call["approval"]["comment"] == "go ahead"
    assert "deploy env=prod approved by anonymous: go ahead" in cli.ok("get", execution).out


@pytest.mark.parametrize(("option", "word"), [("--skip", "skipped"), ("--reject", "rejected")])
async def test_a_call_is_refused(cli: CommandLine, client: Client, execution: str, option: str, word: str) -> None:
    await _waits_for_approval(client, execution, "c1", "-c2")
    assert f"tool call c1 {word}, WAITING_FOR_APPROVAL" in cli.ok("approve", execution, "c1", option).out
    assert f"tool call -c2 {word}, IN_PROGRESS" in cli.ok("approve", option, execution, "--", "-c2").out
    assert _call(cli, execution, "c1")["status"] == "TOOL_CALL_SKIPPED"
    assert f"- deploy env=prod {word} by anonymous" in cli.ok("get", execution).out


async def test_several_calls_that_wait_are_listed(cli: CommandLine, client: Client, execution: str) -> None:
    await _waits_for_approval(client, execution, "c1", "c2")
    listed = cli("approve", execution)
    assert listed.code == 2
    assert listed.err.splitlines() == [
        "error: 2 tool calls wait for approval",
        "  c1: deploy env=prod",
        "  c2: deploy env=prod",
        "  hint: say which one, by its id; or --all",
    ]
    fields = json.loads(cli("approve", execution, "-o", "json").err)["fields"]
    assert [field["field"] for field in fields] == ["c1", "c2"]
    assert _call(cli, execution, "c1")["status"] == "TOOL_CALL_WAITING_APPROVAL"


async def test_all_are_approved_now_and_later(cli: CommandLine, client: Client, execution: str) -> None:
    runner = await _waits_for_approval(client, execution, "c1", "c2")
    assert f"execution {execution} all tool calls approved, IN_PROGRESS" in cli.ok("approve", execution, "--all").out
    later = ToolCall(id="c3", name="deploy", status=TOOL_CALL_WAITING_APPROVAL)
    await runner.write(AgentExecutionStatus(phase=EXECUTION_WAITING_FOR_APPROVAL, tool_calls=[later]))
    for call_id in ("c1", "c2", "c3"):
        assert _call(cli, execution, call_id)["approval"]["action"] == "APPROVAL_APPROVE"


async def test_a_decision_stands(cli: CommandLine, client: Client, execution: str) -> None:
    await _waits_for_approval(client, execution, "c1")
    cli.ok("approve", execution, "c1")
    assert cli("approve", execution, "c1").code == 0
    refused = cli("approve", execution, "c1", "--reject")
    assert refused.code == 1
    assert "reason: APPROVAL_DECIDED" in refused.err


def test_where_nothing_waits_nothing_is_approved(cli: CommandLine, execution: str) -> None:
    refused = cli("approve", execution)
    assert refused.code == 1
    assert "does not wait for approval: it is PENDING" in refused.err
    assert cli("approve", execution, "c1").code == 1
    assert cli("approve", execution, "--skip", "--all").code == 2
    assert cli("approve", "nonsense").code == 1


async def test_an_answer_is_given(cli: CommandLine, client: Client, execution: str) -> None:
    await _waits_for_input(client, execution)
    assert cli.ok("input", execution, "blue").out == f"execution {execution} answered, IN_PROGRESS\n"
    said = cli.json("get", execution)["status"]["messages"][-1]
    assert (said["type"], said["content"]) == ("MESSAGE_HUMAN", "blue")
    assert "agent: Which colour?\nyou: blue" in cli.ok("get", execution).out


async def test_an_answer_comes_from_the_standard_input(cli: CommandLine, client: Client, execution: str) -> None:
    await _waits_for_input(client, execution)
    assert cli("input", execution, "-", stdin="").code == 2
    cli.ok("input", execution, "-", stdin="blue\nor red\n")
    assert cli.json("get", execution)["status"]["messages"][-1]["content"] == "blue\nor red\n"


async def test_an_answer_is_asked_for_on_a_terminal(cli: CommandLine, client: Client, execution: str) -> None:
    await _waits_for_input(client, execution)
    without = cli("input", execution)
    assert (without.code, "MESSAGE is missing" in without.err) == (2, True)
    given_up = cli.open("input", execution)
    given_up.wait_for("you:")
    given_up.signal(signal.SIGINT)
    assert given_up.wait() == 130
    given_up = cli.open("input", execution)
    given_up.wait_for("you:")
    given_up.type("\x04")
    assert given_up.wait() == 1
    terminal = cli.open("input", execution)
    terminal.wait_for("agent: Which colour?")
    terminal.wait_for("you:")
    terminal.type("\n")
    terminal.wait_for("you:")
    terminal.type("grün\n")
    assert terminal.wait() == 0
    terminal.wait_for("answered, IN_PROGRESS")
    assert cli.json("get", execution)["status"]["messages"][-1]["content"] == "grün"


async def test_a_repeated_answer_with_its_key_is_none(cli: CommandLine, client: Client, execution: str) -> None:
    runner = await _waits_for_input(client, execution)
    for _ in range(2):
        cli.ok("input", execution, "blue", "--idempotency-key", "k1")
    assert len(cli.json("get", execution)["status"]["messages"]) == 2
    await runner.complete()


def test_who_does_not_wait_is_not_answered(cli: CommandLine, execution: str) -> None:
    assert cli("input", execution, "blue").code == 1
    terminal = cli.open("input", execution, columns=200)
    assert terminal.wait() == 1
    assert "does not wait for input: it is PENDING" in terminal.text
