from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from runstream.v1.agent_execution_pb2 import (
    EXECUTION_IN_PROGRESS,
    SUB_AGENT_IN_PROGRESS,
    TODO_COMPLETED,
    TODO_IN_PROGRESS,
    TODO_PENDING,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_RUNNING,
    AgentExecutionStatus,
    SubAgentExecution,
    TodoItem,
    ToolCall,
    Usage,
)
from tests.cli.running import Runner

if TYPE_CHECKING:
    from tests.cli.processes import CommandLine, ServerProcess
    from tests.serving import Client


async def test_the_terminal_shows_what_goes_on(cli: CommandLine, client: Client, execution: str) -> None:
    terminal = cli.open("watch", execution)
    terminal.wait_for("you: do it")
    terminal.wait_for("PENDING")
    runner = Runner(client, execution)
    todos = {
        "1": TodoItem(content="look around", status=TODO_IN_PROGRESS),
        "2": TodoItem(content="answer", status=TODO_PENDING, position=1),
    }
    await runner.write(AgentExecutionStatus(phase=EXECUTION_IN_PROGRESS, todos=todos))
    terminal.wait_for("IN_PROGRESS")
    terminal.wait_for("[>] look around")
    terminal.wait_for("[ ] answer")
    await runner.speak("m1", "Let me think")
    terminal.wait_for("agent: Let me think")
    await runner.write(
        AgentExecutionStatus(
            tool_calls=[ToolCall(id="c1", name="search", status=TOOL_CALL_RUNNING)],
            sub_agent_executions=[
                SubAgentExecution(id="s1", name="reader", input="read it", status=SUB_AGENT_IN_PROGRESS)
            ],
            usage=[Usage(id="u1", input_tokens=1234, output_tokens=56)],
        )
    )
    terminal.wait_for("search")
    terminal.wait_for("reader")
    terminal.wait_for("1,234 tokens in, 56 out")
    await runner.speak("m2", "I am reading", owner="s1")
    terminal.wait_for("reader: I am reading")
    await runner.write(
        AgentExecutionStatus(
            tool_calls=[ToolCall(id="c1", status=TOOL_CALL_COMPLETED)],
            todos={"1": TodoItem(status=TODO_COMPLETED)},
        )
    )
    terminal.wait_for("✓ search")
    terminal.wait_for("[x] look around")
    await runner.complete()
    assert terminal.wait() == 0
    terminal.wait_for("COMPLETED in ")
    assert "\x1b[?25h" in terminal.raw


async def test_a_long_text_is_bounded_while_it_streams_and_whole_at_the_end(
    cli: CommandLine, client: Client, execution: str
) -> None:
    terminal = cli.open("watch", execution, rows=10, columns=60)
    terminal.wait_for("PENDING")
    runner = Runner(client, execution)
    await runner.start()
    for start in range(0, 400, 40):
        await runner.speak("m1", "".join(f"line {number}\n" for number in range(start, start + 40)))
    terminal.wait_for("line 399")
    live = terminal.text
    assert "line 0\n" not in live
    await runner.complete()
    assert terminal.wait() == 0
    whole = terminal.text[len(live) :]
    assert all(f"line {number}\n" in whole for number in range(400))


async def test_an_agent_cannot_steer_the_terminal(cli: CommandLine, client: Client, execution: str) -> None:
    terminal = cli.open("watch", execution)
    runner = Runner(client, execution)
    await runner.start()
    evil = "\x1b]0;owned\x07\x1b[2Jstill\x9b31m here\x1b]8;;http://evil\x1b\\[bold]not markup[/bold]"
    await runner.write(
        AgentExecutionStatus(
            todos={"1": TodoItem(content=f"todo {evil}")},
            tool_calls=[ToolCall(id="c", name=f"tool {evil}", status=TOOL_CALL_RUNNING)],
            error=evil,
            reason=evil,
        )
    )
    await runner.speak("m1", evil)
    terminal.wait_for("still")
    await runner.complete()
    assert terminal.wait() == 0
    assert "owned" not in terminal.raw
    assert "evil" not in terminal.raw
    assert "\x1b[2Jstill" not in terminal.raw
    assert "\x9b" not in terminal.raw
    assert "[bold]not markup[/bold]" in terminal.text


def test_interrupted_it_leaves_the_terminal_in_order(cli: CommandLine, execution: str) -> None:
    terminal = cli.open("watch", execution)
    terminal.wait_for("PENDING")
    terminal.signal(signal.SIGINT)
    assert terminal.wait() == 130
    terminal.wait_for("detached; the execution goes on")
    assert f"runstream watch {execution}" in terminal.text.replace("\n", " ")
    assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l")


def test_an_outage_is_seen(own_cli: CommandLine, own_server: ServerProcess) -> None:
    own_cli.ok("agent", "create", "worker")
    execution = own_cli.ok("run", "worker", "do it", "--detach").out.strip()
    terminal = own_cli.open("watch", execution)
    terminal.wait_for("PENDING")
    own_server.kill()
    terminal.wait_for("connection lost, resuming after revision 1…")
    own_server.restart()
    terminal.wait_for("resumed after revision 1")
    own_cli.ok("terminate", execution)
    assert terminal.wait() == 5


def test_a_dumb_terminal_gets_lines(cli: CommandLine, execution: str) -> None:
    cli.ok("terminate", execution)
    result = cli("watch", execution, env={"TERM": "dumb"})
    assert result.code == 5
    assert "\x1b" not in result.out
