"""Leasing: an execution gets a runner, and loses it. The only commands that begin and end attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runstream.dispatch.dispatcher import LOST_EVENT
from runstream.model.errors import FailedPrecondition
from runstream.model.phases import WAITING, check_transition, phase_name
from runstream.pipeline.context import SYSTEM, Caller, ContextKey
from runstream.pipeline.steps import Persist
from runstream.services.executions.approvals import waiting
from runstream.services.executions.changes import StatusChange
from runstream.services.executions.loading import LOADED, LoadExecution
from runstream.storage.records import AGENT
from runstream.stored.v1.stored_pb2 import LEASE_STEP_ASSIGN, LEASE_STEP_LOSE, LeaseCommand
from runstream.v1.agent_execution_pb2 import (
    CHANGE_AUTHOR_SYSTEM,
    CONTROL_CANCEL,
    CONTROL_PAUSE,
    EXECUTION_CANCELLED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_PHASE_UNSPECIFIED,
    EXECUTION_WAITING_FOR_INPUT,
    AgentExecutionStatus,
)

if TYPE_CHECKING:
    from runstream.pipeline.context import RequestContext
    from runstream.pipeline.engine import Pipeline, Step
    from runstream.services.executions.loading import Loaded
    from runstream.services.wiring import Wiring
    from runstream.stored.v1.stored_pb2 import ExecutionHead
    from runstream.v1.agent_pb2 import Agent

    LeaseContext = RequestContext[LeaseCommand, LeaseCommand]

DEFAULT_MAX_ATTEMPTS: Final = 3
_AGENT: ContextKey[Agent] = ContextKey("agent")


class ExecutionLeasing:
    """Assigns executions to runners and takes them back."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        change = StatusChange(wiring.folds)
        self._assign = self._pipeline("AgentExecution.Assign", CheckQueued(), StageAssignment(change))
        self._release = self._pipeline("AgentExecution.Release", AnswerIfReleased(), LoadAgent(), StageRelease(change))

    async def change_lease(self, command: LeaseCommand) -> LeaseCommand:
        """Take one step of a lease; durable when it returns. Answers with the attempt that began or ended.

        Assigning what is not queued is FAILED_PRECONDITION, reason NOT_QUEUED; releasing what the runner no longer
        holds as that attempt changes nothing. NOT_FOUND.
        """
        if command.step == LEASE_STEP_ASSIGN:
            # The audit trail of the change that begins an attempt tells who has it.
            return await self._assign.run(command, Caller(actor=command.runner_id))
        return await self._release.run(command, SYSTEM)

    def _pipeline(
        self, name: str, *steps: Step[LeaseCommand, LeaseCommand, LeaseCommand]
    ) -> Pipeline[LeaseCommand, LeaseCommand, LeaseCommand]:
        load = LoadExecution(lambda request: request.execution_id)
        return self._wiring.pipeline(name, [load, *steps, Persist(), answer_attempt], LeaseCommand)


class LoadAgent:
    """Loads the agent of the execution: its rules for attempts."""

    async def __call__(self, context: LeaseContext) -> None:
        """Leave the agent for later steps; one that is being deleted has no rules."""
        agent = await context.shared(AGENT, context.value(LOADED).head.agent_id)
        context.put(_AGENT, AGENT.message() if agent is None else agent)


class CheckQueued:
    """Refuses to assign what does not wait for a runner. FAILED_PRECONDITION, reason NOT_QUEUED."""

    async def __call__(self, context: LeaseContext) -> None:
        """Look at the phase: PENDING is queued, and nothing else is."""
        loaded = context.value(LOADED)
        if loaded.phase != EXECUTION_PENDING:
            name = phase_name(loaded.phase)
            raise FailedPrecondition(
                "NOT_QUEUED",
                f"Execution {loaded.id} is {name} and does not wait for a runner.",
                metadata={"id": loaded.id, "phase": name},
            )


class StageAssignment:
    """Stages a new attempt, which the runner now holds. What is not resumed leaves the state."""

    def __init__(self, status_change: StatusChange) -> None:
        self._status_change = status_change

    async def __call__(self, context: LeaseContext) -> None:
        """Add the attempt to the transaction."""
        loaded, runner_id = context.value(LOADED), context.request.runner_id
        last = loaded.status.attempt
        supersedes = 0 if loaded.head.resume else last

        def revise(head: ExecutionHead, _delta: AgentExecutionStatus) -> None:
            head.runner_id = runner_id
            head.last_sequence, head.sequence_attempt = 0, last + 1
            head.input_revision = 0
            if supersedes:
                head.ClearField("approvals")

        await self._status_change.stage(
            context,
            loaded,
            AgentExecutionStatus(phase=EXECUTION_IN_PROGRESS, attempt=last + 1),
            author=CHANGE_AUTHOR_SYSTEM,
            supersedes=supersedes,
            revise=revise,
            event="assigned",
        )


class AnswerIfReleased:
    """Answers when the runner does not hold the execution as this attempt any more."""

    async def __call__(self, context: LeaseContext) -> LeaseCommand | None:
        """Compare holder and attempt."""
        head, request = context.value(LOADED).head, context.request
        if (head.runner_id, head.status.attempt) == (request.runner_id, request.attempt):
            return None
        await context.settled()
        return request


class StageRelease:
    """Stages the end of an attempt: the execution is queued again, unless somebody has asked for something else."""

    def __init__(self, status_change: StatusChange) -> None:
        self._status_change = status_change

    async def __call__(self, context: LeaseContext) -> None:
        """Add the release to the transaction."""
        loaded, agent = context.value(LOADED), context.value(_AGENT)
        lost = context.request.step == LEASE_STEP_LOSE
        delta = _after_release(loaded, agent, lost=lost)
        check_transition(loaded.phase, delta.phase, by_server=True)

        def revise(head: ExecutionHead, _delta: AgentExecutionStatus) -> None:
            head.ClearField("runner_id")
            head.lost_attempts += lost and loaded.phase not in WAITING  # no work was lost with it
            # What waits for a person goes on with their answer: nothing of it may be dropped.
            head.resume = head.resume or agent.spec.resume_attempts or loaded.phase in WAITING

        await self._status_change.stage(
            context,
            loaded,
            delta,
            author=CHANGE_AUTHOR_SYSTEM,
            revise=revise,
            event=LOST_EVENT if lost else "returned",
        )


async def answer_attempt(context: LeaseContext) -> LeaseCommand:
    """Answer with the command, and the attempt that it began or ended."""
    answer, last = LeaseCommand(), context.value(LOADED).head.status.attempt
    answer.CopyFrom(context.request)
    answer.attempt = context.request.attempt or last + 1
    return answer


def _after_release(loaded: Loaded, agent: Agent, *, lost: bool) -> AgentExecutionStatus:
    """Say what becomes of an execution without its runner."""
    control = loaded.status.control
    if control.action == CONTROL_CANCEL and control.deadline_exceeded:
        return AgentExecutionStatus(
            phase=EXECUTION_FAILED, reason="DEADLINE_EXCEEDED", error="The runner had gone when the deadline passed."
        )
    if control.action == CONTROL_CANCEL:
        return AgentExecutionStatus(phase=EXECUTION_CANCELLED)
    if control.action == CONTROL_PAUSE:
        return AgentExecutionStatus(phase=EXECUTION_PAUSED)
    if loaded.phase == EXECUTION_WAITING_FOR_INPUT or (loaded.phase in WAITING and waiting(loaded.head)):
        return AgentExecutionStatus(phase=EXECUTION_PHASE_UNSPECIFIED)
    most = agent.spec.max_attempts or DEFAULT_MAX_ATTEMPTS
    if lost and loaded.head.lost_attempts + 1 >= most:
        return AgentExecutionStatus(
            phase=EXECUTION_FAILED,
            reason="RUNNER_LOST",
            error=f"Its runner was lost {most} time(s), which is as often as its agent allows.",
        )
    return AgentExecutionStatus(phase=EXECUTION_PENDING)
