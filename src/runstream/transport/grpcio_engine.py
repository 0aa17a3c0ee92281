"""The grpcio engine: the methods on a server of grpc.aio."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
from grpc import aio

from runstream.model.errors import RunstreamError
from runstream.transport.gate import Call
from runstream.transport.keepalive import KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS, LEAST_CLIENT_PING_MS
from runstream.transport.quiet import until_quiet
from runstream.transport.standard import StandardServices
from runstream.transport.statuses import code_of, message_of, trailers_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from google.protobuf.message import Message

    from runstream.transport.engine import Wire
    from runstream.transport.gate import Gate
    from runstream.transport.methods import Method

    Context = aio.ServicerContext[bytes, Message]

#: How many calls may stand before the event loop; our own limits are for those that it has taken.
_PENDING_CALLS = 10_000


class GrpcioEngine:
    """Serves the methods with grpc.aio."""

    def __init__(self, gate: Gate, methods: Sequence[Method], wire: Wire) -> None:
        self._gate = gate
        logging.getLogger("grpc._cython.cygrpc").addFilter(_worth_logging)
        self._credentials = wire.credentials
        self._server = aio.server(options=_options(wire.max_message_bytes))
        self._server.add_generic_rpc_handlers(self._handlers(methods))
        self._standard = StandardServices(self._server)

    def listen(self, address: str) -> int:
        """Bind `address`, host:port; return the port, chosen when it was 0. OSError when it is taken."""
        try:
            if self._credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: is the port taken?") from error
        if port == 0:
            raise OSError(f"cannot listen on {address}")
        return port

    async def start(self) -> None:
        """Begin to serve."""
        await self._server.start()
        await self._standard.start()

    async def drain(self) -> None:
        """Say on health that no new calls are taken."""
        await self._standard.drain()

    async def stop(self, grace: float) -> None:
        """Take no new connections, let running calls end for `grace` seconds, then cut them; the gate must drain.

        Clients have calls on their way, and gRPC ends all that it has not handed over by now with CANCELLED, which
        tells nobody to try again (grpc issue 41785). So they are taken in first, and held until the connections are
        told to close.
        """
        await until_quiet(self._gate, grace)
        self._standard.end()
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
        # To ask a connection for certificates takes longer than most of what the gate does.
        call_of = _call if self._credentials is None else _proven_call

        async def unary(payload: bytes, context: Context) -> Message:
            caller = self._gate.caller(call_of(context))
            try:
                return await self._gate.unary(method, payload, caller)
            except RunstreamError as error:
                return await _abort(context, error, caller.request_id)

        async def stream(payload: bytes, context: Context) -> AsyncIterator[Message | bytes]:
            caller = self._gate.caller(call_of(context))

            async def started() -> None:
                await context.send_initial_metadata(())

            try:
                async with aclosing(self._gate.stream(method, payload, caller, started)) as answers:
                    async for answer in answers:
                        yield answer
            except RunstreamError as error:
                await _abort(context, error, caller.request_id)

        serialize = method.encode
        if method.stream is not None:
            return grpc.unary_stream_rpc_method_handler(stream, response_serializer=serialize)
        return grpc.unary_unary_rpc_method_handler(unary, response_serializer=serialize)


def _worth_logging(record: logging.LogRecord) -> bool:
    """Leave out that a client has gone while it was being sent something: gRPC logs that as an error of ours."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, aio.InternalError)


def _call(context: Context) -> Call:
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    return Call(metadata, peer=context.peer)


def _proven_call(context: Context) -> Call:
    """Say what is known of a call on a connection that may have shown a certificate."""
    names = context.auth_context().get("x509_common_name") or ()
    return _call(context)._replace(identity=next((name.decode(errors="replace") for name in names), ""))


async def _abort(context: Context, error: RunstreamError, request_id: str) -> Message:
    return await context.abort(code_of(error), message_of(error), trailers_of(error, request_id))


def _options(max_message_bytes: int) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Two servers on one port would take each other's calls.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", LEAST_CLIENT_PING_MS),
        # Of calls that come faster than they are taken, gRPC cancels some, beyond a thousand: nobody learns why.
        ("grpc.server.max_pending_requests", _PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * _PENDING_CALLS),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", LEAST_CLIENT_PING_MS),
    ]
