"""A real server inside the test's event loop, and a real client of it over loopback."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import aio

from runstream.model.times import to_seconds
from runstream.server import Server
from runstream.settings import Settings
from runstream.storage import keys
from runstream.storage.leveldb import LevelDBStore
from runstream.storage.records import EXECUTION_HEAD
from runstream.v1 import (
    agent_execution_service_pb2_grpc,
    agent_instance_service_pb2_grpc,
    agent_service_pb2_grpc,
    backup_pb2_grpc,
    session_service_pb2_grpc,
)
from runstream.v1.agent_execution_pb2 import CONTROL_CANCEL
from runstream.v1.agent_execution_pb2 import EXECUTION_PENDING as PENDING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from pathlib import Path

    from runstream.model.clock import Clock
    from runstream.services.executions.controls import AgentExecutionControls
    from runstream.storage.store import Store, Transaction


class Client:
    """The stubs of all services on one channel."""

    def __init__(self, address: str, channel: aio.Channel | None = None) -> None:
        self.channel = channel or aio.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
        channel = self.channel
        self.agents = agent_service_pb2_grpc.AgentCommandControllerStub(channel)
        self.agent_queries = agent_service_pb2_grpc.AgentQueryControllerStub(channel)
        self.instances = agent_instance_service_pb2_grpc.AgentInstanceCommandControllerStub(channel)
        self.instance_queries = agent_instance_service_pb2_grpc.AgentInstanceQueryControllerStub(channel)
        self.sessions = session_service_pb2_grpc.SessionCommandControllerStub(channel)
        self.session_queries = session_service_pb2_grpc.SessionQueryControllerStub(channel)
        self.executions = agent_execution_service_pb2_grpc.AgentExecutionCommandControllerStub(channel)
        self.queries = agent_execution_service_pb2_grpc.AgentExecutionQueryControllerStub(channel)
        self.backups = backup_pb2_grpc.BackupControllerStub(channel)


class Serving:
    """A running server and a client of it."""

    def __init__(self, server: Server, client: Client) -> None:
        self.server = server
        self.client = client

    @property
    def store(self) -> Store:
        """The server's own store, for what no query shows."""
        return self.server._store  # noqa: SLF001  # a test may look

    @property
    def controls(self) -> AgentExecutionControls:
        """The server's own controls of executions, for what time alone calls."""
        return self.server._controls  # noqa: SLF001  # a test may look


@asynccontextmanager
async def serving(data: Path, clock: Clock | None = None, **settings: Any) -> AsyncIterator[Serving]:  # noqa: ANN401
    """Run a server on the data folder for the length of the block."""
    settings.setdefault("drain_timeout", 1)  # a fiftieth of it is spent at every end of a test
    server = await Server.start(Settings(listen="127.0.0.1:0", data=data, **settings), clock)
    client = Client(server.address)
    in_place = InPlace()
    server._store.on_commit(in_place)  # noqa: SLF001  # a test may look
    try:
        yield Serving(server, client)
        check_shared_records(server._store)  # noqa: SLF001
        assert not in_place.unheard, "\n".join(in_place.unheard)
    finally:
        await client.channel.close()
        await server.stop()


class InPlace:
    """Listens to commits, and finds those that listeners are spared though they tell them something.

    Who registers with `in_place=False` looks at phases, at whether an end was asked for, at deadlines, and at what
    begins anew.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, ...]] = {}
        self.unheard: list[str] = []

    def __call__(self, transaction: Transaction) -> None:
        """Compare every head with the one before, and look at the changes that made it."""
        for (kind, record_id), head in transaction.puts.items():
            if kind is EXECUTION_HEAD:
                facts = (
                    head.status.phase,
                    head.status.control.action == CONTROL_CANCEL,
                    head.deadline.ToJsonString(),
                    head.parent_id,
                )
                if transaction.in_place and self._known.get(record_id, facts) != facts:
                    self.unheard.append(f"{record_id}: {self._known[record_id]} became {facts}")
                self._known[record_id] = facts
        for change in transaction.changes:
            if (EXECUTION_HEAD, change.execution_id) not in transaction.puts:
                continue  # a piece of an import, which nobody is told of before the last
            if transaction.in_place and (change.terminal or change.supersedes or change.status.phase == PENDING):
                self.unheard.append(f"{change.execution_id}: change {change.revision} ends it, or begins it anew")


def check_shared_records(store: Store) -> None:
    """See that nobody has changed a record that is shared: each that is kept is the one on disk.

    Only what rests: what is on its way to disk differs from it, and a disk that failed cannot be asked.
    """
    assert isinstance(store, LevelDBStore)
    database, recent = store._database, store._recent  # noqa: SLF001  # a test may look
    if not (database.sound and database.readable_now) or store.keys_in_flight:
        return
    for (kind, record_id), (message, _) in recent._records.items():  # noqa: SLF001
        value = database.peek(keys.record(kind, record_id))
        assert value is not None, f"{kind.name} {record_id} is kept and is not there"
        assert kind.message.FromString(value) == message, f"{kind.name} {record_id} was changed by somebody"


class Refusal:
    """What a client learns of a refused call."""

    def __init__(self, error: aio.AioRpcError) -> None:
        self.code = error.code()
        self.message = error.details() or ""
        self.reason = ""
        self.request_id = ""
        self.metadata: dict[str, str] = {}
        self.fields: dict[str, str] = {}
        self.retry_after: float | None = None
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                self._read(Status.FromString(value))

    def _read(self, status: Status) -> None:
        for detail in status.details:
            info, request, call, retry = ErrorInfo(), BadRequest(), RequestInfo(), RetryInfo()
            if detail.Unpack(info):
                self.reason, self.metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(call):
                self.request_id = call.request_id
            elif detail.Unpack(retry):
                self.retry_after = to_seconds(retry.retry_delay)
            elif detail.Unpack(request):
                self.fields = {violation.field: violation.reason for violation in request.field_violations}


async def refusal(call: Awaitable[Any]) -> Refusal:
    """Await a call that must be refused; return what the client learns."""
    try:
        answer = await call
    except aio.AioRpcError as error:
        return Refusal(error)
    raise AssertionError(f"the call was answered: {answer}")


INVALID = grpc.StatusCode.INVALID_ARGUMENT
MISSING = grpc.StatusCode.NOT_FOUND
EXISTS = grpc.StatusCode.ALREADY_EXISTS
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
ABORTED = grpc.StatusCode.ABORTED
DENIED = grpc.StatusCode.PERMISSION_DENIED
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
OUT_OF_RANGE = grpc.StatusCode.OUT_OF_RANGE
INTERNAL = grpc.StatusCode.INTERNAL
