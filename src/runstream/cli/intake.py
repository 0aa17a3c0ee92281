"""The intake: sends the lines of a transfer file to a server, each execution as often as it takes."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from grpc.aio import AioRpcError

from runstream.cli.failure import Failure, is_lost_connection, of_call
from runstream.cli.patience import Patience
from runstream.cli.transfer import parsed, unusable
from runstream.v1.agent_execution_pb2 import ExecutionChange
from runstream.v1.agent_instance_pb2 import AgentInstance
from runstream.v1.agent_pb2 import Agent
from runstream.v1.session_pb2 import Session
from runstream.v1.transfer_pb2 import (
    IMPORT_OUTCOME_UNCHANGED,
    ImportExecutionRequest,
    ImportExecutionResponse,
    ImportResourcesRequest,
)
from runstream.v1.transfer_pb2_grpc import TransferControllerStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from grpc.aio import UnaryUnaryMultiCallable

    from runstream.cli.client import Client
    from runstream.v1.transfer_pb2 import LiveImport

M = TypeVar("M", bound=Message)
Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

#: How much one request brings; a change that is larger goes alone.
_PIECE_BYTES: Final = 256 << 10
_PIECE_CHANGES: Final = 500
_TOO_LARGE: Final = "MESSAGE_TOO_LARGE"
#: How long a call may take unless told otherwise: with its last piece, a long log is folded as a whole.
_TIMEOUT: Final = 300.0


class Intake:
    """Sends one file, which was surveyed before, from its beginning."""

    def __init__(  # noqa: PLR0913 — what it reads from, what it is called, and how it goes on
        self,
        client: Client,
        source: IO[bytes],
        place: str,
        live: LiveImport.ValueType,
        retry_for: float,
        *,
        keep: bool,
    ) -> None:
        """Say with `live` what becomes of what has not ended; with `keep`, leave resources that differ as they are."""
        self._client = client
        self._transfer = TransferControllerStub(client.channel)
        self._source = source
        self._place = place
        self._live = live
        self._retry_for = retry_for
        self._keep = keep
        self._line = 0
        self.counts: Counter[str] = Counter({"imported": 0, "unchanged": 0, "kept": 0})

    async def take_all(self) -> AsyncIterator[int]:
        """Send everything; yield how many executions are done. Raises `AioRpcError` and `Failure`."""
        self._next()  # the header
        while "end" not in (value := self._next()):
            if "execution" in value:
                await self._take_execution(value["execution"])
                yield self.counts["imported"] + self.counts["unchanged"]
            elif "change" in value:
                raise unusable(self._place, f"line {self._line} is a change of no execution")
            else:
                await self._take_resources(value)

    async def _take_resources(self, value: dict[str, Any]) -> None:
        request = ImportResourcesRequest()
        if "agent" in value:
            request.agents.append(self._parse(value["agent"], Agent()))
        for name in ("default_instance", "agent_instance"):
            if name in value:
                request.agent_instances.append(self._parse(value[name], AgentInstance()))
        if "session" in value:
            request.sessions.append(self._parse(value["session"], Session()))
        await self._send_resources(request)

    async def _send_resources(self, request: ImportResourcesRequest) -> None:
        patience = Patience(self._retry_for)
        while True:
            try:
                await self._send(self._transfer.ImportResources, request, f"line {self._line}")
            except AioRpcError as error:
                if self._keep and of_call(error, self._client.connection).reason == "RESOURCE_DIFFERS":
                    await self._keep_existing(request, error)
                    return
                await self._rest(error, patience)
            else:
                return

    async def _keep_existing(self, request: ImportResourcesRequest, error: AioRpcError) -> None:
        """Leave what is there; the default instance of an agent may be missing nevertheless."""
        self.counts["kept"] += 1
        self._client.output.note(f"kept as it is: {error.details()}")
        if request.agents and request.agent_instances:
            await self._send_resources(ImportResourcesRequest(agent_instances=request.agent_instances))

    async def _take_execution(self, described: dict[str, Any]) -> None:
        """Send an execution, from its first piece again when the server has lost step or was away."""
        patience, begin, line = Patience(self._retry_for), self._source.tell(), self._line
        while True:
            try:
                answer = await self._send_log(described)
            except AioRpcError as error:
                await self._rest(error, patience)
                self._source.seek(begin)
                self._line = line
            else:
                name = "unchanged" if answer.outcome == IMPORT_OUTCOME_UNCHANGED else "imported"
                self.counts[name] += 1
                return

    async def _send_log(self, described: dict[str, Any]) -> ImportExecutionResponse:
        execution_id, last = str(described.get("id")), int(described.get("revision", 0))
        piece = self._new_piece(described, 0)
        size = 0
        for revision in range(1, last + 1):
            change = self._next().get("change")
            if change is None:
                raise unusable(self._place, f"line {self._line} is no change, and {execution_id} has {last} of them")
            data = self._parse(change, ExecutionChange()).SerializeToString()
            if piece.changes and (size + len(data) > _PIECE_BYTES or len(piece.changes) >= _PIECE_CHANGES):
                await self._send_piece(piece)
                piece, size = self._new_piece(described, revision - 1), 0
            piece.changes.append(data)
            size += len(data)
        piece.last = True
        return await self._send_piece(piece)

    async def _send_piece(self, piece: ImportExecutionRequest) -> ImportExecutionResponse:
        what = f"change {piece.after_revision + 1} of {piece.execution_id}"
        return await self._send(self._transfer.ImportExecution, piece, what)

    async def _send(self, method: UnaryUnaryMultiCallable[Q, A], request: Q, what: str) -> A:
        """Call once. A request that the server takes for too large is a `Failure`: it cannot be sent in parts."""
        try:
            return await self._client.call(method, request, seconds=self._timeout)
        except AioRpcError as error:
            told = of_call(error, self._client.connection)
            # gRPC itself, which refuses it where the engine is grpcio, gives no reason.
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED or told.reason not in ("", _TOO_LARGE):
                raise
            raise _too_large(f"{self._place}: {what}", request.ByteSize(), told.message) from None

    def _new_piece(self, described: dict[str, Any], after: int) -> ImportExecutionRequest:
        return ImportExecutionRequest(
            execution_id=str(described.get("id")),
            after_revision=after,
            live=self._live,
            parent_deleted=bool(described.get("parent_deleted")),
        )

    async def _rest(self, error: AioRpcError, patience: Patience) -> None:
        """Wait before another try; raise what happened when there shall be none."""
        again = error.code() is grpc.StatusCode.ABORTED or is_lost_connection(error)
        delay = patience.next_delay() if again else None
        if delay is None:
            raise error
        await asyncio.sleep(delay)

    @property
    def _timeout(self) -> float:
        return self._client.connection.timeout or _TIMEOUT

    def _next(self) -> dict[str, Any]:
        self._line += 1
        return parsed(self._source.readline(), self._place, self._line)

    def _parse(self, value: Any, message: M) -> M:  # noqa: ANN401  # as JSON has it
        try:
            return json_format.ParseDict(value, message)
        except (json_format.ParseError, TypeError, ValueError, AttributeError, RecursionError) as error:
            name = message.DESCRIPTOR.name
            raise unusable(self._place, f"line {self._line} holds no {name}: {error}") from None


def _too_large(what: str, size: int, told: str) -> Failure:
    return Failure(
        f"{what} makes a request of {size} bytes, which the server does not take: {told}",
        code=grpc.StatusCode.RESOURCE_EXHAUSTED.name,
        reason=_TOO_LARGE,
        hint=f"start that server with `--max-message-bytes {size}` or more for the time of the import, and repeat it:"
        " what is in stays in",
    )
