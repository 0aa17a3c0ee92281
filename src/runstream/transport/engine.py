"""Engines: what carries the calls over HTTP/2. Two know gRPC: grpcio, and native, whose HTTP/2 is done by Rust threads.

    auto    native where it is installed and can do all that is configured, else grpcio
    grpcio  can do everything
    native  several times as many calls per second; no TLS, and a request is measured when it is all there

Nothing that is configured is silently left out: an engine that was asked for by name and cannot do it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from runstream.transport.grpcio_engine import GrpcioEngine

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc

    from runstream.transport.gate import Gate
    from runstream.transport.methods import Method

EngineName = Literal["auto", "grpcio", "native"]


class EngineUnfit(ValueError):
    """The engine that was asked for cannot do what is configured; the message says what, and what would be right."""


class Engine(Protocol):
    """Serves the methods through the gate, with health and reflection beside them."""

    def listen(self, address: str) -> int:
        """Bind `address`, host:port; return the port, chosen when it was 0. OSError when it is taken."""
        ...

    async def start(self) -> None:
        """Begin to serve."""
        ...

    async def drain(self) -> None:
        """Say on health that no new calls are taken."""
        ...

    async def stop(self, grace: float) -> None:
        """Let running calls end for `grace` seconds, then cut them; the gate must drain. A repeat does nothing."""
        ...


class EngineKind(Protocol):
    """Makes engines of one kind."""

    def __call__(self, gate: Gate, methods: Sequence[Method], wire: Wire) -> Engine:
        """Make an engine that serves the methods."""
        ...


@dataclass(frozen=True, slots=True)
class Wire:
    """What is configured of the wire."""

    #: Whether only this machine reaches the address.
    loopback: bool
    max_message_bytes: int
    #: Certificate and key, and the authority of the clients' certificates; without them the wire is in plain text.
    credentials: grpc.ServerCredentials | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine that was chosen, and why."""

    name: str
    reason: str
    make: EngineKind


def choose_engine(wanted: EngineName, wire: Wire) -> Choice:
    """Choose the engine for what is configured. Raises `EngineUnfit` when the wanted one cannot do it."""
    if wanted == "grpcio":
        return Choice("grpcio", "it was asked for", GrpcioEngine)
    if wire.credentials is not None:
        return _without_native(wanted, "it has no TLS, and tls_cert is set")
    if wanted == "auto" and not wire.loopback:
        # It holds a request in memory before it can measure it: on a network, anyone could fill the memory.
        return _without_native(wanted, "it does not bound the memory of a request, and listen is open to the network")
    try:
        from runstream.transport.native_engine import VERSION, NativeEngine  # noqa: PLC0415  # it is optional
    except ModuleNotFoundError:
        return _without_native(wanted, "it is not installed; pip install 'runstream[native]' does that")
    except ImportError as error:
        return _without_native(wanted, f"it cannot be loaded: {error}")
    return Choice("native", f"pygrpc-native {VERSION} can do all that is configured", NativeEngine)


def _without_native(wanted: EngineName, obstacle: str) -> Choice:
    if wanted == "native":
        raise EngineUnfit(f"engine cannot be native: {obstacle}. Change that, or set engine to auto or grpcio.")
    return Choice("grpcio", f"native is not used: {obstacle}", GrpcioEngine)
