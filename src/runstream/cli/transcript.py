"""The transcript: what is told of an execution, once, in order, as soon as it is complete.

Text streams in pieces and nothing marks its end. A message is complete when its speaker goes on to something else,
and all are when the execution rests. Text that comes later all the same is told as a message of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from rich.text import Text

from runstream.cli import waiting, wording
from runstream.cli.phases import OPEN_SUB_AGENTS, OPEN_TOOL_CALLS, phase_text
from runstream.model.phases import is_terminal
from runstream.v1.agent_execution_pb2 import (
    AgentMessage,
    ExecutionPhase,
    MessageType,
    SubAgentExecution,
    ToolCall,
    ToolCallStatus,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from runstream.cli.fold import Fold
    from runstream.v1.agent_execution_pb2 import ExecutionChange

    Entry: TypeAlias = AgentMessage | ToolCall | SubAgentExecution

#: Who speaks in pieces.
_STREAMING: Final = frozenset(
    {MessageType.MESSAGE_AI, MessageType.MESSAGE_THINKING, MessageType.MESSAGE_TYPE_UNSPECIFIED}
)
_WORKING: Final = frozenset({ExecutionPhase.EXECUTION_PENDING, ExecutionPhase.EXECUTION_IN_PROGRESS})
_MOST_TOOL_LINES: Final = 20


class Transcript:
    """Tells an execution line by line."""

    def __init__(self, fold: Fold, now: Callable[[], datetime], *, width: int, every_step: bool) -> None:
        """Tell of `fold`; with `every_step` also what begins, and todos and phases as they change."""
        self._fold = fold
        self._now = now
        self._width = width
        self._every_step = every_step
        self._told: dict[str, int] = {}
        self._open: dict[str, str] = {}
        self._statuses: dict[tuple[str, str], int] = {}
        self._phase: int = ExecutionPhase.EXECUTION_PHASE_UNSPECIFIED
        self._control: bytes = b""
        self._attempt = 0
        self._asked = False

    def after(self, change: ExecutionChange) -> Iterator[Text]:
        """Yield what is to be told now that the fold has taken `change`."""
        yield from self._question()
        yield from self._attempt_change(change)
        whole = change.WhichOneof("kind") in {"snapshot", "created"}
        for entry in sorted(self._touched(change, whole=whole), key=_order):
            yield from self._entry(entry)
        if self._fold.status.phase not in _WORKING:
            yield from self.rest()
        if self._every_step and (whole or change.status.todos):
            yield from self._todos()
        yield from self._control_change()
        yield from self._phase_change()

    def rest(self) -> Iterator[Text]:
        """Yield what is being said, as far as it goes."""
        for owner in list(self._open):
            yield from self._complete(owner)

    def untold(self) -> Iterator[tuple[AgentMessage, int]]:
        """Yield the messages that are not complete, and how much of each was told."""
        for message_id in self._open.values():
            message = self._fold.message(message_id)
            if message is not None and len(message.content) > self._told.get(message_id, 0):
                yield message, self._told.get(message_id, 0)

    def _question(self) -> Iterator[Text]:
        asked = self._fold.peek.spec.message
        if asked and not self._asked:
            yield wording.spoken(MessageType.MESSAGE_HUMAN, "", asked)
        self._asked = True

    def _touched(self, change: ExecutionChange, *, whole: bool) -> Iterator[Entry]:
        """Yield the entries of the state that `change` is about."""
        status = self._fold.status if whole else change.status
        for message in status.messages:
            found = self._fold.message(message.id)
            if found is not None:
                yield found
                yield from _asked_for(message, found)
        for call in status.tool_calls:
            yield self._fold.tool_call(call.id) or call
        for agent in status.sub_agent_executions:
            yield self._fold.sub_agent(agent.id) or agent

    def _entry(self, entry: Entry) -> Iterator[Text]:
        if isinstance(entry, AgentMessage):
            yield from self._message(entry)
        elif isinstance(entry, ToolCall):
            yield from self._tool_call(entry)
        else:
            yield from self._sub_agent(entry)

    def _message(self, message: AgentMessage) -> Iterator[Text]:
        owner = message.owner_id
        if self._open.get(owner, message.id) != message.id:
            yield from self._complete(owner)
        self._open[owner] = message.id
        if message.type not in _STREAMING:
            yield from self._complete(owner)

    def _complete(self, owner: str) -> Iterator[Text]:
        """Tell what an owner was saying."""
        message_id = self._open.pop(owner, None)
        if message_id is None:
            return
        self._fold.write_text()
        message = self._fold.message(message_id)
        if message is None:
            return
        told = self._told.get(message.id, 0)
        told = told if told <= len(message.content) else 0
        text = message.content[told:]
        self._told[message.id] = len(message.content)
        if text.strip() and not self._is_question(message):
            yield self._spoken(message, text)

    def _is_question(self, message: AgentMessage) -> bool:
        human = message.type == MessageType.MESSAGE_HUMAN
        return human and message.content == self._fold.peek.spec.message

    def _spoken(self, message: AgentMessage, text: str) -> Text:
        owner = wording.owner_name(self._fold.status, message.owner_id)
        if message.type == MessageType.MESSAGE_TOOL:
            text = _shortened(text)
        return wording.spoken(message.type, owner, text)

    def _tool_call(self, call: ToolCall) -> Iterator[Text]:
        yield from self._complete(call.owner_id)
        waits = call.status == ToolCallStatus.TOOL_CALL_WAITING_APPROVAL
        is_open = call.status in OPEN_TOOL_CALLS and not waits
        changed = self._is_news("tool", call.id, call.status, is_open=is_open)
        action = call.approval.action
        decided = action and self._is_news("decision", call.id, action, is_open=False)
        if changed or decided:
            owner = wording.owner_name(self._fold.status, call.owner_id)
            yield wording.tool_call(call, owner, self._width, self._now())
            if waits:
                yield Text(waiting.how_to_decide(self._fold.peek, call), style="yellow")

    def _sub_agent(self, agent: SubAgentExecution) -> Iterator[Text]:
        is_open = agent.status in OPEN_SUB_AGENTS
        if not is_open:
            yield from self._complete(agent.id)
        if self._is_news("agent", agent.id, agent.status, is_open=is_open):
            yield wording.sub_agent(agent, self._width, self._now())

    def _is_news(self, kind: str, entry_id: str, status: int, *, is_open: bool) -> bool:
        """Whether a status is to be told: an end always, a beginning with every step."""
        if is_open and not self._every_step:
            return False
        before = self._statuses.get((kind, entry_id))
        self._statuses[kind, entry_id] = status
        return status != before

    def _todos(self) -> Iterator[Text]:
        for item in wording.todos_in_order(self._fold.status):
            if self._is_news("todo", item.id, item.status, is_open=False):
                yield wording.todo(item, self._width)

    def _control_change(self) -> Iterator[Text]:
        control = self._fold.status.control
        serialized = control.SerializeToString(deterministic=True)
        taken_back = not control.action and self._fold.status.phase == self._phase
        if serialized != self._control and (control.action or taken_back):
            yield wording.control(control)
        self._control = serialized

    def _phase_change(self) -> Iterator[Text]:
        phase = self._fold.status.phase
        if phase != self._phase and self._every_step and not is_terminal(phase):
            yield Text.assemble(Text("phase ", style="dim"), phase_text(phase))
        how_to_go_on = waiting.how_to_go_on(self._fold.peek)
        if phase != self._phase and how_to_go_on:
            yield Text(how_to_go_on, style="yellow")
        self._phase = phase

    def _attempt_change(self, change: ExecutionChange) -> Iterator[Text]:
        """Tell that a new attempt begins, and what becomes of the one before."""
        before, self._attempt = self._attempt, self._fold.status.attempt
        if change.supersedes:
            self._forget_dropped()
            told = f"attempt {self._attempt} begins anew; what attempt {change.supersedes} said and did is dropped"
        elif before and self._attempt > before:
            told = f"attempt {self._attempt} goes on where attempt {before} ended"
        elif self._attempt > max(before, 1):
            told = f"attempt {self._attempt}"
        else:
            return
        yield Text(told, style="magenta")

    def _forget_dropped(self) -> None:
        """Forget what was told of entries that have left the state: another attempt may use their ids again."""
        status = self._fold.status
        kept = {(kind, entry.id) for kind in ("tool", "decision") for entry in status.tool_calls}
        kept |= {("agent", entry.id) for entry in status.sub_agent_executions} | {("todo", key) for key in status.todos}
        messages = {message.id for message in status.messages}
        self._statuses = {key: value for key, value in self._statuses.items() if key in kept}
        self._told = {key: value for key, value in self._told.items() if key in messages}
        self._open = {owner: message_id for owner, message_id in self._open.items() if message_id in messages}


def _order(entry: Entry) -> tuple[int, int]:
    """Return the place of an entry in time; what began with one change: first text, then calls."""
    return entry.revision, 0 if isinstance(entry, AgentMessage) else 1


def _asked_for(part: AgentMessage, message: AgentMessage) -> Iterator[ToolCall]:
    """Yield the calls inside `message` that `part` of it is about, as those of its owner."""
    about = {call.id for call in part.tool_calls}
    yield from (call for call in message.tool_calls if call.id in about)


def _shortened(text: str) -> str:
    lines = text.strip("\n").split("\n")
    if len(lines) <= _MOST_TOOL_LINES:
        return text
    return "\n".join([*lines[:_MOST_TOOL_LINES], f"… {len(lines) - _MOST_TOOL_LINES} more lines"])
