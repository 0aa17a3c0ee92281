"""The commands on executions, each a list of steps that reads like its specification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runstream.pipeline.idempotency import RememberIdempotencyKey, ReplayIdempotentCall
from runstream.pipeline.steps import (
    AnswerState,
    BuildNewState,
    Persist,
    ResolveSlug,
    ValidateFieldConstraints,
)
from runstream.services.executions.changes import StatusChange
from runstream.services.executions.create import (
    CompleteContext,
    CreateDefaultInstanceIfNeeded,
    CreateSessionIfNeeded,
    SetInitialPhase,
    StageNewExecution,
    ValidateSessionOrAgent,
    name_after_message,
    recall_created,
)
from runstream.services.executions.delete import BuildDeletedExecution, StageDeletedExecution
from runstream.services.executions.limits import RefuseBeyondLimits, RefuseNewBeyondLimits
from runstream.services.executions.loading import AnswerExecution, LoadExecution
from runstream.services.executions.parents import CheckParentAndCall, JoinTree, StageInParent
from runstream.services.executions.time_limit import SetDeadline
from runstream.services.executions.update import (
    BuildUpdatedExecution,
    CheckRevision,
    RefuseFinished,
    StageUpdatedExecution,
    id_of_resource,
)
from runstream.services.executions.update_status import (
    AnswerRepeatedSequence,
    CheckAttempt,
    CheckReplaceMask,
    CheckTransition,
    LimitDeltaSize,
    StageStatus,
)
from runstream.services.resource_types import EXECUTIONS
from runstream.v1.agent_execution_pb2 import AgentExecution

if TYPE_CHECKING:
    from runstream.pipeline.context import Caller
    from runstream.pipeline.engine import Pipeline
    from runstream.services.wiring import Wiring
    from runstream.v1.agent_execution_service_pb2 import AgentExecutionUpdateStatusInput
    from runstream.v1.resource_pb2 import ResourceDeleteInput, ResourceId


class AgentExecutionCommands:
    """Changes executions."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._status_change = StatusChange(wiring.folds)
        self._answer = AnswerExecution(wiring.executions)
        self._create = self._create_pipeline()
        self._update = self._update_pipeline()
        self._update_status = self._update_status_pipeline()
        self._delete = self._delete_pipeline()

    async def create(self, request: AgentExecution, caller: Caller) -> AgentExecution:
        """Create an execution, PENDING; durable when it returns. A repeat with its idempotency key creates nothing."""
        return await self._create.run(request, caller)

    async def update(self, request: AgentExecution, caller: Caller) -> AgentExecution:
        """Replace metadata and spec; durable when it returns."""
        return await self._update.run(request, caller)

    async def update_status(self, request: AgentExecutionUpdateStatusInput, caller: Caller) -> AgentExecution:
        """Merge a delta into the status; durable when it returns. A repeat of a sequence changes nothing."""
        return await self._update_status.run(request, caller)

    async def delete(self, request: ResourceId | ResourceDeleteInput, caller: Caller) -> AgentExecution:
        """Delete an execution and answer with what it was; durable when it returns. A repeat is NOT_FOUND."""
        return await self._delete.run(request, caller)

    def _create_pipeline(self) -> Pipeline[AgentExecution, AgentExecution, AgentExecution]:
        ids = self._wiring.ids
        return self._wiring.pipeline(
            "AgentExecution.Create",
            [
                ValidateFieldConstraints(),
                ReplayIdempotentCall(EXECUTIONS, recall_created),
                ValidateSessionOrAgent(),
                CheckParentAndCall(),
                ResolveSlug(EXECUTIONS, name_after_message),
                BuildNewState(EXECUTIONS, ids),
                CompleteContext(),
                JoinTree(self._wiring.max_depth),
                CreateDefaultInstanceIfNeeded(ids),
                CreateSessionIfNeeded(ids),
                SetDeadline(),
                SetInitialPhase(),
                StageNewExecution(),
                StageInParent(),
                RefuseNewBeyondLimits(self._wiring.limits),
                RememberIdempotencyKey(keep_answer=False),
                Persist(),
                AnswerState(),
            ],
            AgentExecution,
        )

    def _update_pipeline(self) -> Pipeline[AgentExecution, AgentExecution, AgentExecution]:
        return self._wiring.pipeline(
            "AgentExecution.Update",
            [
                ValidateFieldConstraints(),
                LoadExecution(id_of_resource),
                CheckRevision(),
                BuildUpdatedExecution(),
                RefuseFinished(),
                StageUpdatedExecution(),
                RefuseBeyondLimits(self._wiring.limits, more=True),
                Persist(),
                self._answer,
            ],
            AgentExecution,
        )

    def _update_status_pipeline(
        self,
    ) -> Pipeline[AgentExecutionUpdateStatusInput, AgentExecution, AgentExecution]:
        answer = AnswerExecution(self._wiring.executions, lambda request: request.view)
        return self._wiring.pipeline(
            "AgentExecution.UpdateStatus",
            [
                ValidateFieldConstraints(),
                CheckReplaceMask(),
                LimitDeltaSize(),
                LoadExecution(lambda request: request.execution_id),
                AnswerRepeatedSequence(answer),
                CheckAttempt(),
                CheckTransition(),
                StageStatus(self._status_change, self._wiring.ids, self._wiring.limits),
                Persist(),
                answer,
            ],
            AgentExecution,
        )

    def _delete_pipeline(self) -> Pipeline[Any, AgentExecution, AgentExecution]:
        return self._wiring.pipeline(
            "AgentExecution.Delete",
            [
                ValidateFieldConstraints(),
                LoadExecution(lambda request: request.value),
                BuildDeletedExecution(self._wiring.folds),
                StageDeletedExecution(),
                Persist(),
                AnswerState(),
            ],
            AgentExecution,
        )
