"""Kinds: the resources that a person writes down, and the services that keep them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from runstream.v1.agent_instance_pb2 import AgentInstance
from runstream.v1.agent_instance_service_pb2_grpc import (
    AgentInstanceCommandControllerStub,
    AgentInstanceQueryControllerStub,
)
from runstream.v1.agent_pb2 import Agent
from runstream.v1.agent_service_pb2_grpc import AgentCommandControllerStub, AgentQueryControllerStub
from runstream.v1.session_pb2 import Session
from runstream.v1.session_service_pb2_grpc import (
    SessionCommandControllerStub,
    SessionQueryControllerStub,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpc.aio import Channel, UnaryUnaryMultiCallable

    from runstream.v1.resource_pb2 import ResourceDeleteInput, ResourceId, ResourceReference

R = TypeVar("R", Agent, AgentInstance, Session)


class Commands(Protocol[R]):
    """The commands that every kind has."""

    Create: UnaryUnaryMultiCallable[R, R]
    Apply: UnaryUnaryMultiCallable[R, R]
    Delete: UnaryUnaryMultiCallable[ResourceDeleteInput, R]


class Queries(Protocol[R]):
    """The query that every kind has."""

    Get: UnaryUnaryMultiCallable[ResourceId, R]


class References(Protocol[R]):
    """The query of the kinds that have unique slugs."""

    GetByReference: UnaryUnaryMultiCallable[ResourceReference, R]


@dataclass(frozen=True, slots=True)
class Kind(Generic[R]):
    """A kind of resource."""

    name: str
    """As `kind:` says it."""

    title: str
    """As a person says it; also the command's name."""

    message: type[R]
    commands: Callable[[Channel], Commands[R]]
    queries: Callable[[Channel], Queries[R]]
    references: Callable[[Channel], References[R]] | None = None
    """None for a kind without unique slugs."""


AGENT: Final = Kind(
    "Agent",
    "agent",
    Agent,
    AgentCommandControllerStub,
    AgentQueryControllerStub,
    AgentQueryControllerStub,
)
INSTANCE: Final = Kind(
    "AgentInstance",
    "instance",
    AgentInstance,
    AgentInstanceCommandControllerStub,
    AgentInstanceQueryControllerStub,
    AgentInstanceQueryControllerStub,
)
SESSION: Final = Kind(
    "Session",
    "session",
    Session,
    SessionCommandControllerStub,
    SessionQueryControllerStub,
)
