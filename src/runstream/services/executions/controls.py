"""The commands that control executions: end, halt, go on, decide, answer. Each is a list of steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runstream.model.errors import NotFound
from runstream.pipeline.context import SYSTEM, Caller
from runstream.pipeline.steps import Persist, ValidateFieldConstraints
from runstream.services.executions.approval_timers import overdue_question
from runstream.services.executions.cancel import (
    AnswerIfCancelling,
    AnswerIfNothingAsked,
    StageCancel,
    StageForcedCancel,
    StageTermination,
)
from runstream.services.executions.changes import StatusChange
from runstream.services.executions.decisions import (
    AnswerIfDecided,
    AnswerIfNotWaiting,
    StageDecision,
    StageDefault,
)
from runstream.services.executions.ends import AnswerIfEnded, RefuseIfEnded
from runstream.services.executions.halts import (
    AnswerIfHalting,
    AnswerIfNotHalting,
    RefuseIfCancelling,
    StagePause,
    StageResume,
)
from runstream.services.executions.inputs import AnswerRepeatedInput, CheckWaitsForInput, StageInput
from runstream.services.executions.limits import RefuseBeyondLimits
from runstream.services.executions.loading import AnswerExecution, LoadExecution
from runstream.services.executions.recovery import AnswerIfLive, CheckRecovery, StageRecovery
from runstream.v1.agent_execution_pb2 import EXECUTION_CANCELLED, EXECUTION_TERMINATED, AgentExecution
from runstream.v1.resource_pb2 import ResourceId

if TYPE_CHECKING:
    from collections.abc import Callable

    from runstream.pipeline.engine import Pipeline, Step
    from runstream.services.wiring import Wiring
    from runstream.v1.agent_execution_service_pb2 import (
        CancelAgentExecutionInput,
        PauseAgentExecutionInput,
        RecoverAgentExecutionInput,
        ResumeAgentExecutionInput,
        SubmitApprovalInput,
        SubmitInputInput,
        TerminateAgentExecutionInput,
    )

    Control = Pipeline[Any, AgentExecution, AgentExecution]


def _id(request: Any) -> str:  # noqa: ANN401  # any request that names an execution so
    execution_id: str = request.id
    return execution_id


class AgentExecutionControls:
    """Controls executions: what people, and time, ask of those that are under way."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._status_change = StatusChange(wiring.folds)
        self._answer = AnswerExecution(wiring.executions)
        self._cancel = self._cancel_pipeline()
        self._terminate = self._terminate_pipeline()
        self._pause = self._pause_pipeline()
        self._resume = self._resume_pipeline()
        self._recover = self._recover_pipeline()
        self._submit_approval = self._submit_approval_pipeline()
        self._submit_input = self._submit_input_pipeline()
        self._enforce_cancel = self._enforce_cancel_pipeline()
        self._decide_by_default = self._decide_by_default_pipeline()

    async def cancel(self, request: CancelAgentExecutionInput, caller: Caller) -> AgentExecution:
        """Ask for an end; durable when it returns. A repeat changes nothing."""
        return await self._cancel.run(request, caller)

    async def terminate(self, request: TerminateAgentExecutionInput, caller: Caller) -> AgentExecution:
        """End at once; durable when it returns. A repeat changes nothing."""
        return await self._terminate.run(request, caller)

    async def pause(self, request: PauseAgentExecutionInput, caller: Caller) -> AgentExecution:
        """Ask for a halt; durable when it returns. A repeat changes nothing."""
        return await self._pause.run(request, caller)

    async def resume(self, request: ResumeAgentExecutionInput, caller: Caller) -> AgentExecution:
        """Queue a paused execution again; durable when it returns. On one that is not paused it changes nothing."""
        return await self._resume.run(request, caller)

    async def recover(self, request: RecoverAgentExecutionInput, caller: Caller) -> AgentExecution:
        """Queue a failed execution again; durable when it returns. A repeat changes nothing."""
        return await self._recover.run(request, caller)

    async def submit_approval(self, request: SubmitApprovalInput, caller: Caller) -> AgentExecution:
        """Decide about a tool call; durable when it returns. A repeat of the same decision changes nothing."""
        return await self._submit_approval.run(request, caller)

    async def submit_input(self, request: SubmitInputInput, caller: Caller) -> AgentExecution:
        """Answer an execution that waits for it; durable when it returns.

        A repeat with the idempotency key of the last input changes nothing.
        """
        return await self._submit_input.run(request, caller)

    async def enforce_cancel(self, execution_id: str) -> None:
        """End an execution whose grace period is over; one that has ended or is gone is left alone."""
        try:
            await self._enforce_cancel.run(ResourceId(value=execution_id), SYSTEM)
        except NotFound:
            return

    async def decide_by_default(self, question: str) -> None:
        """Decide what nobody has in time, by the name of `ApprovalTimers`; what is open no more is left alone."""
        try:
            await self._decide_by_default.run(overdue_question(question), SYSTEM)
        except NotFound:
            return

    def _cancel_pipeline(self) -> Control:
        return self._pipeline(
            "Cancel",
            _id,
            AnswerIfEnded(EXECUTION_CANCELLED, self._answer),
            AnswerIfCancelling(self._answer),
            StageCancel(self._status_change, self._wiring.cancel_grace),
        )

    def _terminate_pipeline(self) -> Control:
        return self._pipeline(
            "Terminate",
            _id,
            AnswerIfEnded(EXECUTION_TERMINATED, self._answer),
            StageTermination(self._status_change),
        )

    def _pause_pipeline(self) -> Control:
        return self._pipeline(
            "Pause",
            _id,
            RefuseIfEnded("be paused"),
            RefuseIfCancelling(),
            AnswerIfHalting(self._answer),
            StagePause(self._status_change),
            RefuseBeyondLimits(self._wiring.limits, more=True),
        )

    def _resume_pipeline(self) -> Control:
        return self._pipeline(
            "Resume",
            _id,
            RefuseIfEnded("be resumed"),
            AnswerIfNotHalting(self._answer),
            StageResume(self._status_change),
            RefuseBeyondLimits(self._wiring.limits, more=True),
        )

    def _recover_pipeline(self) -> Control:
        return self._pipeline(
            "Recover",
            _id,
            AnswerIfLive(self._answer),
            CheckRecovery(),
            StageRecovery(self._status_change),
            RefuseBeyondLimits(self._wiring.limits),
        )

    def _submit_approval_pipeline(self) -> Control:
        return self._pipeline(
            "SubmitApproval",
            lambda request: request.agent_execution_id,
            AnswerIfDecided(self._wiring.folds, self._answer),
            StageDecision(self._status_change),
            RefuseBeyondLimits(self._wiring.limits, more=True),
        )

    def _submit_input_pipeline(self) -> Control:
        return self._pipeline(
            "SubmitInput",
            lambda request: request.execution_id,
            AnswerRepeatedInput(self._answer),
            RefuseIfEnded("take an input"),
            CheckWaitsForInput(),
            StageInput(self._status_change, self._wiring.ids),
            RefuseBeyondLimits(self._wiring.limits, more=True),
        )

    def _enforce_cancel_pipeline(self) -> Control:
        return self._pipeline(
            "EnforceCancel",
            lambda request: request.value,
            AnswerIfNothingAsked(self._answer),
            StageForcedCancel(self._status_change),
        )

    def _decide_by_default_pipeline(self) -> Control:
        return self._pipeline(
            "DecideByDefault",
            lambda request: request.execution_id,
            AnswerIfNotWaiting(self._answer),
            StageDefault(self._status_change),
        )

    def _pipeline(
        self, name: str, id_of: Callable[[Any], str], *steps: Step[Any, AgentExecution, AgentExecution]
    ) -> Control:
        """Make a command of what is its own: all of them load one execution, change it, and answer with it."""
        return self._wiring.pipeline(
            f"AgentExecution.{name}",
            [ValidateFieldConstraints(), LoadExecution(id_of), *steps, Persist(), self._answer],
            AgentExecution,
        )
