"""Sessions: commands and queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runstream.model.errors import invalid_field
from runstream.pipeline.context import ContextKey
from runstream.pipeline.steps import BuildNewState, ResolveSlug, StageCreated
from runstream.services.paging import fill_page
from runstream.services.resource_commands import (
    FindByIdOrSlug,
    ResourceCommands,
    ResourceRules,
    require,
)
from runstream.services.resource_queries import ResourceQueries, common_groups
from runstream.services.resource_types import (
    AGENTS,
    EXECUTIONS,
    INSTANCES,
    SESSIONS,
    agent_term,
    session_slug_term,
    session_term,
)
from runstream.storage.records import SESSION
from runstream.storage.store import Query
from runstream.v1.session_pb2 import Session, SessionList

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message

    from runstream.model.ids import IdSource
    from runstream.pipeline.context import RequestContext
    from runstream.pipeline.engine import Step
    from runstream.services.cascade import Deleter
    from runstream.services.wiring import Wiring
    from runstream.v1.agent_instance_pb2 import AgentInstance
    from runstream.v1.resource_pb2 import ResourceId
    from runstream.v1.session_service_pb2 import ListSessionsByAgentRequest, ListSessionsRequest

_INSTANCE: ContextKey[AgentInstance] = ContextKey("instance of the session")


class RequireInstance:
    """Demands that `spec.agent_instance_id` is given and exists. INVALID_ARGUMENT, NOT_FOUND."""

    async def __call__(self, context: RequestContext[Session, Any]) -> None:
        """Look the instance up."""
        instance_id = context.request.spec.agent_instance_id
        if not instance_id:
            raise invalid_field("spec.agent_instance_id", "INSTANCE_REQUIRED", "must be given")
        context.put(_INSTANCE, await require(context, INSTANCES, instance_id))


class SetAgent:
    """Writes the instance's agent into the session's status."""

    async def __call__(self, context: RequestContext[Session, Session]) -> None:
        """Complete the state."""
        context.state.status.agent_id = context.value(_INSTANCE).spec.agent_id


class FindSession(FindByIdOrSlug[Session]):
    """Finds the session that Apply names: by id, else the newest of its instance with its slug."""

    async def _by_slug(self, context: RequestContext[Session, Session], org: str, slug: str) -> Session | None:
        if not slug:
            return None
        await context.settled()  # the scan sees what is on disk, and an Apply in flight must not be missed
        term = session_slug_term(context.request.spec.agent_instance_id, org, slug)
        newest = await context.store.scan(Query(SESSION, ((term,),)), limit=1)
        if not newest:
            context.transaction.expect_unused(SESSION, term)
            return None
        return await context.get(SESSION, newest[0])


def build_session_steps(ids: IdSource) -> Sequence[Step[Session, Session, Any]]:
    """The steps that make and stage a new session, for every command that needs one."""
    return (
        RequireInstance(),
        ResolveSlug(SESSIONS),
        BuildNewState(SESSIONS, ids),
        SetAgent(),
        StageCreated(SESSIONS),
    )


class SessionCommands(ResourceCommands[Session]):
    """Changes sessions."""

    def __init__(self, wiring: Wiring, *, executions: Deleter[Message]) -> None:
        rules = ResourceRules(
            resource=SESSIONS,
            require=[],
            build=build_session_steps(wiring.ids),
            find=FindSession(SESSIONS, ResolveSlug(SESSIONS)),
            fixed=("spec.agent_instance_id",),
            users=[(EXECUTIONS, session_term, executions)],
        )
        super().__init__(wiring, rules)


class SessionQueries:
    """Reads sessions."""

    def __init__(self, wiring: Wiring) -> None:
        self._store = wiring.store
        self._read = ResourceQueries(wiring.store, SESSIONS)
        self._agents = ResourceQueries(wiring.store, AGENTS)

    async def get(self, request: ResourceId) -> Session:
        """Return the session. NOT_FOUND."""
        return await self._read.by_id(request.value)

    async def list(self, request: ListSessionsRequest) -> SessionList:
        """Return a page of sessions, newest first."""
        return await self._page(Query(SESSION, tuple(common_groups(tags=request.tags))), request)

    async def list_by_agent(self, request: ListSessionsByAgentRequest) -> SessionList:
        """Return a page of an agent's sessions, newest first. NOT_FOUND for an unknown agent."""
        await self._agents.by_id(request.agent_id)
        return await self._page(Query(SESSION, ((agent_term(request.agent_id),),)), request)

    async def _page(self, query: Query, request: ListSessionsRequest | ListSessionsByAgentRequest) -> SessionList:
        answer = SessionList()
        await fill_page(
            self._store,
            query,
            request,
            answer,
            lambda session_id: self._store.durable.get(SESSION, session_id),
        )
        return answer
