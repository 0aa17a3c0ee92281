"""Calls with bytes in place of messages, to any method of the API by its descriptor."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from google.protobuf.message_factory import GetMessageClass

import runstream.v1

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
    from google.protobuf.message import Message
    from grpc import aio


def every_service() -> list[ServiceDescriptor]:
    """All services of all files of the API, whether the server knows of them or not."""
    found = []
    for module in sorted(info.name for info in pkgutil.iter_modules(runstream.v1.__path__)):
        if module.endswith("_pb2"):
            descriptor = importlib.import_module(f"runstream.v1.{module}").DESCRIPTOR
            found += list(descriptor.services_by_name.values())
    return found


def every_method() -> list[MethodDescriptor]:
    """All methods of the API."""
    return [method for service in every_service() for method in service.methods]


def request_of(method: MethodDescriptor) -> Message:
    """An empty request for a method."""
    return GetMessageClass(method.input_type)()


async def call_raw(channel: aio.Channel, method: MethodDescriptor, payload: bytes) -> bytes:
    """Call a method with bytes; return the bytes of the answer, of the first one for a stream."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    if method.server_streaming:
        stream: aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(path)
        return await anext(aiter(stream(payload)))
    unary: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
    return await unary(payload)
