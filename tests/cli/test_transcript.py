from __future__ import annotations

from datetime import UTC, datetime

from runstream.cli.fold import Fold
from runstream.cli.transcript import Transcript
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_APPROVE,
    APPROVAL_REJECT,
    CONTROL_CANCEL,
    CONTROL_PAUSE,
    EXECUTION_COMPLETED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PENDING,
    MESSAGE_AI,
    MESSAGE_HUMAN,
    MESSAGE_THINKING,
    MESSAGE_TOOL,
    TODO_COMPLETED,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_PENDING,
    TOOL_CALL_RUNNING,
    TOOL_CALL_SKIPPED,
    TOOL_CALL_WAITING_APPROVAL,
    AgentExecution,
    AgentExecutionSpec,
    AgentExecutionStatus,
    AgentMessage,
    ExecutionChange,
    ExecutionControl,
    SubAgentExecution,
    TodoItem,
    ToolCall,
    ToolCallApproval,
)
from runstream.v1.resource_pb2 import AuditActor

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


def test_a_request_that_is_taken_back_is_told() -> None:
    telling = Telling()
    telling.status(AgentExecutionStatus(phase=EXECUTION_IN_PROGRESS))
    telling.tell(ExecutionChange(control=ExecutionControl(action=CONTROL_PAUSE)))
    assert telling.tell(ExecutionChange(control=ExecutionControl())) == ["request taken back"]
    over = ExecutionControl(action=CONTROL_CANCEL, deadline_exceeded=True, requested_by=AuditActor(id="system"))
    assert telling.tell(ExecutionChange(control=over)) == ["its time is over, end requested"]


def test_a_new_attempt_is_told_with_what_becomes_of_the_one_before() -> None:
    telling = Telling()
    first = AgentExecutionStatus(phase=EXECUTION_IN_PROGRESS, attempt=1)
    assert telling.tell(ExecutionChange(status=first, attempt=1)) == []
    requeued = ExecutionChange(status=AgentExecutionStatus(phase=EXECUTION_PENDING), attempt=1)
    assert telling.tell(requeued) == []
    second = AgentExecutionStatus(phase=EXECUTION_IN_PROGRESS, attempt=2)
    resumed = telling.tell(ExecutionChange(status=second, attempt=2))
    assert resumed == ["attempt 2 goes on where attempt 1 ended"]
    third = AgentExecutionStatus(phase=EXECUTION_IN_PROGRESS, attempt=3)
    anew = telling.tell(ExecutionChange(status=third, attempt=3, supersedes=2))
    assert anew == ["attempt 3 begins anew; what attempt 2 said and did is dropped"]
    late = Telling()
    state = AgentExecution(status=third)
    state.metadata.revision = 9
    snapshot = ExecutionChange(snapshot=state, revision=9)
    late.fold.take(snapshot)
    assert [line.plain for line in late.transcript.after(snapshot)] == ["attempt 3"]


def test_a_new_attempt_may_use_the_ids_of_the_one_before() -> None:
    telling = Telling(every_step=True)
    done = AgentExecutionStatus(
        attempt=1,
        messages=[AgentMessage(id="m1", type=MESSAGE_TOOL, content="the same")],
        tool_calls=[ToolCall(id="c", name="search", status=TOOL_CALL_COMPLETED)],
        todos={"1": TodoItem(content="look", status=TODO_COMPLETED)},
    )
    told = telling.tell(ExecutionChange(status=done, attempt=1))
    assert told == ["tool: the same", "✓ search", "[x] look"]
    telling.tell(ExecutionChange(status=AgentExecutionStatus(attempt=2), attempt=2, supersedes=1))
    done.attempt = 2
    assert telling.tell(ExecutionChange(status=done, attempt=2)) == told


def test_a_question_and_its_answer_are_told_where_steps_are_not() -> None:
    telling = Telling()
    telling.fold.peek.metadata.id = "aex_1"
    waiting = ToolCall(id="c", name="deploy", status=TOOL_CALL_WAITING_APPROVAL, approval=ToolCallApproval())
    assert telling.status(AgentExecutionStatus(tool_calls=[waiting])) == [
        "? deploy waits for approval",
        "`runstream approve aex_1 c` lets it run, --skip or --reject refuses it",
    ]
    approval = ToolCallApproval(action=APPROVAL_APPROVE, decided_by=AuditActor(id="ada"))
    decided = ToolCall(id="c", status=TOOL_CALL_PENDING, approval=approval)
    assert telling.status(AgentExecutionStatus(tool_calls=[decided])) == ["· deploy approved by ada"]
    running = ToolCall(id="c", status=TOOL_CALL_RUNNING)
    assert telling.status(AgentExecutionStatus(tool_calls=[running])) == []
    other = ToolCall(id="d", name="drop", status=TOOL_CALL_WAITING_APPROVAL)
    telling.status(AgentExecutionStatus(tool_calls=[other]))
    refusal = ToolCallApproval(action=APPROVAL_REJECT, decided_by=AuditActor(id="bo"), comment="no")
    refused = ToolCall(id="d", status=TOOL_CALL_SKIPPED, approval=refusal, error="Rejected by bo.")
    assert telling.status(AgentExecutionStatus(tool_calls=[refused])) == ["- drop rejected by bo: no"]


def test_a_long_text_stays_right_however_often_it_is_read() -> None:
    telling = Telling()
    for _ in range(1_000):
        telling.says("m1", "x" * 1_000)
        assert telling.fold.message("m1") is not None
        telling.fold.write_text()
    telling.says("m2", "next")
    assert [len(message.content) for message in telling.fold.state.status.messages] == [1_000_000, 4]
