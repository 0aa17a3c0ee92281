"""The standard services beside our own, on a server of grpc.aio: health, and reflection for tools like grpcurl."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from runstream.transport.health import Health
from runstream.transport.methods import service_descriptors

if TYPE_CHECKING:
    from grpc import aio


class StandardServices:
    """Health and reflection, for the server as a whole and for each service of the API."""

    def __init__(self, server: aio.Server) -> None:
        """Put them on a server that has not started."""
        self._health = Health()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [service.full_name for service in service_descriptors()]
        self._names = ["", *names]
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)

    async def start(self) -> None:
        """Say that calls are taken."""
        for name in self._names:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def drain(self) -> None:
        """Say that no new calls are taken."""
        await self._health.enter_graceful_shutdown()

    def end(self) -> None:
        """Let those go who watch the health."""
        self._health.end()
