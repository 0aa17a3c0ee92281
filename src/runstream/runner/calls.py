"""Calls: the connection to the server, and calls that are sent until they are answered."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from typing import TYPE_CHECKING, Final, TypeVar

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest

from runstream.runner.backoff import Backoff
from runstream.runner.refusals import refusal, retry_after

if TYPE_CHECKING:
    from grpc.aio import Channel, UnaryUnaryMultiCallable

Q = TypeVar("Q")
A = TypeVar("A")

_LOG = logging.getLogger(__name__)

#: How long one attempt at a call may take.
CALL_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 3.0

#: A dead connection is noticed by pings; a lost one is tried again soon. Each runner has a connection of its own.
_CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.primary_user_agent", "runstream-runner"),
)


def open_channel(server: str, credentials: grpc.ChannelCredentials | None = None) -> Channel:
    """Return a channel to `server`, HOST:PORT; encrypted when there are credentials. Nothing is sent before a call."""
    options: list[tuple[str, object]] = [*_CHANNEL_OPTIONS]
    if _is_local(server):
        options.append(("grpc.enable_http_proxy", 0))
    if credentials is None:
        return grpc.aio.insecure_channel(server, options=options)
    return grpc.aio.secure_channel(server, credentials, options=options)


async def look_for(channel: Channel, server: str) -> None:
    """Return when the server can be reached, or has been looked for in vain for a while, which is logged."""
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            await channel.channel_ready()
    except TimeoutError:
        _LOG.warning("cannot reach %s, trying again: %s", server, await _why_not(channel))


async def _why_not(channel: Channel) -> str:
    """Return what a call meets with: a refused connection, an unknown name, a certificate that is not trusted."""
    try:
        await channel.unary_unary("/grpc.health.v1.Health/Check", HealthCheckRequest.SerializeToString)(
            HealthCheckRequest(), timeout=1
        )
    except grpc.aio.AioRpcError as error:
        return error.details() or error.code().name
    return "it is slow"


async def until_answered(
    method: UnaryUnaryMultiCallable[Q, A], request: Q, metadata: tuple[tuple[str, str], ...] = ()
) -> A:
    """Send `request` until it is answered, however long the server is away; it must be one that may come twice.

    Raises `Refusal` when the server refuses it for good.
    """
    backoff: Backoff | None = None
    while True:
        try:
            return await method(request, timeout=CALL_SECONDS, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            refused = refusal(error)
            if refused is not None:
                raise refused from error
            _LOG.debug("a call is sent again: %s: %s", error.code().name, error.details())
            asked = retry_after(error)
        backoff = backoff or Backoff()
        await asyncio.sleep(asked + backoff.next())


def _is_local(server: str) -> bool:
    host = server.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
