"""Retire: the deletion of an execution that has ended and whose time is over. It is a Delete that reads no log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.pipeline.context import SYSTEM
from runstream.pipeline.steps import AnswerState, Persist
from runstream.services.executions.delete import StageDeletedExecution
from runstream.services.executions.loading import LOADED, LoadExecution, load_record
from runstream.services.executions.update import CheckRevision, id_of_resource
from runstream.v1.agent_execution_pb2 import AgentExecution

if TYPE_CHECKING:
    from runstream.pipeline.context import RequestContext
    from runstream.pipeline.engine import Pipeline
    from runstream.services.wiring import Wiring


class BuildRetiredExecution:
    """Puts together as much of the execution as its index entries need: nobody reads the answer."""

    async def __call__(self, context: RequestContext[AgentExecution, AgentExecution]) -> None:
        """Set the state."""
        loaded = context.value(LOADED)
        state = AgentExecution()
        state.CopyFrom(await load_record(context, loaded))
        state.metadata.revision = loaded.head.revision
        state.status.CopyFrom(loaded.status)
        context.state = state


class RetireCommand:
    """Deletes executions by their age."""

    def __init__(self, wiring: Wiring) -> None:
        self._retire = _pipeline(wiring)

    async def retire(self, execution_id: str, revision: int) -> None:
        """Delete an execution that is at a revision; durable when it returns.

        NOT_FOUND; ABORTED, reason REVISION_CONFLICT, when it has changed since.
        """
        request = AgentExecution()
        request.metadata.id, request.metadata.revision = execution_id, revision
        await self._retire.run(request, SYSTEM)


def _pipeline(wiring: Wiring) -> Pipeline[AgentExecution, AgentExecution, AgentExecution]:
    return wiring.pipeline(
        "AgentExecution.Retire",
        [
            LoadExecution(id_of_resource),
            CheckRevision(),
            BuildRetiredExecution(),
            StageDeletedExecution(),
            Persist(),
            AnswerState(),
        ],
        AgentExecution,
    )
