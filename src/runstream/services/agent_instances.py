"""Agent instances: commands and queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runstream.model.errors import invalid_field
from runstream.pipeline.steps import (
    BuildNewState,
    RequireName,
    ResolveSlug,
    StageCreated,
    audit_update,
    stage_update,
)
from runstream.services.paging import fill_page
from runstream.services.resource_commands import (
    FindByIdOrSlug,
    ResourceCommands,
    ResourceRules,
    require,
)
from runstream.services.resource_queries import ResourceQueries
from runstream.services.resource_types import AGENTS, INSTANCES, SESSIONS, agent_term, instance_term
from runstream.storage.records import AGENT, AGENT_INSTANCE
from runstream.storage.store import Query
from runstream.v1.agent_instance_pb2 import AgentInstance, AgentInstanceList
from runstream.v1.resource_pb2 import API_RESOURCE_KIND_AGENT_INSTANCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message

    from runstream.model.ids import IdSource
    from runstream.pipeline.context import RequestContext
    from runstream.pipeline.engine import Step
    from runstream.services.cascade import Deleter
    from runstream.services.wiring import Wiring
    from runstream.v1.agent_instance_service_pb2 import GetAgentInstancesByAgentRequest
    from runstream.v1.agent_pb2 import Agent
    from runstream.v1.resource_pb2 import ResourceId, ResourceReference


class RequireAgent:
    """Demands that `spec.agent_id` is given and exists. INVALID_ARGUMENT, NOT_FOUND."""

    async def __call__(self, context: RequestContext[AgentInstance, Any]) -> None:
        """Look the agent up."""
        agent_id = context.request.spec.agent_id
        if not agent_id:
            raise invalid_field("spec.agent_id", "AGENT_REQUIRED", "must be given")
        await require(context, AGENTS, agent_id)


class ForgetDefault:
    """Stages the agent's update when the instance that is deleted was its default one."""

    async def __call__(self, context: RequestContext[Any, AgentInstance]) -> None:
        """Clear the agent's default instance, if it is this one."""
        agent = await context.get(AGENT, context.state.spec.agent_id)
        if agent is not None and agent.status.default_instance_id == context.state.metadata.id:
            stage_default_instance(context, agent, "")


def stage_default_instance(context: RequestContext[Any, Any], agent: Agent, instance_id: str) -> None:
    """Stage an agent with another default instance."""
    updated = type(agent)()
    updated.CopyFrom(agent)
    updated.status.default_instance_id = instance_id
    updated.metadata.revision += 1
    audit_update(updated.status.audit.status_audit, context, "status_updated")
    stage_update(context, AGENTS, agent, updated)


def build_instance_steps(ids: IdSource) -> Sequence[Step[AgentInstance, AgentInstance, Any]]:
    """The steps that make and stage a new instance, for every command that needs one."""
    return (
        RequireAgent(),
        ResolveSlug(INSTANCES),
        BuildNewState(INSTANCES, ids),
        StageCreated(INSTANCES),
    )


class AgentInstanceCommands(ResourceCommands[AgentInstance]):
    """Changes agent instances."""

    def __init__(self, wiring: Wiring, *, sessions: Deleter[Message]) -> None:
        rules = ResourceRules(
            resource=INSTANCES,
            require=[RequireName()],
            build=build_instance_steps(wiring.ids),
            find=FindByIdOrSlug(INSTANCES, ResolveSlug(INSTANCES)),
            fixed=("spec.agent_id",),
            users=[(SESSIONS, instance_term, sessions)],
            on_delete=[ForgetDefault()],
        )
        super().__init__(wiring, rules)


class AgentInstanceQueries:
    """Reads agent instances."""

    def __init__(self, wiring: Wiring) -> None:
        self._store = wiring.store
        self._read = ResourceQueries(wiring.store, INSTANCES)
        self._agents = ResourceQueries(wiring.store, AGENTS)

    async def get(self, request: ResourceId) -> AgentInstance:
        """Return the instance. NOT_FOUND."""
        return await self._read.by_id(request.value)

    async def get_by_reference(self, request: ResourceReference) -> AgentInstance:
        """Return the instance with this organization and slug. NOT_FOUND."""
        return await self._read.by_reference(request, API_RESOURCE_KIND_AGENT_INSTANCE)

    async def get_by_agent(self, request: GetAgentInstancesByAgentRequest) -> AgentInstanceList:
        """Return a page of an agent's instances, newest first. NOT_FOUND for an unknown agent."""
        await self._agents.by_id(request.agent_id)
        answer = AgentInstanceList()
        await fill_page(
            self._store,
            Query(AGENT_INSTANCE, ((agent_term(request.agent_id),),)),
            request,
            answer,
            lambda instance_id: self._store.durable.get(AGENT_INSTANCE, instance_id),
        )
        return answer
