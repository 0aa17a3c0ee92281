from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from runstream.v1.agent_execution_pb2 import (
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_WAITING_FOR_INPUT,
    AgentExecutionStatus,
)
from tests.cli.running import Runner

if TYPE_CHECKING:
    from tests.cli.processes import CommandLine
    from tests.serving import Client


def _newest(cli: CommandLine, agent: str) -> str:
    execution_id: str = cli.json("list", "--agent", agent, "--limit", "1")["entries"][0]["metadata"]["id"]
    return execution_id


async def test_a_run_is_followed_to_its_end(cli: CommandLine, client: Client, agent: str) -> None:
    run = cli.start("run", agent, "find it")
    run.wait_for("phase PENDING")
    runner = Runner(client, _newest(cli, agent))
    await runner.start()
    run.wait_for("phase IN_PROGRESS")
    await runner.speak("m1", "Found ")
    await runner.speak("m1", "it.")
    await runner.complete()
    assert run.wait() == 0
    assert "you: find it\n" in run.output
    assert "agent: Found it.\n" in run.output
    assert run.output.splitlines()[-1].startswith("COMPLETED in ")


async def test_a_failure_is_an_exit_code(cli: CommandLine, client: Client, agent: str) -> None:
    run = cli.start("run", agent, "x")
    run.wait_for("phase PENDING")
    failed = AgentExecutionStatus(phase=EXECUTION_FAILED, error="no money", reason="BROKE")
    await Runner(client, _newest(cli, agent)).write(failed)
    assert run.wait() == 3
    assert "FAILED · BROKE" in run.output
    assert "error: no money" in run.output


@pytest.mark.parametrize(("command", "code"), [("cancel", 4), ("terminate", 5)])
def test_an_end_by_somebody_else_is_an_exit_code(cli: CommandLine, agent: str, command: str, code: int) -> None:
    run = cli.start("run", agent, "x")
    run.wait_for("phase PENDING")
    cli.ok(command, _newest(cli, agent), "--reason", "enough")
    assert run.wait() == code
    assert "enough" in run.output


async def test_a_script_gets_the_final_state(cli: CommandLine, client: Client, execution: str) -> None:
    watch = cli.start("watch", execution, "-o", "json")
    runner = Runner(client, execution)
    await runner.start()
    await runner.speak("m1", "Hi")
    await runner.complete()
    assert watch.wait() == 0
    final = cli.ok("get", execution, "-o", "json").out
    assert watch.output == final
    assert cli.ok("get", execution, "-o", "json").json["status"]["phase"] == "EXECUTION_COMPLETED"


def test_detached_it_prints_its_id_alone(cli: CommandLine, agent: str) -> None:
    detached = cli.ok("run", agent, "x", "--detach")
    assert cli.json("get", detached.out.strip())["spec"]["message"] == "x"
    assert "runstream watch aex_" in detached.err


def test_what_is_asked_for_is_sent(cli: CommandLine, agent: str) -> None:
    made = cli.json(
        *("run", agent, "x", "--detach", "--name", "My run", "-l", "a=b", "--tag", "t", "--model", "big"),
        *("--env", "A=1=2", "--stateless"),
    )
    assert made["metadata"]["name"] == "My run"
    assert made["metadata"]["labels"] == {"a": "b"}
    assert made["metadata"]["tags"] == ["t"]
    spec = made["spec"]
    assert spec["execution_config"]["model_name"] == "big"
    assert spec["runtime_env"] == {"A": {"value": "1=2"}}
    assert spec["context"]["stateless"] is True
    assert "session_id" not in spec


def test_a_secret_is_never_shown(cli: CommandLine, agent: str) -> None:
    secrets = ("--secret", "TOKEN", "--secret", "OTHER=hush-two")
    made = cli.ok("run", agent, "x", *secrets, "--detach", "-o", "json", env={"TOKEN": "hush-one"})
    execution = made.json["metadata"]["id"]
    assert made.json["spec"]["runtime_env"] == {"TOKEN": {"is_secret": True}, "OTHER": {"is_secret": True}}
    shown = [
        cli.ok("get", execution),
        cli.ok("get", execution, "-o", "yaml"),
        cli.ok("list", "--agent", agent, "--full", "-o", "json"),
        cli("run", agent, "", "--secret", "A=hush-three"),
        cli("run", agent, "x", "--secret", "=hush-four"),
        cli("run", "-f", "-", stdin="spec: {runtime_env: {A: hush-five}}"),
        cli("run", "-f", "-", stdin="spec: {runtime_env: [hush-six]}"),
        cli("run", "-f", "-", stdin="spec: {runtime_env: {A: {value: 'hush-seven}}}"),
    ]
    terminated = cli.ok("terminate", execution)
    watched = cli("watch", execution, "--changes", "-o", "json")
    for result in (made, *shown, terminated, watched):
        assert "hush" not in result.out + result.err


def test_a_secret_that_is_not_in_the_environment_is_misuse(cli: CommandLine, agent: str) -> None:
    refused = cli("run", agent, "x", "--secret", "NO_SUCH_VARIABLE")
    assert refused.code == 2
    assert "NO_SUCH_VARIABLE" in refused.err


def test_a_repeat_with_an_idempotency_key_is_the_same_run(cli: CommandLine, agent: str) -> None:
    first = cli.ok("run", agent, "x", "--idempotency-key", agent, "--detach").out
    assert cli.ok("run", agent, "x", "--idempotency-key", agent, "--detach").out == first


def test_a_file_is_what_arguments_go_over(cli: CommandLine, agent: str) -> None:
    document = f"kind: AgentExecution\nspec: {{agent_id: {agent}, message: from the file, context: {{language: de}}}}\n"
    as_written = cli.json("run", "-f", "-", "--detach", stdin=document)
    assert as_written["spec"]["message"] == "from the file"
    changed = cli.json("run", agent, "from the line", "-f", "-", "--detach", stdin=document)
    assert changed["spec"]["message"] == "from the line"
    assert changed["spec"]["context"]["language"] == "de"


def test_the_message_may_come_from_the_standard_input(cli: CommandLine, agent: str) -> None:
    assert cli.json("run", agent, "-", "--detach", stdin="a\nb\n")["spec"]["message"] == "a\nb\n"


def test_too_little_said_is_misuse(cli: CommandLine, agent: str) -> None:
    assert cli("run").code == 2
    assert cli("run", agent).code == 2
    assert cli("run", agent, "x", "--env", "A").code == 2
    assert cli("run", "no-such-agent", "x").code == 1


def test_interrupted_it_says_how_to_go_on_and_the_execution_goes_on(cli: CommandLine, agent: str) -> None:
    run = cli.start("run", agent, "x")
    run.wait_for("phase PENDING")
    run.signal(signal.SIGINT)
    assert run.wait() == 130
    execution = _newest(cli, agent)
    assert f"runstream watch {execution}" in run.output
    assert cli.json("get", execution)["status"]["phase"] == "EXECUTION_PENDING"


async def test_waiting_is_shown_and_followed_further(cli: CommandLine, client: Client, execution: str) -> None:
    watch = cli.start("watch", execution)
    runner = Runner(client, execution)
    await runner.start()
    await runner.write(AgentExecutionStatus(phase=EXECUTION_WAITING_FOR_INPUT))
    watch.wait_for("phase WAITING_FOR_INPUT")
    await runner.write(AgentExecutionStatus(phase=EXECUTION_IN_PROGRESS))
    await runner.complete()
    assert watch.wait() == 0
