"""Loading an execution for a command, and answering with one after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runstream.model.errors import NotFound, not_found
from runstream.pipeline.context import ContextKey
from runstream.storage.records import AGENT_EXECUTION, EXECUTION_HEAD
from runstream.storage.store import Conflict
from runstream.v1.agent_execution_pb2 import EXECUTION_IN_PROGRESS
from runstream.v1.resource_pb2 import RESOURCE_VIEW_UNSPECIFIED

if TYPE_CHECKING:
    from collections.abc import Callable

    from runstream.pipeline.context import RequestContext
    from runstream.storage.executions import Executions
    from runstream.stored.v1.stored_pb2 import ExecutionHead
    from runstream.v1.agent_execution_pb2 import AgentExecution
    from runstream.v1.resource_pb2 import ResourceView


class Loaded:
    """An execution as a command sees it: its id and its head, not to be changed.

    The record is loaded apart, by `load_record`: most commands need none of it, and it may be large.
    """

    __slots__ = ("head", "id", "phase", "status")

    def __init__(self, execution_id: str, head: ExecutionHead) -> None:
        self.id = execution_id
        self.head = head
        # Looked up once, since every step asks for them.
        self.status = head.status
        #: Where the execution stands.
        self.phase: int = self.status.phase

    @property
    def at_work(self) -> bool:
        """Whether somebody works on it: a runner that holds it, or whoever writes its status from outside."""
        return bool(self.head.runner_id) or self.head.driven_outside or self.phase == EXECUTION_IN_PROGRESS

    @property
    def reason(self) -> str:
        """The reason that was given so far, if any."""
        return self.status.reason


LOADED: ContextKey[Loaded] = ContextKey("loaded execution")


class LoadExecution:
    """Loads the execution that the request names. NOT_FOUND."""

    def __init__(self, id_of: Callable[[Any], str]) -> None:
        self._id_of = id_of

    async def __call__(self, context: RequestContext[Any, Any]) -> None:
        """Leave the execution for later steps."""
        execution_id = self._id_of(context.request)
        context.put(LOADED, await load(context, execution_id))


async def load(context: RequestContext[Any, Any], execution_id: str) -> Loaded:
    """Load an execution as a command sees it. NOT_FOUND."""
    head = await context.shared(EXECUTION_HEAD, execution_id)
    if head is None:
        raise not_found("AGENT_EXECUTION", execution_id)
    return Loaded(execution_id, head)


async def load_record(context: RequestContext[Any, Any], loaded: Loaded) -> AgentExecution:
    """Load metadata and spec of an execution. `Conflict` when it was deleted meanwhile."""
    record = await context.get(AGENT_EXECUTION, loaded.id)
    if record is None:
        raise Conflict(f"execution {loaded.id} is being deleted")
    return record


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
