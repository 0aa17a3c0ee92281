"""Registration: sees to it that the server knows the agents that a runner serves."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import grpc

from runstream.runner.calls import until_answered
from runstream.runner.errors import RunnerRefused
from runstream.runner.refusals import Refusal
from runstream.v1.agent_service_pb2_grpc import AgentCommandControllerStub, AgentQueryControllerStub
from runstream.v1.resource_pb2 import API_RESOURCE_KIND_AGENT, ResourceReference

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grpc.aio import Channel

    from runstream.v1.agent_pb2 import Agent

_LOG = logging.getLogger(__name__)


async def register(channel: Channel, agents: Iterable[tuple[str, Agent]]) -> None:
    """Create those of the agents, each with its slug, that are missing; the others stay as they are.

    Waits for a server that is away. Raises `RunnerRefused` when the server does not take one.
    """
    for slug, agent in agents:
        try:
            await _register(channel, slug, agent)
        except Refusal as refused:
            raise RunnerRefused(f"agent {agent.metadata.name!r}: {refused}") from refused


async def _register(channel: Channel, slug: str, agent: Agent) -> None:
    if await _exists(channel, slug, agent.metadata.org):
        return
    try:
        await until_answered(AgentCommandControllerStub(channel).Create, agent)
        _LOG.info("created agent %s", slug)
    except Refusal as refused:
        # Another runner was quicker, or the answer to an earlier attempt was lost.
        if refused.code is not grpc.StatusCode.ALREADY_EXISTS:
            raise


async def _exists(channel: Channel, slug: str, org: str) -> bool:
    reference = ResourceReference(kind=API_RESOURCE_KIND_AGENT, org=org, slug=slug)
    try:
        await until_answered(AgentQueryControllerStub(channel).GetByReference, reference)
    except Refusal as refused:
        if refused.code is grpc.StatusCode.NOT_FOUND:
            return False
        raise
    return True
