"""The streams of executions: each follows the log from the caller's cursor. What many may follow comes encoded."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from runstream.services.executions.queries import matches, query_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from runstream.feed.follow import Started
    from runstream.services.wiring import Wiring
    from runstream.v1.agent_execution_pb2 import AgentExecution
    from runstream.v1.agent_execution_service_pb2 import (
        ListAgentExecutionsRequest,
        SubscribeAgentExecutionRequest,
        WatchAgentExecutionRequest,
    )


class AgentExecutionStreams:
    """Follows executions. `started` is called once an update that happens from then on will be seen."""

    def __init__(self, wiring: Wiring) -> None:
        self._follower = wiring.follower

    def subscribe(self, request: SubscribeAgentExecutionRequest, started: Started) -> AsyncGenerator[bytes, None]:
        """Yield the state now, unless the caller has it, then newer states; end after the terminal one."""
        return self._follower.states(request.value, request.after_revision, request.view, started)

    def watch(self, request: WatchAgentExecutionRequest, started: Started) -> AsyncGenerator[bytes, None]:
        """Yield every change after the cursor, exactly once and in order; end after the terminal one."""
        return self._follower.changes(
            request.execution_id, request.after_revision, from_snapshot=request.from_snapshot, started=started
        )

    def watch_list(self, request: ListAgentExecutionsRequest, started: Started) -> AsyncGenerator[AgentExecution, None]:
        """Yield the newest head of every matching execution as it changes; never end."""
        query = query_of(request)
        return self._follower.heads(query, partial(matches, query), started)
