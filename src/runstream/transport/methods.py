"""Methods: one entry for each method of the API, made from the protos and the services that serve them.

A method that no service serves is an error at start, not at the first call.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf.message_factory import GetMessageClass

from runstream.transport.call_counts import CallCounts
from runstream.v1 import (
    agent_execution_service_pb2,
    agent_instance_service_pb2,
    agent_service_pb2,
    backup_pb2,
    runner_pb2,
    session_service_pb2,
    transfer_pb2,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
    from google.protobuf.message import Message

    from runstream.feed.follow import Started
    from runstream.pipeline.context import Caller

SERVICE_FILES = (
    agent_service_pb2,
    agent_instance_service_pb2,
    session_service_pb2,
    agent_execution_service_pb2,
    runner_pb2,
    backup_pb2,
    transfer_pb2,
)


@dataclass(frozen=True, slots=True)
class Method:
    """One method: its names, its request, and what serves it; exactly one of the three is set."""

    service: str
    name: str
    request: type[Message]
    #: A command validates its own request, as its first step.
    command: Callable[[Any, Caller], Awaitable[Message]] | None = None
    query: Callable[[Any], Awaitable[Message]] | None = None
    stream: Callable[[Any, Started], AsyncGenerator[Message | bytes, None]] | None = None
    counts: CallCounts = field(default_factory=CallCounts, compare=False, repr=False)

    @property
    def path(self) -> str:
        """The method's path on the wire."""
        return f"/{self.service}/{self.name}"

    def encode(self, answer: Message | bytes) -> bytes:
        """Encode an answer for the wire, if it is not, and count its bytes."""
        payload = answer if isinstance(answer, bytes) else answer.SerializeToString()
        self.counts.bytes_out += len(payload)
        return payload


def service_descriptors() -> list[ServiceDescriptor]:
    """All services of the API."""
    return [service for file in SERVICE_FILES for service in file.DESCRIPTOR.services_by_name.values()]


def bind_methods(servers: Mapping[str, tuple[object, ...]]) -> list[Method]:
    """Make the table; `servers` gives for each service name the objects that serve it, searched in order."""
    return [_bind(method, servers[service.name]) for service in service_descriptors() for method in service.methods]


def _bind(method: MethodDescriptor, servers: tuple[object, ...]) -> Method:
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower()
    serve = next((getattr(server, name) for server in servers if hasattr(server, name)), None)
    if serve is None:
        raise LookupError(f"nobody serves {method.full_name}")
    service = method.containing_service
    request = GetMessageClass(method.input_type)
    if method.server_streaming:
        return Method(service.full_name, method.name, request, stream=serve)
    if service.name.endswith("CommandController"):
        return Method(service.full_name, method.name, request, command=serve)
    return Method(service.full_name, method.name, request, query=serve)
