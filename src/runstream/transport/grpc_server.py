"""The gRPC transport: puts the methods on a server of grpc.aio, with health and reflection beside them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from runstream.model.errors import RunstreamError
from runstream.transport.gate import Call
from runstream.transport.health import Health
from runstream.transport.methods import service_descriptors
from runstream.transport.statuses import DETAILS_KEY, code_of, message_of, status_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from google.protobuf.message import Message

    from runstream.transport.gate import Gate
    from runstream.transport.methods import Method

    Context = aio.ServicerContext[bytes, Message]

#: A connection without traffic is pinged after this, and closed when no answer comes: a half-open one does not stay.
_KEEPALIVE_MS = 30_000
_KEEPALIVE_TIMEOUT_MS = 10_000
_LEAST_CLIENT_PING_MS = 5_000
#: How often the event loop must have come round with no new call before it counts as quiet, however busy it is.
_QUIET_TURNS = 20
#: How long it must have been quiet at most, however much time there is to drain.
_QUIET_SECONDS = 0.2


class GrpcServer:
    """Serves the methods over gRPC."""

    def __init__(self, gate: Gate, methods: Sequence[Method], *, max_message_bytes: int) -> None:
        self._gate = gate
        logging.getLogger("grpc._cython.cygrpc").addFilter(_worth_logging)
        self._server = aio.server(options=_options(max_message_bytes))
        self._server.add_generic_rpc_handlers(self._handlers(methods))
        self._health = Health()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [service.full_name for service in service_descriptors()]
        self._names = ["", *names]
        described = [*names, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(described, self._server)

    def listen(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """Bind `address`, host:port; return the port, chosen when it was 0. OSError when it is taken."""
        try:
            if credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: is the port taken?") from error
        if port == 0:
            raise OSError(f"cannot listen on {address}")
        return port

    async def start(self) -> None:
        """Begin to serve."""
        await self._server.start()
        for name in self._names:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def drain(self) -> None:
        """Say on health that no new calls are taken."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace: float) -> None:
        """Take no new connections, let running calls end for `grace` seconds, then cut them; the gate must drain.

        Clients have calls on their way, and gRPC ends all that it has not handed over by now with CANCELLED, which
        tells nobody to try again (grpc issue 41785). So they are taken in first, until none has come for 0.2 s or a
        fiftieth of `grace`, the shorter, or for five times that in all. They are held until the connections are told
        to close: clients that were refused at once would call again on the same ones, and it would never become quiet.
        """
        quiet = min(grace / 50, _QUIET_SECONDS)
        for _ in range(5):
            held = self._gate.held
            for _ in range(_QUIET_TURNS):
                await asyncio.sleep(quiet / _QUIET_TURNS)
            if held == self._gate.held:
                break
        self._health.end()
        stopping = asyncio.create_task(self._server.stop(grace))
        await asyncio.sleep(0)
        self._gate.refuse()
        await stopping

    def _handlers(self, methods: Sequence[Method]) -> tuple[grpc.GenericRpcHandler, ...]:
        services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
        for method in methods:
            services.setdefault(method.service, {})[method.name] = self._handler(method)
        return tuple(grpc.method_handlers_generic_handler(service, handlers) for service, handlers in services.items())

    def _handler(self, method: Method) -> grpc.RpcMethodHandler[Any, Any]:
        """Make the handler; it takes bytes, since decoding is the gate's."""

        async def unary(payload: bytes, context: Context) -> Message:
            caller = self._gate.caller(_call(context))
            try:
                return await self._gate.unary(method, payload, caller)
            except RunstreamError as error:
                return await _abort(context, error, caller.request_id)

        async def stream(payload: bytes, context: Context) -> AsyncIterator[Message]:
            caller = self._gate.caller(_call(context))

            async def started() -> None:
                await context.send_initial_metadata(())

            try:
                async with aclosing(self._gate.stream(method, payload, caller, started)) as answers:
                    async for answer in answers:
                        yield answer
            except RunstreamError as error:
                await _abort(context, error, caller.request_id)

        serialize = _serialize
        if method.stream is not None:
            return grpc.unary_stream_rpc_method_handler(stream, response_serializer=serialize)
        return grpc.unary_unary_rpc_method_handler(unary, response_serializer=serialize)


def _worth_logging(record: logging.LogRecord) -> bool:
    """Leave out that a client has gone while it was being sent something: gRPC logs that as an error of ours."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, aio.InternalError)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _call(context: Context) -> Call:
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    names = context.auth_context().get("x509_common_name") or ()
    return Call(metadata, next((name.decode(errors="replace") for name in names), ""))


async def _abort(context: Context, error: RunstreamError, request_id: str) -> Message:
    details = status_of(error, request_id).SerializeToString()
    return await context.abort(code_of(error), message_of(error), ((DETAILS_KEY, details),))


def _options(max_message_bytes: int) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Two servers on one port would take each other's calls.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _LEAST_CLIENT_PING_MS),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _LEAST_CLIENT_PING_MS),
    ]
