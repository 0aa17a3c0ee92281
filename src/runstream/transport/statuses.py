"""Statuses: the one table from our errors to gRPC codes, and the details that go with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from runstream.model import errors
from runstream.model.times import to_duration

if TYPE_CHECKING:
    from google.protobuf.message import Message

DOMAIN = "runstream"
DETAILS_KEY = "grpc-status-details-bin"
#: Clients refuse trailers above 8 KiB by default. Base64 adds a third to the details, and the message is there once
#: more, with three bytes for each that is not ASCII. What does not fit is left out.
_DETAILS_BYTES = 4096
_MESSAGE_BYTES = 750

CODES: dict[type[errors.RunstreamError], grpc.StatusCode] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.Aborted: grpc.StatusCode.ABORTED,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.Internal: grpc.StatusCode.INTERNAL,
}


def code_of(error: errors.RunstreamError) -> grpc.StatusCode:
    """Return the code of an error: its own class's, or that of the nearest class above it."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def status_of(error: errors.RunstreamError, request_id: str) -> Status:
    """Make the rich status of an error, small enough for every client to take."""
    code = code_pb2.Code.Value(code_of(error).name)
    status = Status(code=code, message=message_of(error))
    info = ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=_short(error.metadata))
    status.details.append(_packed(info))
    status.details.append(_packed(RequestInfo(request_id=request_id)))
    if error.retry_after:
        status.details.append(_packed(RetryInfo(retry_delay=to_duration(error.retry_after))))
    if error.fields:
        room = _DETAILS_BYTES - status.ByteSize()
        status.details.append(_packed(_bad_request(error, room)))
    return status


def trailers_of(error: errors.RunstreamError, request_id: str) -> tuple[tuple[str, bytes]]:
    """Make the trailing metadata of an error: its rich status."""
    return ((DETAILS_KEY, status_of(error, request_id).SerializeToString()),)


def message_of(error: errors.RunstreamError) -> str:
    """Return the message of an error, cut to what a trailer can carry."""
    return _cut(error.message, _MESSAGE_BYTES)


def _bad_request(error: errors.RunstreamError, room: int) -> BadRequest:
    """List the violations, as many as there is room for."""
    request = BadRequest()
    for violation in error.fields:
        request.field_violations.add(
            field=_cut(violation.field, 400),
            description=_cut(violation.description, 500),
            reason=violation.reason,
        )
        if request.ByteSize() > room:
            del request.field_violations[-1]
            break
    return request


def _short(metadata: dict[str, str]) -> dict[str, str]:
    return {key: _cut(value, 200) for key, value in metadata.items()}


def _cut(text: str, size: int) -> str:
    """Cut a text to a size in bytes, which it keeps when it is not longer."""
    data = text.encode()
    return text if len(data) <= size else f"{data[:size].decode(errors='ignore')}…"


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
