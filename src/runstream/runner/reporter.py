"""Reporter: how an agent tells what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runstream.runner.decisions import Approval
from runstream.runner.desk import now
from runstream.runner.events import as_delta
from runstream.runner.inputs import ask
from runstream.runner.json_safe import to_struct, to_text
from runstream.runner.messages import Message, opening
from runstream.runner.sub_agents import LONGEST_TEXT, SubAgent
from runstream.runner.text import cut
from runstream.runner.todos import LONGEST_TODO, todo_items, todo_status
from runstream.runner.tools.handle import Scope, ToolHandle
from runstream.v1.agent_execution_pb2 import (
    AgentExecutionStatus,
    SubAgentExecution,
    TodoItem,
    ToolCall,
    Usage,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runstream.runner.context.budget import Ledger
    from runstream.runner.context.value import ExecutionContext
    from runstream.runner.decisions import Action, Decision
    from runstream.runner.desk import Desk
    from runstream.runner.events import Event
    from runstream.runner.messages import MessageKind
    from runstream.runner.todos import TodoState
    from runstream.v1.agent_execution_pb2 import ComponentMetadata

#: The longest name of a tool, a model or a sub-agent.
LONGEST_NAME: Final = 256


class Reporter:
    """Tells what an agent does, as it does it.

    Nothing that was reported is lost or doubled, whatever becomes of the connection and the server. A report returns
    when it has been taken in, which is at once unless too much is unsent; what waits for the server's disk says so.
    Ids are made up when none are given. Give your own to what a resumed agent does again: the entry is then gone on
    with, in place of a second one. Every report raises `ReportClosed` once the execution is over for this agent.
    """

    def __init__(self, desk: Desk, ledger: Ledger, owner: str = "", call_id: str = "") -> None:
        """Report at `desk`, for the sub-agent `owner`, or for the agent itself; during tool call `call_id`, or none.

        What is spent is counted in `ledger`.
        """
        self._desk = desk
        self._ledger = ledger
        self._owner = owner
        self._call_id = call_id
        #: What is reported is done in this context.
        self._context: ExecutionContext | None = None
        self._message: Message | None = None
        self._kind: MessageKind = "ai"
        self._last: Message | None = None

    @property
    def last_said(self) -> str:
        """The last message to people that this reporter has begun, as far as it was said; empty if there is none."""
        return "" if self._last is None else self._last.said

    async def text(self, text: str, *, kind: MessageKind = "ai") -> None:
        """Go on with the current message, or begin one: after anything but text, and for another kind."""
        if self._message is None or kind != self._kind:
            self._message, self._kind = self._new_message(kind), kind
        await self._message.text(text)

    async def message(
        self,
        text: str = "",
        *,
        kind: MessageKind = "ai",
        id: str = "",  # noqa: A002  # as the API calls it
        metadata: Mapping[str, object] | None = None,
    ) -> Message:
        """Begin a message of its own, and return it; its `text` goes on with it. A safe point."""
        self._desk.mailbox.check_pause()
        self._step()
        message = self._new_message(kind, id, metadata)
        await message.text(text)
        await message.begin()
        return message

    async def answer(self, text: str) -> None:
        """Say the last thing: a message of its own. What an agent returns is said so."""
        self._step()
        await self.text(text)

    def tool(
        self,
        name: str,
        args: Mapping[str, object] | None = None,
        *,
        id: str = "",  # noqa: A002  # as the API calls it
        approval: Approval | None = None,
        component: ComponentMetadata | None = None,
    ) -> ToolHandle:
        """Use a tool: `async with report.tool(…) as call`, see `ToolHandle`. Arguments may hold any object.

        With `approval`, a person is asked first. Entering is a safe point; it raises ToolNotAllowed for a tool that the
        context does not allow, and BudgetExceeded for one too many, which are then reported as FAILED.
        """
        call = self._call(name, args, id)
        if component is not None:
            call.component_metadata.CopyFrom(component)
        return ToolHandle(self._desk, self._scope, call, approval, self._step)

    async def approval(
        self,
        tool: str | ToolHandle,
        args: Mapping[str, object] | None = None,
        *,
        id: str = "",  # noqa: A002  # as the API calls it
        timeout: float | None = None,  # noqa: ASYNC109  # the server keeps it
        default: Action | None = None,
    ) -> Decision:
        """Ask a person whether a tool may run, and return the decision, whichever it is. A safe point.

        For a tool by name, or for one that is open and runs on when it may. What was decided about a call with this id,
        in an earlier attempt too, is returned without asking again. `timeout` (seconds) and `default` go together.
        """
        self._desk.mailbox.check_pause()
        question = Approval(timeout, default)
        if isinstance(tool, ToolHandle):
            return await tool.ask_within(question)
        self._step()
        handle = ToolHandle(self._desk, self._scope, self._call(tool, args, id), question, self._step)
        return await handle.ask(question)

    def sub_agent(
        self,
        name: str,
        task: object = "",
        *,
        id: str = "",  # noqa: A002  # as the API calls it
        execution_id: str = "",
        call_id: str = "",
    ) -> SubAgent:
        """Let another agent work: `async with report.sub_agent(…) as sub`, see `SubAgent`. Entering is a safe point.

        `execution_id` names its execution if it has one of its own, `call_id` the tool call that asked for it.
        """
        entry = SubAgentExecution(
            id=id or self._desk.new_id("sub"),
            name=cut(name, LONGEST_NAME),
            input=cut(to_text(task), LONGEST_TEXT),
            execution_id=execution_id,
            call_id=call_id,
        )
        return SubAgent(self._desk, entry, Reporter(self._desk, self._ledger, entry.id), self._step)

    async def todos(self, items: Iterable[str | TodoItem] | Mapping[str, str]) -> None:
        """Tell what the agent means to do, in order and in place of what was told before.

        Texts, which get the ids 1, 2, 3, …; ids and their texts; or items of the API.
        """
        delta = AgentExecutionStatus(todos=todo_items(items))
        await self._desk.outbox.put(delta, ["todos"])

    async def todo(self, key: str | int, status: TodoState, content: str = "") -> None:
        """Tell where the todo with this id stands: pending, in_progress, completed or cancelled."""
        item = TodoItem(status=todo_status(status), content=cut(content, LONGEST_TODO), updated_at=now())
        await self._desk.outbox.put(AgentExecutionStatus(todos={str(key): item}))

    async def usage(  # noqa: PLR0913  # each is a field
        self,
        model: str = "",
        *,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cached_tokens: int = 0,
        cost_micros: int = 0,
        id: str = "",  # noqa: A002  # as the API calls it
    ) -> None:
        """Tell what was spent: one entry per call of a model, or the new totals of the entry with this `id`.

        It counts against the budget: BudgetExceeded when that was too much.
        """
        entry = Usage(
            id=id or self._desk.new_id("usage"),
            model=cut(model, LONGEST_NAME),
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cached_tokens=cached_tokens,
            cost_micros=cost_micros,
            owner_id=self._owner,
        )
        spent = self._desk.spent_more(entry)
        await self._desk.outbox.put(AgentExecutionStatus(usage=[entry]))
        self._ledger.charge(spent)

    async def needs_input(self, prompt: str = "", *, id: str = "") -> str:  # noqa: A002  # as the API calls it
        """Say the prompt, wait for a person's message, and return it. A safe point.

        With an `id`, an answer that was given in an earlier attempt is returned without asking again.
        """
        self._desk.mailbox.check_pause()
        self._step()
        message = self._new_message("ai", id) if prompt or id else None
        return await ask(self._desk, message, prompt)

    async def event(self, event: Event) -> None:
        """Report a text, or a message of the API as it is: one of an entry, or a delta of several without a phase."""
        if isinstance(event, str):
            await self.text(event)
            return
        delta = as_delta(event, self._desk.new_id)
        self._step()
        spent = [self._desk.spent_more(usage) for usage in delta.usage]
        await self._desk.outbox.put(delta)
        for each in spent:
            self._ledger.charge(each)

    async def flush(self) -> None:
        """Return when all that was reported is on the server's disk."""
        await self._desk.outbox.flush()

    def recorded(self, call_id: str) -> ToolCall | None:
        """Return a tool call as earlier attempts have left it; None when they did not make it."""
        return self._desk.record.call(call_id)

    @property
    def _scope(self) -> Scope:
        return Scope(self._ledger, self._context)

    def _step(self) -> None:
        """Begin something: text that follows is a message of its own."""
        self._message = None

    def _new_message(
        self, kind: MessageKind, entry_id: str = "", metadata: Mapping[str, object] | None = None
    ) -> Message:
        struct = to_struct(metadata) if metadata else None
        made = Message(self._desk, opening(entry_id or self._desk.new_id("msg"), kind, self._owner, struct))
        if kind == "ai":
            self._last = made
        return made

    def _call(self, name: str, args: Mapping[str, object] | None, entry_id: str) -> ToolCall:
        call = ToolCall(id=entry_id or self._desk.new_id("call"), name=cut(name, LONGEST_NAME), owner_id=self._owner)
        call.parent_call_id = self._call_id
        if self._message is not None:
            call.message_id = self._message.id
        call.args.CopyFrom(to_struct(args or {}))
        return call


def bind(report: Reporter, context: ExecutionContext | None) -> None:
    """Have a reporter report on what is done in a context; in none when the run is over, for it takes nothing more."""
    report._context = context  # noqa: SLF001  # of a reporter, for its context


def own_call_id(report: Reporter, wanted: str) -> str:
    """Return an id for a call that a model calls `wanted`; see `Desk.own_call_id`."""
    return report._desk.own_call_id(wanted)  # noqa: SLF001  # of a reporter, for the SDK


def part_of(report: Reporter, ledger: Ledger, call_id: str | None) -> Reporter:
    """Return the reporter of a part of what `report` reports on, during tool call `call_id` if one is given."""
    within = report._call_id if call_id is None else call_id  # noqa: SLF001  # of a reporter, for a reporter
    return Reporter(report._desk, ledger, report._owner, within)  # noqa: SLF001
