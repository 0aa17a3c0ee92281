from __future__ import annotations

import json
import re
import shlex
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from google.protobuf.duration_pb2 import Duration

from runstream.cli import times, waiting
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_APPROVE,
    APPROVAL_REJECT,
    APPROVAL_SKIP,
    EXECUTION_WAITING_FOR_APPROVAL,
    EXECUTION_WAITING_FOR_INPUT,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_WAITING_APPROVAL,
    AgentExecution,
    AgentExecutionStatus,
    ToolCall,
    ToolCallApproval,
)
from tests.cli.running import Runner

if TYPE_CHECKING:
    from tests.cli.processes import CommandLine
    from tests.serving import Client

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def _waiting(timeout: float = 0) -> AgentExecutionStatus:
    """A delta that asks for an approval."""
    approval = ToolCallApproval()
    if timeout:
        approval = ToolCallApproval(timeout=Duration(seconds=round(timeout)), default_action=APPROVAL_SKIP)
    call = ToolCall(id="c1", name="deploy", status=TOOL_CALL_WAITING_APPROVAL, approval=approval)
    return AgentExecutionStatus(phase=EXECUTION_WAITING_FOR_APPROVAL, tool_calls=[call])


async def test_lines_tell_what_waits_how_to_decide_and_who_did(
    cli: CommandLine, client: Client, execution: str
) -> None:
    watch = cli.start("watch", execution)
    runner = Runner(client, execution)
    await runner.start()
    await runner.write(_waiting(timeout=600))
    watch.wait_for(r"\? deploy waits for approval; skipped at [-\d: ]+, in (9m\d\ds|10m00s)\n")
    watch.wait_for(f"`runstream approve {execution} c1` lets it run, --skip or --reject refuses it\n")
    watch.wait_for("phase WAITING_FOR_APPROVAL")
    cli.ok("approve", execution, "--comment", "go")
    watch.wait_for("· deploy approved by anonymous: go\nphase IN_PROGRESS\n")
    await runner.write(AgentExecutionStatus(tool_calls=[ToolCall(id="c1", status=TOOL_CALL_COMPLETED)]))
    watch.wait_for("✓ deploy approved by anonymous: go\n")
    await runner.write(AgentExecutionStatus(phase=EXECUTION_WAITING_FOR_INPUT))
    watch.wait_for(f"phase WAITING_FOR_INPUT\n`runstream input {execution}` answers it\n")
    cli.ok("input", execution, "thank you")
    watch.wait_for("you: thank you\n")
    await runner.complete()
    assert watch.wait() == 0


async def test_the_default_decides_when_nobody_does(cli: CommandLine, client: Client, execution: str) -> None:
    watch = cli.start("watch", execution)
    runner = Runner(client, execution)
    await runner.start()
    await runner.write(_waiting(timeout=1))
    watch.wait_for("- deploy skipped by default\n")
    assert "- deploy skipped by default" in cli.ok("get", execution).out


async def test_a_terminal_shows_them_until_they_are_given(cli: CommandLine, client: Client, execution: str) -> None:
    terminal = cli.open("watch", execution, columns=60)
    terminal.wait_for("PENDING")
    runner = Runner(client, execution)
    await runner.start()
    await runner.write(_waiting(timeout=600))
    terminal.wait_for(f"`runstream approve {execution} c1` lets it run, --skip or --reject refuses it")
    terminal.wait_for("○ WAITING_FOR_APPROVAL")
    # On the panel it is broken between words, and nothing of it is cut.
    terminal.wait_for(f"`runstream approve {execution} c1` lets\nit run, --skip or --reject refuses it\n")
    terminal.wait_for("? deploy waits for approval; skipped at ")
    cli.ok("approve", execution, "c1")
    terminal.wait_for("· deploy approved by anonymous")
    await runner.write(AgentExecutionStatus(phase=EXECUTION_WAITING_FOR_INPUT))
    terminal.wait_for(f"`runstream input {execution}` answers it")
    cli.ok("input", execution, "thank you")
    terminal.wait_for("you: thank you")
    cli.ok("pause", execution)
    terminal.wait_for("pause requested by anonymous")
    await runner.complete()
    assert terminal.wait() == 0


async def test_changes_tell_the_default_and_the_decision(cli: CommandLine, client: Client, execution: str) -> None:
    runner = Runner(client, execution)
    await runner.start()
    await runner.write(_waiting(timeout=600))
    cli.ok("approve", execution, "--reject", "--comment", "no")
    await runner.complete()
    lines = cli.ok("watch", execution, "--changes").out.splitlines()
    assert re.search(r"tool_call\[c1\]=deploy:WAITING_APPROVAL\(else skipped at [-\dT:]+Z\)", lines[2])
    assert " user status phase=IN_PROGRESS" in lines[3]
    assert "tool_call[c1]=SKIPPED(rejected by anonymous: no)" in lines[3]
    changes = [json.loads(line) for line in cli.ok("watch", execution, "--changes", "-o", "json").out.splitlines()]
    assert changes[3]["status"]["tool_calls"][0]["approval"]["action"] == "APPROVAL_REJECT"


async def test_a_script_is_told_what_it_waits_for_beside_its_answer(
    cli: CommandLine, client: Client, execution: str
) -> None:
    watch = cli.start("watch", execution, "-o", "json")
    runner = Runner(client, execution)
    await runner.start()
    await runner.write(_waiting())
    watch.wait_for(f"waiting; `runstream approve {execution} c1` lets it run")
    cli.ok("approve", execution)
    await runner.write(AgentExecutionStatus(phase=EXECUTION_WAITING_FOR_INPUT))
    watch.wait_for(f"waiting; `runstream input {execution}` answers it")
    await runner.complete()
    assert watch.wait() == 0
    notes, brace, answer = watch.output.partition("{")
    assert len(notes.splitlines()) == 2
    assert json.loads(brace + answer) == cli.json("get", execution)


def test_a_question_says_what_becomes_of_it() -> None:
    call = ToolCall(status=TOOL_CALL_WAITING_APPROVAL)
    assert waiting.question(call, NOW) == "waits for approval"
    call.approval.default_action = APPROVAL_REJECT
    assert waiting.question(call, NOW) == "waits for approval"
    end = NOW + timedelta(seconds=90)
    call.approval.expire_time.FromDatetime(end)
    assert waiting.question(call, NOW) == f"waits for approval; rejected at {times.clock(end, NOW)}, in 1m30s"


def test_a_decision_says_who_and_why() -> None:
    call = ToolCall()
    assert waiting.decision(call) == ""
    call.approval.action = APPROVAL_APPROVE
    call.approval.decided_by.id = "ada"
    assert waiting.decision(call) == "approved by ada"
    call.approval.comment = "it is\nfine"
    assert waiting.decision(call) == "approved by ada: it is fine"
    call.approval.decided_by.id, call.approval.comment = "system", ""
    assert waiting.decision(call) == "approved by default"


@pytest.mark.parametrize("call_id", ["c1", "$(reboot)", "a b", "it's", "-x", "`x`", "a\x1b[31mb"])
def test_a_shown_command_can_be_pasted_whatever_an_agent_calls_its_calls(call_id: str) -> None:
    execution = AgentExecution()
    execution.metadata.id = "aex_1"
    told = waiting.how_to_decide(execution, ToolCall(id=call_id))
    command = told.removeprefix("`").removesuffix("` lets it run, --skip or --reject refuses it")
    words = [word for word in shlex.split(command) if word != "--"]
    assert words == ["runstream", "approve", "aex_1", call_id.replace("\x1b[31m", "")]
