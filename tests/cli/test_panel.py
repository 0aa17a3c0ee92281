from __future__ import annotations

from datetime import UTC, datetime

import pytest
from rich.cells import cell_len

from runstream.cli.panel import Panel
from runstream.v1.agent_execution_pb2 import (
    CONTROL_CANCEL,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_WAITING_FOR_APPROVAL,
    EXECUTION_WAITING_FOR_INPUT,
    MESSAGE_AI,
    SUB_AGENT_IN_PROGRESS,
    TOOL_CALL_RUNNING,
    TOOL_CALL_WAITING_APPROVAL,
    AgentExecution,
    AgentMessage,
    TodoItem,
)

NOW = datetime(2026, 1, 1, 12, 1, 5, tzinfo=UTC)


def _busy() -> AgentExecution:
    execution = AgentExecution()
    execution.metadata.id = "aex_01m7yp1d35nh79685zp4amr7aw"
    status = execution.status
    status.phase, status.started_at = EXECUTION_IN_PROGRESS, "2026-01-01T12:00:00.000Z"
    status.control.action = CONTROL_CANCEL
    for number in range(30):
        name = f"thing {number} {'日本語' * 40}"
        status.tool_calls.add(id=str(number), name=name, status=TOOL_CALL_RUNNING)
        status.sub_agent_executions.add(id=str(number), name=name, status=SUB_AGENT_IN_PROGRESS)
        status.todos[str(number)].CopyFrom(TodoItem(content=name, position=number))
    status.usage.add(input_tokens=5)
    return execution


@pytest.mark.parametrize("width", [1, 20, 80, 300])
@pytest.mark.parametrize("height", [1, 2, 5, 10, 24, 100])
def test_it_never_outgrows_the_terminal(width: int, height: int) -> None:
    spoken = [AgentMessage(type=MESSAGE_AI, owner_id=str(number), content="日本 word\n" * 5000) for number in range(5)]
    shown = Panel(width, height, NOW, 1).show(_busy(), [(message, 7) for message in spoken], "notice " * 40)
    lines = shown.plain.split("\n")
    assert len(lines) <= height
    assert all(cell_len(line) <= width for line in lines)


def test_it_shows_the_end_of_the_text_and_how_much_more_there_is() -> None:
    message = AgentMessage(type=MESSAGE_AI, content="told already. " + "word " * 1000 + "the end")
    shown = Panel(80, 24, NOW, 1).show(_busy(), [(message, 14)], "").plain
    assert "the end" in shown
    assert "told already" not in shown
    assert "1m05s" in shown
    assert "cancel requested" in shown
    assert "more tool calls" in shown
    assert "more sub-agents" in shown
    assert "more todos" in shown
    assert "5 tokens in" in shown


def test_text_is_broken_between_words() -> None:
    text = "All the words of this sentence stay whole on a narrow terminal"
    message = AgentMessage(type=MESSAGE_AI, owner_id="reader", content=text)
    shown = Panel(30, 24, NOW, 1).show(AgentExecution(), [(message, 0)], "").plain
    said = shown.partition("\n")[2]
    assert said.startswith("reader: All the words of this\n")
    assert said.removeprefix("reader: ").split() == text.split()


def test_it_tells_what_it_waits_for() -> None:
    execution = AgentExecution()
    execution.metadata.id = "aex_1"
    status = execution.status
    status.phase, status.attempt = EXECUTION_WAITING_FOR_APPROVAL, 2
    for number in range(5):
        status.tool_calls.add(id=f"c{number}", name="deploy", status=TOOL_CALL_WAITING_APPROVAL)
    shown = Panel(100, 24, NOW, 1).show(execution, [], "").plain
    assert "attempt 2" in shown
    assert "\n`runstream approve aex_1 c0` lets it run" in shown
    assert "\n`runstream approve aex_1 c1` lets it run" in shown
    assert "\n… 3 more to decide" in shown
    status.ClearField("tool_calls")
    status.phase = EXECUTION_WAITING_FOR_INPUT
    assert "`runstream input aex_1` answers it" in Panel(100, 24, NOW, 1).show(execution, [], "").plain
    status.phase = EXECUTION_PAUSED
    assert "`runstream resume aex_1` lets it go on" in Panel(100, 24, NOW, 1).show(execution, [], "").plain
