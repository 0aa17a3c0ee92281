"""Narration: what a framework streams, told as reports.

The ids it is told are the framework's own; `owner` is the id of the tool call that a sub-agent does, empty for the
agent itself. An id that comes again, which some providers and most fakes let happen, means the open entry if there is
one and a new one else; in the execution each has an id of its own.

Whatever is open when the narration ends is closed: nothing that a framework begins and forgets stays running.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from runstream.adapters.names import names_of
from runstream.adapters.outcomes import Outcomes
from runstream.adapters.scopes import Call, Scope
from runstream.adapters.todos import todo_of
from runstream.runner.approvals import ask, known
from runstream.runner.context.limits import Limits
from runstream.runner.context.value import narrowed
from runstream.runner.decisions import Approval
from runstream.runner.desk import now
from runstream.runner.errors import AgentFailure, Paused
from runstream.runner.json_safe import to_text
from runstream.runner.reporter import LONGEST_NAME, Reporter
from runstream.runner.sub_agents import LONGEST_TEXT
from runstream.runner.text import cut
from runstream.runner.tools import ToolNotAllowed
from runstream.v1.agent_execution_pb2 import (
    SUB_AGENT_IN_PROGRESS,
    TOOL_CALL_RUNNING,
    TOOL_CALL_SKIPPED,
    AgentExecutionStatus,
    SubAgentExecution,
    ToolCall,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType
    from typing import Self

    from runstream.runner import Decision, Invocation
    from runstream.runner.context import ExecutionContext
    from runstream.runner.messages import MessageKind


class Narration:
    """Tells what one call of an agent does; an async context manager, which closes what is open when it is left."""

    def __init__(self, invocation: Invocation) -> None:
        """Narrate this invocation."""
        self._invocation = invocation
        self._report = invocation.report
        self._desk = self._report._desk  # noqa: SLF001  # of the SDK, for the SDK
        self._names = names_of(self._desk, invocation.execution.status)
        self._outcomes = Outcomes(self._desk)
        self._scopes: dict[str, Scope] = {"": Scope(invocation.context)}
        #: In the order of their beginning; a scope whose id came again is in none but this.
        self._begun = [self._scopes[""]]
        #: Whether the framework told which call has ended the run.
        self._told = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for scope in reversed(self._begun):
            for call in reversed(scope.made):
                if not call.asking:
                    self._end(call, self._outcomes.left_open(error, told=self._told))
            self._end_agent(scope, self._outcomes.left_at_work(error, told=self._told))

    async def safe_point(self) -> None:
        """Let the agent be paused here, unless a tool is at work, which would have to be used once more."""
        if any(call.at_work for scope in self._begun for call in scope.made):
            await asyncio.sleep(0)
        else:
            await self._invocation.safe_point()

    async def text(self, text: str, *, message: str, owner: str = "", kind: MessageKind = "ai") -> None:
        """Go on with a message, or begin it."""
        if not text:
            return
        scope = self._scope(owner)
        told = scope.messages.get((message, kind))
        if told is None:
            report, wanted = scope.context.report, message if kind == "ai" else f"{message}-{kind}"
            report._step()  # noqa: SLF001  # what the agent reports by itself does not go on with what it did before
            told = report._new_message(kind, self._names.free("message", wanted))  # noqa: SLF001
            scope.messages[message, kind] = told
        await told.text(text)

    async def tool_asked(
        self, call: str, name: str, args: Mapping[str, Any] | str | None, *, owner: str = "", message: str = ""
    ) -> None:
        """Tell that a tool is to be called. Arguments are a mapping, or a JSON text as models write it.

        A call that must not be is told as FAILED, and raised: ToolNotAllowed, BudgetExceeded.
        """
        scope = self._scope(owner)
        if call in scope.calls and scope.calls[call].open:
            return
        entry = scope.call(name, args, message)
        entry.id = self._names.of_call(call, entry)
        told = Call(entry)
        scope.calls[call] = told
        scope.made.append(told)
        await scope.context.report.event(entry)
        try:
            self._check(scope.context, entry)
        except AgentFailure as error:
            self._end(told, self._outcomes.failed(error))
            raise

    async def tool_running(self, call: str, *, owner: str = "") -> None:
        """Tell that a tool has begun."""
        scope = self._scope(owner)
        told = scope.calls.get(call)
        if told is not None and told.open:
            await scope.context.report.event(ToolCall(id=told.entry.id, status=TOOL_CALL_RUNNING, started_at=now()))

    async def tool_ended(
        self, call: str, *, owner: str = "", result: object = None, error: str | Exception = "", reason: str = ""
    ) -> None:
        """Tell what a tool has returned, or why it has failed. One that has ended already stays as it is.

        Give the exception itself as the `error` if it ends the run: what else is open then was only interrupted.
        """
        told = self._scope(owner).calls.get(call)
        if told is None or not told.open:
            return
        await self._desk.outbox.room()
        if isinstance(error, Exception):
            self._told = True
        failed = isinstance(error, Exception) or error or reason
        self._end(told, self._outcomes.failed(error, reason) if failed else self._outcomes.returned(result))

    async def approval(self, call: str, approval: Approval | None = None, *, owner: str = "") -> Decision:
        """Ask a person whether a tool may run, and return the decision; what was decided before is not asked again.

        One that may not run is told as SKIPPED. A safe point: raises `Paused`, and the question stays.
        """
        told = self._scope(owner).calls[call]
        decision = known(self._desk, told.entry.id)
        if decision is None:
            told.asking = True
            try:
                decision = await ask(self._desk, told.entry, approval or Approval())
            except Paused:
                raise
            except BaseException:  # the question is withdrawn, unless the agent is stopped as a whole
                told.open = False
                raise
            told.asking = False
        if not decision.approved:
            self._end(told, ToolCall(status=TOOL_CALL_SKIPPED, completed_at=now()))
        return decision

    async def sub_agent(self, call: str, name: str, task: object, *, owner: str = "", key: str = "") -> None:
        """Tell that a sub-agent does a tool call; what it does has that call as its `owner`, or the `key` if given.

        BudgetExceeded when no agent may work for this one.
        """
        above = self._scope(owner)
        told = above.calls.get(call)
        entry = SubAgentExecution(name=cut(name, LONGEST_NAME), input=cut(to_text(task), LONGEST_TEXT))
        entry.status, entry.started_at = SUB_AGENT_IN_PROGRESS, now()
        if told is not None:
            told.is_agent, entry.call_id = True, told.entry.id
        entry.id = self._names.of_sub_agent(call, entry)
        context = self._below(above.context, entry)
        scope = self._scopes[key or call] = Scope(context, entry)
        self._begun.append(scope)
        await above.context.report.event(entry)

    async def sub_agent_ended(
        self, call: str, *, owner: str = "", output: object = None, error: str | Exception = ""
    ) -> None:
        """Tell what a sub-agent has answered, or why it has failed. What it has left open is closed."""
        scope = self._scopes.get(call)
        if scope is None or not scope.open:
            return
        _ = owner  # the call alone tells which
        await self._desk.outbox.room()
        cause = error if isinstance(error, Exception) else None
        for left in reversed(scope.made):
            self._end(left, self._outcomes.left_open(cause, told=self._told))
        self._end_agent(scope, self._outcomes.gave_up(error) if error else self._outcomes.answered(output))

    async def todos(self, items: Iterable[tuple[str, str]], *, owner: str = "") -> None:
        """Tell what the agent means to do, as contents and states, in place of what was told before.

        What a sub-agent means to do is its own matter, and not told.
        """
        if owner or self._report._owner:  # noqa: SLF001  # of the SDK, for the SDK
            return
        await self._report.todos([todo_of(position, *item) for position, item in enumerate(items)])

    async def usage(  # noqa: PLR0913  # each is a field
        self,
        key: str,
        *,
        model: str = "",
        input_tokens: int = 0,
        output_tokens: int = 0,
        cached_tokens: int = 0,
        cost_micros: int = 0,
        owner: str = "",
    ) -> None:
        """Tell what the call of a model with this key has spent, in all. BudgetExceeded when that was too much."""
        scope = self._scope(owner)
        if key not in scope.usage:
            scope.usage[key] = self._names.free("usage", key)
        await scope.context.report.usage(
            model,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cached_tokens=cached_tokens,
            cost_micros=cost_micros,
            id=scope.usage[key],
        )

    async def answer(self, text: str) -> None:
        """Say the final output, unless it is what was said last."""
        if text and text != self._report.last_said:
            await self._report.answer(text)

    def within(self, name: str) -> str:
        """Return a name for what belongs to this agent alone: of a sub-agent, another than of those beside it."""
        owner = self._report._owner  # noqa: SLF001  # of the SDK, for the SDK
        return f"{name}:{owner}" if owner else name

    def id_of(self, call: str, owner: str = "") -> str:
        """Return our id of a tool call; empty for one that was never told."""
        told = self._scope(owner).calls.get(call)
        return "" if told is None else told.entry.id

    def has_ended(self, call: str, name: str, args: Mapping[str, Any] | str | None) -> bool:
        """Tell whether an earlier attempt has told the end of a tool call of the agent itself."""
        return self._names.has_ended(call, self._scope("").call(name, args))

    def context_of(self, call: str, owner: str = "") -> ExecutionContext:
        """Return the context of a tool call: what is reported in it stands under the call."""
        return narrowed(self._scope(owner).context, Limits(), self.id_of(call, owner) or None, below=False)

    def agent_context(self, owner: str = "") -> ExecutionContext:
        """Return the context of a sub-agent by its call, or of the agent itself."""
        return self._scope(owner).context

    def _scope(self, owner: str) -> Scope:
        """Return the scope of an owner; the agent's own for one that was never told."""
        return self._scopes.get(owner) or self._scopes[""]

    def _check(self, context: ExecutionContext, call: ToolCall) -> None:
        if not context.allows(call.name):
            raise ToolNotAllowed(call.name)
        if self._report.recorded(call.id) is None:  # else an earlier attempt has counted it
            context.ledger.reserve("tool_calls")

    def _below(self, above: ExecutionContext, entry: SubAgentExecution) -> ExecutionContext:
        """Return the context of a sub-agent; it reports in its own name."""
        report = Reporter(self._desk, above.ledger, entry.id)
        call = entry.call_id or None
        return narrowed(above, Limits(), call, below=True, report=report, agent=entry.name, agent_revision=0)

    def _end(self, call: Call, ended: ToolCall) -> None:
        if call.open:
            call.open, ended.id = False, call.entry.id
            self._desk.outbox.post(AgentExecutionStatus(tool_calls=[ended]))

    def _end_agent(self, scope: Scope, ended: SubAgentExecution) -> None:
        if scope.sub_agent is not None and scope.open:
            scope.open, ended.id = False, scope.sub_agent.id
            self._desk.outbox.post(AgentExecutionStatus(sub_agent_executions=[ended]))
