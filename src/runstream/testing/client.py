"""A client of every service, on one connection."""

from __future__ import annotations

from runstream.runner.calls import open_channel
from runstream.v1.agent_execution_service_pb2_grpc import (
    AgentExecutionCommandControllerStub,
    AgentExecutionQueryControllerStub,
)
from runstream.v1.agent_instance_service_pb2_grpc import (
    AgentInstanceCommandControllerStub,
    AgentInstanceQueryControllerStub,
)
from runstream.v1.agent_service_pb2_grpc import AgentCommandControllerStub, AgentQueryControllerStub
from runstream.v1.runner_pb2_grpc import RunnerControllerStub
from runstream.v1.session_service_pb2_grpc import SessionCommandControllerStub, SessionQueryControllerStub


class Client:
    """The generated stubs, for what the server's own methods do not offer. Of the loop that it is made in."""

    def __init__(self, address: str) -> None:
        """Connect to `address`, HOST:PORT, at the first call."""
        self._channel = open_channel(address)
        self.agents = AgentCommandControllerStub(self._channel)
        self.agent_queries = AgentQueryControllerStub(self._channel)
        self.instances = AgentInstanceCommandControllerStub(self._channel)
        self.instance_queries = AgentInstanceQueryControllerStub(self._channel)
        self.sessions = SessionCommandControllerStub(self._channel)
        self.session_queries = SessionQueryControllerStub(self._channel)
        self.executions = AgentExecutionCommandControllerStub(self._channel)
        self.queries = AgentExecutionQueryControllerStub(self._channel)
        self.runners = RunnerControllerStub(self._channel)

    async def close(self) -> None:
        """Close the connection, and end what is under way on it."""
        await self._channel.close()
