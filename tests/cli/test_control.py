from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runstream.v1.agent_execution_pb2 import EXECUTION_FAILED, EXECUTION_PAUSED, AgentExecutionStatus
from tests.cli.running import Runner

if TYPE_CHECKING:
    from tests.cli.processes import CommandLine
    from tests.serving import Client


@pytest.mark.parametrize("command", ["cancel", "terminate"])
def test_an_execution_is_ended(cli: CommandLine, execution: str, command: str) -> None:
    ended = cli.json(command, execution, "--reason", "not needed")["status"]
    assert ended["phase"].startswith(f"EXECUTION_{command.upper()}"[:16])
    assert ended["reason"] == "not needed"
    assert cli(command, execution).code == 0
    other = {"cancel": "terminate", "terminate": "cancel"}[command]
    assert cli(other, execution).code == 1


def test_at_work_it_is_asked_to_cancel(cli: CommandLine, execution: str) -> None:
    cli.ok("status", execution, "--phase", "in-progress")
    assert "asked to cancel" in cli.ok("cancel", execution).out


def test_what_nobody_works_on_is_paused_at_once_and_goes_on(cli: CommandLine, execution: str) -> None:
    assert cli.ok("pause", execution).out == f"execution {execution} PAUSED\n"
    assert cli.ok("pause", execution).out == f"execution {execution} PAUSED\n"
    assert f"`runstream resume {execution}` lets it go on" in cli.ok("get", execution).out
    assert cli.ok("resume", execution).out == f"execution {execution} PENDING\n"
    assert cli.ok("resume", execution).out == f"execution {execution} PENDING\n"
    assert cli.json("resume", execution)["status"]["phase"] == "EXECUTION_PENDING"


async def test_at_work_it_is_asked_to_pause(cli: CommandLine, client: Client, execution: str) -> None:
    runner = Runner(client, execution)
    await runner.start()
    watch = cli.start("watch", execution)
    watch.wait_for("phase IN_PROGRESS")
    assert "asked to pause" in cli.ok("pause", execution, "--reason", "lunch").out
    watch.wait_for("pause requested by anonymous: lunch")
    assert "pause requested by anonymous: lunch" in cli.ok("get", execution).out
    assert "IN_PROGRESS" in cli.ok("resume", execution).out
    watch.wait_for("request taken back")
    cli.ok("pause", execution)
    await runner.write(AgentExecutionStatus(phase=EXECUTION_PAUSED))
    watch.wait_for(f"phase PAUSED\n`runstream resume {execution}` lets it go on\n")


async def test_a_failed_execution_is_recovered(cli: CommandLine, client: Client, execution: str) -> None:
    runner = Runner(client, execution)
    await runner.start()
    await runner.write(AgentExecutionStatus(phase=EXECUTION_FAILED, error="no money"))
    assert cli("resume", execution).code == 1
    assert cli.ok("recover", execution).out == f"execution {execution} PENDING\n"
    recovered = cli.json("recover", execution, "--reason", "there is some")["status"]
    assert recovered["phase"] == "EXECUTION_PENDING"
    assert "completed_at" not in recovered


def test_what_has_ended_otherwise_is_left_alone(cli: CommandLine, execution: str) -> None:
    cli.ok("terminate", execution)
    for command in ("pause", "resume", "recover"):
        refused = cli(command, execution)
        assert refused.code == 1
        assert "reason: EXECUTION_TERMINAL" in refused.err
