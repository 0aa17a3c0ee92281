from __future__ import annotations

from datetime import UTC, datetime

from runstream.cli.fold import Fold
from runstream.cli.transcript import Transcript
from runstream.v1.agent_execution_pb2 import (
    CONTROL_CANCEL,
    EXECUTION_COMPLETED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PENDING,
    MESSAGE_AI,
    MESSAGE_HUMAN,
    MESSAGE_THINKING,
    MESSAGE_TOOL,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_RUNNING,
    AgentExecution,
    AgentExecutionSpec,
    AgentExecutionStatus,
    AgentMessage,
    ExecutionChange,
    ExecutionControl,
    SubAgentExecution,
    ToolCall,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Telling:
    """A followed execution, fed with changes."""

    def __init__(self, *, every_step: bool = False) -> None:
        self.fold = Fold()
        self.transcript = Transcript(self.fold, lambda: NOW, width=80, every_step=every_step)
        spec = AgentExecutionSpec(message="do it")
        created = AgentExecution(spec=spec, status=AgentExecutionStatus(phase=EXECUTION_PENDING))
        self.first = self.tell(ExecutionChange(created=created))

    def tell(self, change: ExecutionChange) -> list[str]:
        """Fold a change, which is given the next revision; return the lines it leads to."""
        change.revision = self.fold.peek.metadata.revision + 1
        self.fold.take(change)
        return [line.plain for line in self.transcript.after(change)]

    def status(self, delta: AgentExecutionStatus) -> list[str]:
        """Fold a delta; return the lines it leads to."""
        return self.tell(ExecutionChange(status=delta))

    def says(self, message_id: str, text: str, **more: object) -> list[str]:
        """Stream a piece of a message; return the lines it leads to."""
        message = AgentMessage(id=message_id, type=MESSAGE_AI, content_append=text)
        message.MergeFrom(AgentMessage(**more))  # type: ignore[arg-type]
        return self.status(AgentExecutionStatus(messages=[message]))


def test_a_message_is_told_when_the_next_begins() -> None:
    telling = Telling()
    assert telling.first == ["you: do it"]
    assert telling.says("m1", "One ") == []
    assert telling.says("m1", "piece.") == []
    telling.fold.write_text()
    assert [(message.content, told) for message, told in telling.transcript.untold()] == [("One piece.", 0)]
    assert telling.says("m2", "Two") == ["agent: One piece."]


def test_a_message_is_told_before_the_tool_call_that_follows_it() -> None:
    telling = Telling(every_step=True)
    telling.says("m1", "Let me see.")
    call = ToolCall(id="c", name="search", status=TOOL_CALL_RUNNING)
    assert telling.status(AgentExecutionStatus(tool_calls=[call])) == ["agent: Let me see.", "… search"]
    done = ToolCall(id="c", status=TOOL_CALL_COMPLETED)
    assert telling.status(AgentExecutionStatus(tool_calls=[done])) == ["✓ search"]


def test_speakers_do_not_interrupt_each_other() -> None:
    telling = Telling()
    telling.status(AgentExecutionStatus(sub_agent_executions=[SubAgentExecution(id="s", name="reader")]))
    assert telling.says("m1", "Main") == []
    assert telling.says("m2", "Sub", owner_id="s") == []
    assert telling.says("m1", " line.") == []
    assert telling.says("m3", "More", owner_id="s") == ["reader: Sub"]
    ended = telling.status(AgentExecutionStatus(phase=EXECUTION_COMPLETED))
    assert sorted(ended) == ["agent: Main line.", "reader: More"]


def test_text_that_comes_late_is_told_as_well() -> None:
    telling = Telling()
    telling.says("m1", "One")
    assert telling.says("m2", "Two") == ["agent: One"]
    assert telling.says("m1", " and a half") == ["agent: Two"]
    assert telling.says("m3", "Three") == ["agent:  and a half"]


def test_text_that_is_replaced_is_told_anew() -> None:
    telling = Telling()
    telling.says("m1", "A long answer")
    telling.says("m2", "x")
    telling.status(AgentExecutionStatus(messages=[AgentMessage(id="m1", content="Short")]))
    assert telling.status(AgentExecutionStatus(phase=EXECUTION_COMPLETED))[-1] == "agent: Short"


def test_whole_messages_are_told_at_once() -> None:
    telling = Telling()
    tool = AgentMessage(id="t", type=MESSAGE_TOOL, content="\n".join(str(number) for number in range(100)))
    (told,) = telling.status(AgentExecutionStatus(messages=[tool]))
    assert told.startswith("tool: 0\n1\n")
    assert told.endswith("… 80 more lines")
    again = AgentMessage(id="h", type=MESSAGE_HUMAN, content="do it")
    assert telling.status(AgentExecutionStatus(messages=[again])) == []
    thought = AgentMessage(id="k", type=MESSAGE_THINKING, content="Hm")
    assert telling.status(AgentExecutionStatus(messages=[thought])) == []
    assert telling.says("m1", "x") == ["agent thinks: Hm"]


def test_a_snapshot_is_told_in_the_order_of_events() -> None:
    first = Telling(every_step=True)
    first.says("m1", "One")
    first.status(AgentExecutionStatus(tool_calls=[ToolCall(id="c", name="search", status=TOOL_CALL_COMPLETED)]))
    first.says("m2", "Two")
    telling = Telling(every_step=True)
    snapshot = ExecutionChange(snapshot=first.fold.state, revision=first.fold.state.metadata.revision)
    telling.fold.take(snapshot)
    assert [line.plain for line in telling.transcript.after(snapshot)] == ["agent: One", "✓ search"]
    assert [line.plain for line in telling.transcript.rest()] == ["agent: Two"]


def test_a_request_to_end_is_told_once() -> None:
    telling = Telling()
    control = ExecutionControl(action=CONTROL_CANCEL, reason="enough")
    assert telling.tell(ExecutionChange(control=control)) == ["cancel requested: enough"]
    assert telling.status(AgentExecutionStatus(phase=EXECUTION_IN_PROGRESS)) == []


def test_a_long_text_stays_right_however_often_it_is_read() -> None:
    telling = Telling()
    for _ in range(1_000):
        telling.says("m1", "x" * 1_000)
        assert telling.fold.message("m1") is not None
        telling.fold.write_text()
    telling.says("m2", "next")
    assert [len(message.content) for message in telling.fold.state.status.messages] == [1_000_000, 4]
