"""Agents, instances and sessions seen alike, for tests of what they have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runstream.v1.agent_instance_service_pb2 import GetAgentInstancesByAgentRequest
from runstream.v1.agent_service_pb2 import ListAgentsRequest
from runstream.v1.resource_pb2 import ResourceId
from runstream.v1.session_service_pb2 import ListSessionsRequest
from tests.making import agent, an_agent, instance, session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.serving import Client


@dataclass(frozen=True)
class Kind:
    """How one kind of resource is made and called."""

    name: str
    code: str
    prefix: str
    #: Makes what a resource of the kind belongs to; returns its id.
    parent: Callable[[Client], Awaitable[str]]
    #: Makes a resource to send, of a parent and with a name.
    build: Callable[[str, str], Any]
    commands: Callable[[Client], Any]
    queries: Callable[[Client], Any]
    #: All resources of a parent, the newest first.
    everyone: Callable[[Client, str], Awaitable[list[Any]]]

    async def create(self, client: Client, name: str = "first") -> Any:  # noqa: ANN401
        """Create a resource with a parent of its own."""
        return await self.commands(client).Create(self.build(await self.parent(client), name))

    async def get(self, client: Client, resource_id: str) -> Any:  # noqa: ANN401
        """Get a resource."""
        return await self.queries(client).Get(ResourceId(value=resource_id))

    def copy(self, resource: Any) -> Any:  # noqa: ANN401
        """Copy a resource, to be changed and sent."""
        made = type(resource)()
        made.CopyFrom(resource)
        return made


async def _nothing(_: Client) -> str:
    return ""


async def an_instance(client: Client) -> str:
    """Create an instance of a new agent; return its id."""
    made = await client.instances.Create(instance(await an_agent(client, "parent"), "parent"))
    return made.metadata.id


async def _agents(client: Client, _: str) -> list[Any]:
    return list((await client.agent_queries.List(ListAgentsRequest(page_size=1000))).entries)


async def _instances(client: Client, agent_id: str) -> list[Any]:
    request = GetAgentInstancesByAgentRequest(agent_id=agent_id, page_size=1000)
    return list((await client.instance_queries.GetByAgent(request)).entries)


async def _sessions(client: Client, instance_id: str) -> list[Any]:
    listed = await client.session_queries.List(ListSessionsRequest(page_size=1000))
    return [found for found in listed.entries if found.spec.agent_instance_id == instance_id]


AGENT = Kind(
    name="Agent",
    code="AGENT",
    prefix="agt",
    parent=_nothing,
    build=lambda _, name: agent(name),
    commands=lambda client: client.agents,
    queries=lambda client: client.agent_queries,
    everyone=_agents,
)
INSTANCE = Kind(
    name="AgentInstance",
    code="AGENT_INSTANCE",
    prefix="ain",
    parent=lambda client: an_agent(client, "parent"),
    build=instance,
    commands=lambda client: client.instances,
    queries=lambda client: client.instance_queries,
    everyone=_instances,
)
SESSION = Kind(
    name="Session",
    code="SESSION",
    prefix="ses",
    parent=an_instance,
    build=session,
    commands=lambda client: client.sessions,
    queries=lambda client: client.session_queries,
    everyone=_sessions,
)
KINDS = (AGENT, INSTANCE, SESSION)
