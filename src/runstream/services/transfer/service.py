"""The transfer service: what another server has exported comes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.services.transfer.executions import ExecutionImport
from runstream.services.transfer.resources import ResourceImport

if TYPE_CHECKING:
    from runstream.services.wiring import Wiring
    from runstream.v1.transfer_pb2 import (
        ImportExecutionRequest,
        ImportExecutionResponse,
        ImportResourcesRequest,
        ImportResourcesResponse,
    )


class TransferService:
    """Imports resources and executions; the call gate has checked the rules of the proto."""

    def __init__(self, wiring: Wiring) -> None:
        self._resources = ResourceImport(wiring)
        self._executions = ExecutionImport(wiring)

    async def import_resources(self, request: ImportResourcesRequest) -> ImportResourcesResponse:
        """Import agents, instances and sessions; durable when it returns. A repeat changes nothing."""
        return await self._resources.take(request)

    async def import_execution(self, request: ImportExecutionRequest) -> ImportExecutionResponse:
        """Take a piece of an execution's log; durable when it returns. A repeat of all pieces changes nothing."""
        return await self._executions.take(request)
