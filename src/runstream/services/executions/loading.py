"""Loading an execution for a command, and answering with one after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runstream.model.errors import NotFound, not_found
from runstream.pipeline.context import ContextKey
from runstream.storage.records import AGENT_EXECUTION, EXECUTION_HEAD
from runstream.v1.resource_pb2 import RESOURCE_VIEW_UNSPECIFIED

if TYPE_CHECKING:
    from collections.abc import Callable

    from runstream.pipeline.context import RequestContext
    from runstream.storage.executions import Executions
    from runstream.stored.v1.stored_pb2 import ExecutionHead
    from runstream.v1.agent_execution_pb2 import AgentExecution
    from runstream.v1.resource_pb2 import ResourceView


@dataclass(frozen=True, slots=True)
class Loaded:
    """An execution as a command sees it: record and head, not to be changed."""

    record: AgentExecution
    head: ExecutionHead

    @property
    def id(self) -> str:
        """The execution's id."""
        return self.record.metadata.id

    @property
    def phase(self) -> int:
        """Where the execution stands."""
        return self.head.status.phase

    @property
    def reason(self) -> str:
        """The reason that was given so far, if any."""
        return self.head.status.reason


LOADED: ContextKey[Loaded] = ContextKey("loaded execution")


class LoadExecution:
    """Loads the execution that the request names. NOT_FOUND."""

    def __init__(self, id_of: Callable[[Any], str]) -> None:
        self._id_of = id_of

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Leave the execution for later steps."""
        execution_id = self._id_of(context.request)
        head = await context.get(EXECUTION_HEAD, execution_id)
        record = await context.get(AGENT_EXECUTION, execution_id)
        if head is None or record is None:
            raise not_found("AGENT_EXECUTION", execution_id)
        context.put(LOADED, Loaded(record, head))


class AnswerExecution:
    """Answers with the execution as it is on disk: at the revision of this command's commit, or a later one."""

    def __init__(
        self,
        executions: Executions,
        view_of: Callable[[Any], ResourceView.ValueType] = lambda _: RESOURCE_VIEW_UNSPECIFIED,
    ) -> None:
        self._executions = executions
        self._view_of = view_of

    async def __call__(self, context: RequestContext[Any, Any]) -> AgentExecution:
        """Read the execution in the view that the request asks for. NOT_FOUND when it was deleted meanwhile."""
        execution_id = context.value(LOADED).id
        answer = await self._executions.get(execution_id, self._view_of(context.request))
        if answer is None:
            raise NotFound(
                "EXECUTION_DELETED",
                f"Execution {execution_id} was deleted.",
                metadata={"id": execution_id},
            )
        return answer


async def answer_unchanged(context: RequestContext[Any, Any], answer: AnswerExecution) -> AgentExecution:
    """Answer a command that has nothing to do, once everything it was decided on is on disk."""
    await context.settled()
    return await answer(context)
