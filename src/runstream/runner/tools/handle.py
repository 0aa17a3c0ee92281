"""Tools: a use of a tool, from its beginning to its end."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runstream.runner.approvals import ask, known
from runstream.runner.desk import now
from runstream.runner.errors import AgentFailure, Paused, ToolBroke, ToolNotAllowed, ToolRejected, ToolSkipped
from runstream.runner.json_safe import to_text
from runstream.runner.text import cut
from runstream.runner.tracing import begin, finish, inside, is_traced
from runstream.v1.agent_execution_pb2 import (
    TOOL_CALL_COMPLETED,
    TOOL_CALL_FAILED,
    TOOL_CALL_INTERRUPTED,
    TOOL_CALL_PENDING,
    TOOL_CALL_RUNNING,
    TOOL_CALL_SKIPPED,
    AgentExecutionStatus,
    ToolCall,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

    from opentelemetry.trace import Span

    from runstream.runner.context.budget import Ledger
    from runstream.runner.context.value import ExecutionContext
    from runstream.runner.decisions import Approval, Decision
    from runstream.runner.desk import Desk
    from runstream.v1.agent_execution_pb2 import ToolCallStatus

#: The longest result that is reported; what is longer is cut, with a mark.
LONGEST_RESULT: Final = 256 << 10
#: The longest reason for a failure.
LONGEST_REASON: Final = 256


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a tool is used: what counts it, and what says whether it may be used, if anything does."""

    ledger: Ledger
    context: ExecutionContext | None


class ToolHandle:
    """A use of a tool: enter it to begin, set `result`, leave it to end. What is raised inside is reported, and raised.

    Entering returns when the server has it on disk that the tool runs: a runner that has lost the execution never
    begins another tool. It is a safe point, and raises `ToolRejected` or `ToolSkipped` when a person was asked and
    decided so; the call is then reported as SKIPPED and the block is not run.
    """

    def __init__(
        self, desk: Desk, scope: Scope, call: ToolCall, approval: Approval | None, begun: Callable[[], None]
    ) -> None:
        """Take the call as it is first reported, in its scope; `begun` is called when it is."""
        self._desk = desk
        self._scope = scope
        self._call = call
        self._approval = approval
        self._begun = begun
        self._asking = False
        self._span: Span | None = None
        #: Whether the context has to allow it by name.
        self.needs_leave = True
        self.id: str = call.id
        self.name: str = call.name
        #: What the tool returned: a text, or anything JSON can be made of. At most 256 KiB of it are reported.
        self.result: object = ""
        #: What a person decided; None when nobody was asked.
        self.decision: Decision | None = None

    @property
    def approved(self) -> bool:
        """Whether the tool may run: a person said so, or nobody was asked."""
        return self.decision is None or self.decision.approved

    async def __aenter__(self) -> Self:
        self._desk.mailbox.check_pause()
        self._begun()
        await self._check()
        if self._approval is not None:
            decision = await self.ask(self._approval)
            if not decision.approved:
                raise (ToolRejected if decision.action == "reject" else ToolSkipped)(self.name, decision)
        else:
            await self._tell(TOOL_CALL_PENDING)
        await self._run()
        self._desk.begin(self)
        self._span = self._begin_span()
        return self

    @contextmanager
    def traced(self, context: ExecutionContext) -> Iterator[ExecutionContext]:
        """Make the call's span the current one for the length of the block; it gets the context with that trace."""
        if self._span is None:
            yield context
            return
        with inside(self._span, context) as within:
            yield within

    async def ask(self, approval: Approval) -> Decision:
        """Ask a person about the call and wait for the decision, unless it is known already. Raises `Paused`."""
        self.decision = known(self._desk, self.id)
        if self.decision is None:
            self._asking = True
            try:
                self.decision = await ask(self._desk, self._call, approval)
            except Paused:
                raise
            except BaseException:
                self._asking = self._desk.mailbox.stopping  # else the question is withdrawn, and the block may go on
                raise
            self._asking = False
        else:
            await self._tell(TOOL_CALL_PENDING)
        if not self.decision.approved:
            self._end(ToolCall(status=TOOL_CALL_SKIPPED))
        return self.decision

    async def ask_within(self, approval: Approval) -> Decision:
        """Ask as `ask` does, while the tool runs; it runs on when it may."""
        decision = await self.ask(approval)
        if decision.approved:
            await self._run()
        return decision

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._desk.end(self)
        if self._span is not None:
            finish(self._span, (isinstance(error, ToolBroke) and error.__cause__) or error)
        if self._asking or not self.approved:
            return  # the question stays, or its end is reported already
        if error is None:
            self._end(ToolCall(status=TOOL_CALL_COMPLETED, result=cut(to_text(self.result), LONGEST_RESULT)))
        elif isinstance(error, Exception):
            self._fail(error)
        else:  # cancelled, or paused
            self._end(ToolCall(status=TOOL_CALL_INTERRUPTED))

    async def refuse(self, error: Exception) -> None:
        """Report that the tool is not run at all: a call that has FAILED as soon as it was made."""
        self._begun()
        await self._tell(TOOL_CALL_PENDING)
        self._fail(error)

    def why(self, error: BaseException) -> str:
        """Return what an error says as it would be reported: short, and without the values of secrets."""
        return self._desk.why(error)

    def _begin_span(self) -> Span | None:
        context = self._scope.context
        if context is None or not is_traced():
            return None
        attributes = {"gen_ai.tool.name": self.name, "gen_ai.tool.call.id": self.id}
        return begin("execute_tool", self.name, context, **attributes)

    async def _check(self) -> None:
        """See whether the tool may be used, and count it."""
        context = self._scope.context
        try:
            if self.needs_leave and context is not None and not context.allows(self.name):
                raise ToolNotAllowed(self.name)
            if not self._desk.counted_before(self.id):
                self._scope.ledger.reserve("tool_calls")
        except AgentFailure as error:
            await self.refuse(error)
            raise

    def _fail(self, error: Exception) -> None:
        reason = cut(self._desk.redacted(error.reason), LONGEST_REASON) if isinstance(error, AgentFailure) else ""
        self._end(ToolCall(status=TOOL_CALL_FAILED, error=self._desk.why(error), reason=reason))

    async def _tell(self, status: ToolCallStatus.ValueType) -> None:
        told = ToolCall()
        told.CopyFrom(self._call)
        told.status = status
        await self._desk.outbox.put(AgentExecutionStatus(tool_calls=[told]))

    async def _run(self) -> None:
        running = ToolCall(id=self.id, status=TOOL_CALL_RUNNING, started_at=now())
        try:
            await self._desk.outbox.record(AgentExecutionStatus(tool_calls=[running]))
        except BaseException:
            self._end(ToolCall(status=TOOL_CALL_INTERRUPTED))
            raise

    def _end(self, ended: ToolCall) -> None:
        ended.id, ended.completed_at = self.id, now()
        self._desk.outbox.post(AgentExecutionStatus(tool_calls=[ended]))
