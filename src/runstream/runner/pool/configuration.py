"""Configuration: what an agent is built of. It is stored, has a revision, and is the same for every invocation."""

from __future__ import annotations

import hashlib
import json
from dataclasses import KW_ONLY, asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict

from runstream.runner.context.value import frozen, thawed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from runstream.runner.invocation import Invocation
    from runstream.v1.resource_pb2 import ResourceReference


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentReference:
    """An environment that an agent's instance refers to, by slug. `scope` and `kind` are enums of the API."""

    slug: str
    org: str = ""
    version: str = ""
    scope: int = 0
    kind: int = 0

    @classmethod
    def of(cls, reference: ResourceReference) -> Self:
        """Read a reference of the API."""
        return cls(**{each.name: getattr(reference, each.name) for each in fields(cls)})


@dataclass(frozen=True, slots=True)
class AgentConfiguration:
    """What an agent is built of: the stored agent, and its instance if it runs in one. Nothing of any invocation.

    Frozen to the bottom. Two are equal when everything in them is.
    """

    agent_id: str
    agent_revision: int
    _: KW_ONLY
    org: str = ""
    name: str = ""
    slug: str = ""
    instructions: str = ""
    #: What the agent's spec says for whoever builds it: anything JSON can hold.
    runtime: Mapping[str, Any] = field(default_factory=dict, hash=False)
    tools: tuple[str, ...] = ()
    #: The instance; empty when it runs outside of any session.
    instance_id: str = ""
    instance_revision: int = 0
    environments: tuple[EnvironmentReference, ...] = ()
    #: The same for equal configurations, in every process.
    digest: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Freeze what was given, and digest it."""
        object.__setattr__(self, "runtime", frozen(self.runtime))
        object.__setattr__(self, "tools", tuple(self.tools))
        object.__setattr__(self, "environments", tuple(self.environments))
        object.__setattr__(self, "digest", self._digest())

    @classmethod
    def of(cls, invocation: Invocation) -> Self:
        """Return what the agent of an invocation is built of.

        For a sub-agent within an execution, that is the configuration of the execution's agent: it has none of its own.
        """
        agent, instance = invocation.agent, invocation.instance
        return cls(
            agent.metadata.id,
            agent.metadata.revision,
            org=agent.metadata.org,
            name=agent.metadata.name,
            slug=agent.metadata.slug,
            instructions=agent.spec.instructions,
            runtime=MessageToDict(agent.spec.runtime),
            tools=tuple(agent.spec.tools),
            instance_id=instance.metadata.id,
            instance_revision=instance.metadata.revision,
            environments=tuple(EnvironmentReference.of(each) for each in instance.spec.environment_refs),
        )

    def outdates(self, other: AgentConfiguration) -> bool:
        """Tell whether this is a later revision of what the other one is: of its agent, or of its instance."""
        if not self.agent_id or self.agent_id != other.agent_id:
            return False
        if self.agent_revision != other.agent_revision:
            return self.agent_revision > other.agent_revision
        return self.instance_id == other.instance_id and self.instance_revision > other.instance_revision

    def _digest(self) -> str:
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        values["runtime"] = thawed(self.runtime)
        values["environments"] = [asdict(each) for each in self.environments]
        written = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(written.encode("utf-8", "surrogatepass")).hexdigest()
