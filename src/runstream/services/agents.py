"""Agents: commands and queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runstream.pipeline.steps import BuildNewState, RequireName, ResolveSlug, StageCreated
from runstream.services.paging import fill_page
from runstream.services.resource_commands import FindByIdOrSlug, ResourceCommands, ResourceRules
from runstream.services.resource_queries import ResourceQueries, common_groups
from runstream.services.resource_types import AGENTS, EXECUTIONS, INSTANCES, SESSIONS, agent_term
from runstream.storage.records import AGENT
from runstream.storage.store import Query
from runstream.v1.agent_pb2 import Agent, AgentList
from runstream.v1.resource_pb2 import API_RESOURCE_KIND_AGENT

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from runstream.services.cascade import Deleter
    from runstream.services.wiring import Wiring
    from runstream.v1.agent_service_pb2 import ListAgentsRequest
    from runstream.v1.resource_pb2 import ResourceId, ResourceReference


class AgentCommands(ResourceCommands[Agent]):
    """Changes agents."""

    def __init__(
        self,
        wiring: Wiring,
        *,
        instances: Deleter[Message],
        sessions: Deleter[Message],
        executions: Deleter[Message],
    ) -> None:
        resolve_slug: ResolveSlug[Any] = ResolveSlug(AGENTS)
        rules = ResourceRules(
            resource=AGENTS,
            require=[RequireName()],
            build=[resolve_slug, BuildNewState(AGENTS, wiring.ids), StageCreated(AGENTS)],
            find=FindByIdOrSlug(AGENTS, resolve_slug),
            fixed=(),
            users=[
                (EXECUTIONS, agent_term, executions),
                (SESSIONS, agent_term, sessions),
                (INSTANCES, agent_term, instances),
            ],
        )
        super().__init__(wiring, rules)


class AgentQueries:
    """Reads agents."""

    def __init__(self, wiring: Wiring) -> None:
        self._store = wiring.store
        self._read = ResourceQueries(wiring.store, AGENTS)

    async def get(self, request: ResourceId) -> Agent:
        """Return the agent. NOT_FOUND."""
        return await self._read.by_id(request.value)

    async def get_by_reference(self, request: ResourceReference) -> Agent:
        """Return the agent with this organization and slug. NOT_FOUND."""
        return await self._read.by_reference(request, API_RESOURCE_KIND_AGENT)

    async def list(self, request: ListAgentsRequest) -> AgentList:
        """Return a page of agents, newest first."""
        groups = common_groups(org=request.org, tags=request.tags, labels=request.labels)
        answer = AgentList()
        await fill_page(
            self._store,
            Query(AGENT, tuple(groups)),
            request,
            answer,
            lambda agent_id: self._store.durable.get(AGENT, agent_id),
        )
        return answer
