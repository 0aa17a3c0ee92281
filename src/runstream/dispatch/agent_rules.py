"""Agent rules: the few things about an agent that dispatch asks; its instructions may be large and stay on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runstream.v1.agent_pb2 import Agent


@dataclass(frozen=True, slots=True)
class AgentRules:
    """What an agent is called, and how many executions of it may run at a time; 0 is unlimited."""

    id: str
    org: str
    slug: str
    most_at_once: int
    concurrent_in_session: bool


def rules_of(agent: Agent) -> AgentRules:
    """Return the rules that stand in an agent."""
    metadata, spec = agent.metadata, agent.spec
    return AgentRules(
        metadata.id, metadata.org, metadata.slug, spec.max_concurrent_executions, spec.concurrent_in_session
    )
