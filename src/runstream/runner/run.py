"""Run: one attempt at an execution, from its assignment to the report of its end."""

from __future__ import annotations

import asyncio
import logging
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runstream.model.times import to_seconds
from runstream.runner.agents import invoke
from runstream.runner.bridge import Bridge
from runstream.runner.context.ambient import entered
from runstream.runner.context.build import build_context
from runstream.runner.context.work import Work
from runstream.runner.count import Count
from runstream.runner.crew import AgentCrew
from runstream.runner.decisions import told
from runstream.runner.desk import Desk
from runstream.runner.endings import Stop, StopKind, ending, is_pause, refused_ending
from runstream.runner.errors import ReportClosed, ReportRefused
from runstream.runner.given import spent_before, variables, without_values
from runstream.runner.invocation import Invocation, Setting
from runstream.runner.mailbox import Mailbox
from runstream.runner.outbox import Outbox
from runstream.runner.record import Record
from runstream.runner.refusals import Refusal
from runstream.runner.reporter import Reporter, bind
from runstream.runner.tracing import in_spans
from runstream.v1 import runner_pb2
from runstream.v1.agent_execution_pb2 import EXECUTION_FAILED, AgentExecutionStatus
from runstream.v1.agent_execution_service_pb2 import AgentExecutionUpdateStatusInput
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from runstream.runner.agents import AgentFunction
    from runstream.runner.executions import Executions
    from runstream.v1.agent_execution_pb2 import AgentExecution

    Update = Callable[[AgentExecutionUpdateStatusInput], Awaitable[AgentExecution]]

_LOG = logging.getLogger(__name__)

#: How long an agent may clean up when nobody has said how long: after its deadline, and when the runner ends.
CLEAN_UP_SECONDS: Final = 5.0
#: How much of a cancel's grace is kept for the report of the end, so that it comes before the server forces it.
_REPORT_SHARE: Final = 0.2
_REPORT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Service:
    """The server, as a run calls it."""

    #: Sends a report until it is answered.
    update: Update
    #: Makes sub-executions.
    executions: Executions
    #: Has the server told what is held, which has changed.
    changed: Callable[[], None]


class Run:
    """One attempt. `live` is its whole life; the other methods tell it what the server has said."""

    def __init__(self, assignment: runner_pb2.Assignment, function: AgentFunction, service: Service) -> None:
        """Run `function` for `assignment`, by `service`."""
        self.execution_id = assignment.execution.metadata.id
        self.attempt = assignment.attempt
        self._function = function
        self._update = service.update
        self._executions = service.executions
        self._loop = asyncio.get_running_loop()
        self._mailbox = Mailbox()
        self._outbox = Outbox(self._send, assignment.execution.metadata.revision)
        self._bridge = Bridge(self._loop)
        self._secrets, self._env = variables(assignment)
        record = Record(assignment.execution.status, resumed=assignment.resume_from)
        self._desk = Desk(self._outbox, self._mailbox, record, assignment.attempt, self._secrets)
        self._desk.on_waiting = service.changed
        stripped = without_values(assignment)
        setting = Setting(stripped, self._env, self._mailbox, self._bridge)
        ledger = spent_before(assignment)
        crew = AgentCrew(self._desk, setting, service.executions)
        work = Work(Reporter(self._desk, ledger), self._secrets, ledger, crew, self._bridge)
        self._context = build_context(assignment=stripped, work=work)
        self._setting = setting
        self._agent: asyncio.Task[None] | None = None
        self._stop: Stop | None = None
        #: Set when the agent has ended, or had its time to clean up.
        self._over = asyncio.Event()

    async def live(self) -> None:
        """Run the agent and report its end; returns when the server has it, or need not have it."""
        sending = asyncio.create_task(self._sending())
        if stale := self._desk.record.stale_questions():
            self._outbox.post(AgentExecutionStatus(tool_calls=stale))
        self._agent = asyncio.create_task(self._work(), name=f"agent {self.execution_id}")
        self._agent.add_done_callback(lambda _: self._over.set())
        if self._stop is not None:  # before it began
            self._agent.cancel()
        remaining = self._context.remaining()
        timer = None if remaining is None else self._loop.call_later(remaining, self._exceed_deadline)
        try:
            await self._over.wait()
            await self._desk.stop_open(self._agent, CLEAN_UP_SECONDS if self._stop is None else 0)
            await self._conclude(self._agent)
        finally:
            if timer is not None:
                timer.cancel()
            self._abandon(self._agent)
            self._outbox.close()
            if not sending.done():
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
            self._let_go(self._agent)

    def _let_go(self, agent: asyncio.Task[None]) -> None:
        """Give out no secret any more; blank them until nobody is left who has one: a thread, a task that goes on.

        What the run is made of holds each other no more, so that it goes at once, and not when garbage is collected.
        """
        self._secrets.forget()
        self._env.clear()
        bind(self._context.report, None)
        agent.add_done_callback(lambda _: self._bridge.when_left(self._secrets.release))

    async def _work(self) -> None:
        """Invoke the agent, in its context and its spans."""
        assignment = self._setting.assignment
        name = assignment.agent.metadata.slug
        if assignment.execution.status.sub_agent_executions:
            await Count(self._desk, self._executions, self._context.ledger).take_earlier(assignment.execution)
        with in_spans(name, self._context) as context, entered(context):
            message, resumed = assignment.execution.spec.message, assignment.resume_from
            history = assignment.history
            invocation = Invocation(self._setting, context, message, history=history, resumed=resumed)
            await invoke(self._function, invocation)

    def held(self) -> runner_pb2.Held:
        """Return what the server is told that the runner holds."""
        return runner_pb2.Held(
            execution_id=self.execution_id,
            attempt=self.attempt,
            revision=self._mailbox.newest_input,
            waiting=self._desk.delegating > 0,
        )

    def cancel(self, command: runner_pb2.CancelCommand) -> None:
        """Stop the agent, give it its grace to clean up, and report the end."""
        grace = to_seconds(command.grace)
        kind = StopKind.DEADLINE if command.deadline_exceeded else StopKind.CANCEL
        self._stop_agent(Stop(kind, command.reason), grace - min(_REPORT_SECONDS, grace * _REPORT_SHARE))

    def pause(self) -> None:
        """Let the agent come to a safe point, and report PAUSED."""
        self._mailbox.pause()

    def approve(self, command: runner_pb2.ApprovalCommand) -> None:
        """Tell the agent what was decided about a tool call."""
        decision = told(command)
        if decision is not None:
            self._mailbox.decide(decision)

    def tell(self, command: runner_pb2.InputCommand) -> None:
        """Tell the agent what a person has said."""
        self._mailbox.tell(command.message.content, command.revision)

    def lose(self, reason: str) -> None:
        """Stop the agent and report nothing more: somebody else has the execution, or nobody."""
        if self._agent is None or not self._agent.done():
            _LOG.info("%s is no longer this runner's (attempt %d): %s", self.execution_id, self.attempt, reason)
        self._outbox.close()
        self._stop_agent(Stop(StopKind.LOST, reason), 0)

    def give_back(self) -> None:
        """Stop the agent and report what it has done, but no end: another runner goes on with it."""
        self._stop_agent(Stop(StopKind.GIVE_BACK), CLEAN_UP_SECONDS)

    def _exceed_deadline(self) -> None:
        self._stop_agent(Stop(StopKind.DEADLINE), CLEAN_UP_SECONDS)

    def _stop_agent(self, stop: Stop, clean_up: float) -> None:
        """Cancel the agent, once; it has `clean_up` seconds. A stop that reports no end outweighs one that does."""
        ended = self._agent is not None and self._agent.done()
        if (ended or self._stop is not None) and stop.kind < StopKind.GIVE_BACK:
            return  # who ends first has ended, and who asks first has asked
        if self._stop is not None and stop.kind <= self._stop.kind:
            return
        first = self._stop is None
        self._stop = stop
        self._mailbox.stopping = True
        self._bridge.stop()
        if first and self._agent is not None:
            self._agent.cancel()
        self._loop.call_later(clean_up, self._over.set)

    async def _conclude(self, agent: asyncio.Task[None]) -> None:
        try:
            if self._stop is not None and self._stop.kind >= StopKind.GIVE_BACK:
                await self._outbox.flush()
                return
            last = ending(agent, self._stop, self._desk)
            self._log(agent, last)
            try:
                await self._outbox.finish(last)
            except ReportRefused as error:
                await self._outbox.finish(refused_ending(last, error))
        except ReportClosed:
            return
        except ReportRefused as error:
            _LOG.error("the server did not take the end of %s: %s", self.execution_id, error)

    def _log(self, agent: asyncio.Task[None], last: AgentExecutionStatus) -> None:
        """Write to the log why an agent has failed, with its traceback, which no client sees; without secrets."""
        if not agent.done():
            _LOG.warning("the agent of %s goes on after it was stopped; its reports are ignored", self.execution_id)
        elif last.phase == EXECUTION_FAILED and not agent.cancelled():
            trace = "".join(traceback.format_exception(agent.exception())).rstrip()
            _LOG.error("the agent of %s failed: %s\n%s", self.execution_id, last.reason, self._desk.redacted(trace))

    def _abandon(self, agent: asyncio.Task[None]) -> None:
        """Leave an agent that has not ended to itself, and forget what becomes of it."""
        self._mailbox.stopping = True
        self._bridge.stop()
        if not agent.done():
            agent.cancel()
            _ABANDONED.add(agent)
            agent.add_done_callback(_ABANDONED.discard)
        agent.add_done_callback(_forget)

    async def _sending(self) -> None:
        try:
            await self._outbox.run()
        except Refusal as refusal:
            self.lose(refusal.reason or refusal.code.name)
        except Exception:  # noqa: BLE001  # the agent would wait for ever
            _LOG.exception("reports of %s cannot be sent", self.execution_id)
            self.lose("REPORTING_BROKE")

    async def _send(self, delta: AgentExecutionStatus, sequence: int, replace: Sequence[str]) -> AgentExecution:
        request = AgentExecutionUpdateStatusInput(
            execution_id=self.execution_id,
            status=delta,
            attempt=self.attempt,
            sequence=sequence,
            view=RESOURCE_VIEW_BASIC,
        )
        if replace:
            request.replace_mask.paths.extend(replace)
        try:
            return await self._update(request)
        except Refusal as refusal:
            if refusal.full:  # an agent that went on would work for nothing
                self._stop_agent(Stop(StopKind.FULL, refusal.reason, refusal.message), CLEAN_UP_SECONDS)
            raise


#: Agents that go on after they were stopped. The loop itself holds its tasks weakly.
_ABANDONED: Final[set[asyncio.Task[None]]] = set()


def _forget(agent: asyncio.Task[None]) -> None:
    """Look at what an agent has raised, so that nobody complains that nobody has."""
    if not agent.cancelled():
        error = agent.exception()
        if error is not None and not is_pause(error):
            _LOG.debug("an agent has ended with %s", type(error).__name__)
