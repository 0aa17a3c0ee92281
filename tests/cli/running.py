"""A runner's work, done by hand: deltas for one execution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.v1.agent_execution_pb2 import (
    EXECUTION_COMPLETED,
    EXECUTION_IN_PROGRESS,
    MESSAGE_AI,
    AgentExecutionStatus,
    AgentMessage,
)
from runstream.v1.agent_execution_service_pb2 import AgentExecutionUpdateStatusInput
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC

if TYPE_CHECKING:
    from tests.serving import Client


class Runner:
    """Writes the status of one execution."""

    def __init__(self, client: Client, execution_id: str) -> None:
        self._client = client
        self._execution_id = execution_id

    async def write(self, delta: AgentExecutionStatus) -> int:
        """Merge a delta; return the revision."""
        request = AgentExecutionUpdateStatusInput(
            execution_id=self._execution_id, status=delta, view=RESOURCE_VIEW_BASIC
        )
        return (await self._client.executions.UpdateStatus(request)).metadata.revision

    async def start(self) -> int:
        """Go to work."""
        return await self.write(AgentExecutionStatus(phase=EXECUTION_IN_PROGRESS))

    async def speak(self, message_id: str, text: str, owner: str = "") -> int:
        """Stream a piece of a message."""
        message = AgentMessage(id=message_id, type=MESSAGE_AI, content_append=text, owner_id=owner)
        return await self.write(AgentExecutionStatus(messages=[message]))

    async def complete(self) -> int:
        """End well."""
        return await self.write(AgentExecutionStatus(phase=EXECUTION_COMPLETED))
