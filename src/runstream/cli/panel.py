"""The panel: what an execution is doing now, on as many lines as the terminal has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.text import Text

from runstream.cli import times, waiting, wording
from runstream.cli.phases import OPEN_SUB_AGENTS, OPEN_TOOL_CALLS, WORKING, phase_text
from runstream.cli.plain_text import tail
from runstream.model.phases import is_terminal
from runstream.v1.agent_execution_pb2 import ExecutionPhase, SubAgentStatus, TodoStatus, ToolCallStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from runstream.v1.agent_execution_pb2 import AgentExecution, AgentExecutionStatus, AgentMessage

_FRAMES: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_LEAST_TEXT: Final = 3
_MOST_COMMANDS: Final = 2


@dataclass(frozen=True, slots=True)
class Panel:
    """The room there is, and the moment that is shown."""

    width: int
    height: int
    now: datetime
    frame: int
    """Counts up, so that something turns while the execution works."""

    def show(self, execution: AgentExecution, spoken: Sequence[tuple[AgentMessage, int]], notice: str) -> Text:
        """Return the panel: at most `height` lines of at most `width` columns.

        `spoken` are the messages that go on, and where in each the text begins that is not told yet.
        """
        status = execution.status
        head = [self._headline(execution)]
        if notice:
            head.append(Text(notice, style="yellow"))
        if status.HasField("control"):
            head.append(wording.control(status.control))
        head += self._to_do(execution)
        foot = self._footline(status)
        # Three sections share what the text leaves, each with a line more for what does not fit.
        share = max((self.height - len(head) - len(foot) - _LEAST_TEXT) // 3 - 1, 1)
        work = [*self._tool_calls(status, share), *self._sub_agents(status, share)]
        todos = self._todos(status, share)
        room = self.height - len(head) - len(work) - len(todos) - len(foot)
        lines = [*self._texts(status, spoken, room), *work, *todos, *foot]
        return self._fitted([*head, *lines])

    def _headline(self, execution: AgentExecution) -> Text:
        status = execution.status
        took = times.brief(times.between(status.started_at, status.completed_at, self.now))
        turning = status.phase == ExecutionPhase.EXECUTION_IN_PROGRESS
        parts = [
            self._turning() if turning else Text("■" if is_terminal(status.phase) else "○", "dim"),
            phase_text(status.phase),
            Text(took, style="cyan"),
            Text(execution.metadata.id, style="dim"),
            Text(f"revision {execution.metadata.revision}", style="dim"),
            Text(f"attempt {status.attempt}" if status.attempt > 1 else "", style="dim"),
        ]
        return Text(" ").join(part for part in parts if part)

    def _to_do(self, execution: AgentExecution) -> list[Text]:
        """Return the commands that the execution waits for, whole: they are there to be copied."""
        commands = waiting.commands(execution)
        rest = len(commands) - _MOST_COMMANDS
        notes = [*commands[:_MOST_COMMANDS], *([f"{WORKING} {rest} more to decide"] if rest > 0 else [])]
        rows = [row for note in notes for row in tail(note, self.height, self.width).split("\n")]
        return [Text(row, style="yellow") for row in rows]

    def _texts(
        self,
        status: AgentExecutionStatus,
        spoken: Sequence[tuple[AgentMessage, int]],
        room: int,
    ) -> list[Text]:
        """Return the end of what each speaker is saying, the room shared between them."""
        if not spoken or room < 1:
            return []
        speakers = spoken[-max(room // _LEAST_TEXT, 1) :]
        share = room // len(speakers)
        lines: list[Text] = []
        for message, told in speakers:
            owner = wording.owner_name(status, message.owner_id)
            room_beside = self.width - wording.speaker(message.type, owner).cell_len
            text = tail(message.content[told:], share, room_beside)
            said = wording.spoken(message.type, owner, text)
            lines += said.split("\n", allow_blank=True)[-share:]
        return lines

    def _tool_calls(self, status: AgentExecutionStatus, most: int) -> list[Text]:
        calls = [call for call in status.tool_calls if call.status in OPEN_TOOL_CALLS]
        lines = [
            wording.tool_call(
                call,
                wording.owner_name(status, call.owner_id),
                self.width,
                self.now,
                self._turning() if call.status == ToolCallStatus.TOOL_CALL_RUNNING else None,
            )
            for call in calls[-most:]
        ]
        return _with_rest(lines, len(calls), "tool calls")

    def _sub_agents(self, status: AgentExecutionStatus, most: int) -> list[Text]:
        agents = [agent for agent in status.sub_agent_executions if agent.status in OPEN_SUB_AGENTS]
        lines = [
            wording.sub_agent(
                agent,
                self.width,
                self.now,
                self._turning() if agent.status == SubAgentStatus.SUB_AGENT_IN_PROGRESS else None,
            )
            for agent in agents[-most:]
        ]
        return _with_rest(lines, len(agents), "sub-agents")

    def _todos(self, status: AgentExecutionStatus, most: int) -> list[Text]:
        """Return the checklist; when it is long, those at work and next first."""
        items = wording.todos_in_order(status)
        shown = items
        if len(items) > most:
            ahead = {TodoStatus.TODO_IN_PROGRESS: 0, TodoStatus.TODO_PENDING: 1}
            shown = sorted(items, key=lambda item: ahead.get(item.status, 2))[:most]
        return _with_rest([wording.todo(item, self.width) for item in shown], len(items), "todos")

    def _footline(self, status: AgentExecutionStatus) -> list[Text]:
        spent = wording.usage(status.usage)
        return [Text(spent, style="dim")] if spent else []

    def _turning(self) -> Text:
        return Text(_FRAMES[self.frame % len(_FRAMES)], style="blue")

    def _fitted(self, lines: Sequence[Text]) -> Text:
        fitted = [line.copy() for line in lines[: self.height]]
        for line in fitted:
            line.truncate(self.width, overflow="ellipsis")
        return Text("\n", no_wrap=True).join(fitted)


def _with_rest(lines: list[Text], total: int, what: str) -> list[Text]:
    rest = total - len(lines)
    return [*lines, Text(f"{WORKING} {rest} more {what}", style="dim")] if rest else lines
