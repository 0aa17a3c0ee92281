"""Health: whether the server takes calls, for load balancers and orchestrators."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from grpc_health.v1 import health

if TYPE_CHECKING:
    from grpc_health.v1.health_pb2 import HealthCheckRequest


class Health(health.aio.HealthServicer):
    """The standard health service; those who watch it are let go, or each shutdown would take its full time."""

    def __init__(self) -> None:
        super().__init__()
        self._ending = asyncio.Event()

    def end(self) -> None:
        """End all watches; what they had to be told has been told."""
        self._ending.set()

    async def Watch(self, request: HealthCheckRequest, context: Any) -> None:  # noqa: ANN401
        """Tell the status as it changes, until the server ends."""
        watching = asyncio.ensure_future(super().Watch(request, context))
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait({watching, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            ending.cancel()
            await asyncio.gather(watching, ending, return_exceptions=True)
