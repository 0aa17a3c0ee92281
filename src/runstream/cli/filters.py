"""Filters: which executions a person means, as the options of `list` and `export` say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runstream.cli import pairs, resources, times
from runstream.cli.kinds import AGENT
from runstream.v1.agent_execution_service_pb2 import ListAgentExecutionsRequest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from runstream.cli.client import Client
    from runstream.cli.phases import PhaseName


@dataclass(frozen=True, slots=True)
class Filter:
    """What the options say; whatever is empty filters nothing."""

    phases: Sequence[PhaseName] | None
    agent: str
    session: str
    labels: Sequence[str] | None
    tags: Sequence[str] | None
    created_after: str
    created_before: str
    org: str

    async def request(self, client: Client, now: datetime) -> ListAgentExecutionsRequest:
        """Make the request for what is meant; an agent's slug is looked up. Raises `Misuse`."""
        after, before = self.created_after, self.created_before
        return ListAgentExecutionsRequest(
            phases=[each.phase for each in self.phases or ()],
            session_id=self.session,
            agent_id=await resources.identify(client, AGENT, self.agent, self.org) if self.agent else "",
            labels=pairs.parse(self.labels or (), "--label"),
            tags=self.tags or (),
            org=self.org,
            created_after=times.instant(after, "--created-after", now) if after else None,
            created_before=times.instant(before, "--created-before", now) if before else None,
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing is said, so that everything is meant."""
        return not any(getattr(self, name) for name in self.__slots__)
