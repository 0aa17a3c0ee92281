"""Failures: what went wrong, for a person and for a script.

    Failure             the command cannot do what was asked; carries the exit code
    └── Misuse          the command was asked for something it cannot understand

A call's `grpc.aio.AioRpcError` becomes a Failure with the reason and the fields that the server gave.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_status import rpc_status

from runstream.cli import unreachable
from runstream.cli.exit_codes import ExitCode
from runstream.cli.plain_text import clean
from runstream.model.times import to_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.rpc.status_pb2 import Status

    from runstream.cli.connection import Connection

_NO_ANSWER: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
#: What a stream ends with when the connection breaks; also what a server may answer by itself.
_BROKEN: Final = _NO_ANSWER | {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class FieldFault:
    """One field of the request that the server refused."""

    field: str
    description: str


class Failure(Exception):
    """The command cannot do what was asked."""

    def __init__(  # noqa: PLR0913 — the parts of one error
        self,
        message: str,
        *,
        code: str = "FAILED",
        reason: str = "",
        fields: Iterable[FieldFault] = (),
        hint: str = "",
        exit_code: ExitCode = ExitCode.CALL_FAILED,
    ) -> None:
        """Take the message for people, the gRPC `code`, the stable `reason`, and what to do about it."""
        super().__init__(message)
        self.message = clean(message)
        self.code = code
        self.reason = clean(reason)
        self.fields = tuple(fields)
        self.hint = hint
        self.exit_code = exit_code

    def as_text(self) -> str:
        """Return the failure for a person: the message, then one line per detail."""
        lines = [f"error: {self.message}"]
        if self.reason:
            lines.append(f"  reason: {self.reason}")
        details = (f"{fault.field}: {fault.description}" for fault in self.fields)
        lines += [f"  {detail}" for detail in details if detail not in self.message]
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)

    def as_json(self) -> str:
        """Return the failure for a script: one JSON object on one line."""
        return json.dumps(
            {
                "code": self.code,
                "reason": self.reason,
                "message": self.message,
                "fields": [{"field": fault.field, "description": fault.description} for fault in self.fields],
            }
        )


class Misuse(Failure):
    """The command was asked for something it cannot understand: an argument, or a file of -f."""

    def __init__(self, message: str) -> None:
        """Take the message for people."""
        super().__init__(message, code="USAGE", exit_code=ExitCode.USAGE)


def of_call(error: grpc.aio.AioRpcError, connection: Connection) -> Failure:
    """Return the failure of a call over `connection`."""
    code = error.code()
    status = _status(error)
    message = error.details() or code.name
    unanswered = code in _NO_ANSWER and status is None
    hint = unreachable.hint(message, connection) if unanswered else ""
    if unanswered:
        message = f"{_what_happened(code)} {connection.address}: {message}"
    return Failure(
        message,
        code=code.name,
        reason=_reason(status),
        fields=_fields(status),
        hint=hint,
        exit_code=ExitCode.UNREACHABLE if code in _NO_ANSWER else ExitCode.CALL_FAILED,
    )


def is_lost_connection(error: grpc.aio.AioRpcError) -> bool:
    """Whether the call may go on where it stopped once the server is back.

    What the server said of its own accord is final, unless it said that it is away.
    """
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return True
    return error.code() in _BROKEN and _status(error) is None


def retry_after(error: grpc.aio.AioRpcError) -> float | None:
    """Return how many seconds the server asks to wait before the call is made again; None when it does not."""
    status, info = _status(error), RetryInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            return to_seconds(info.retry_delay)
    return None


def _what_happened(code: grpc.StatusCode) -> str:
    return "cannot reach" if code is grpc.StatusCode.UNAVAILABLE else "no answer in time from"


def _status(error: grpc.aio.AioRpcError) -> Status | None:
    try:
        # An error has all that is read of a call.
        return rpc_status.from_call(error)  # type: ignore[arg-type]
    except ValueError:
        return None  # a proxy on the path wrote details that contradict the status


def _reason(status: Status | None) -> str:
    info = ErrorInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            return str(info.reason)
    return ""


def _fields(status: Status | None) -> list[FieldFault]:
    request = BadRequest()
    return [
        FieldFault(clean(fault.field), clean(fault.description))
        for detail in (status.details if status else ())
        if detail.Unpack(request)
        for fault in request.field_violations
    ]
