"""Refusals: which failed calls may be sent again, and what the server said about the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

if TYPE_CHECKING:
    from google.rpc.status_pb2 import Status

#: The server is away, or did not get to it: a repeat is harmless, since every call of a runner is idempotent.
_AGAIN: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
    }
)
#: What a call also ends with when its connection breaks; from the server itself it comes with details.
_BROKEN: Final = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})
#: The execution is not this runner's any more, or is no more.
_LOST: Final = frozenset({"STALE_ATTEMPT", "EXECUTION_TERMINAL"})


class Refusal(Exception):
    """A call that the server has answered with an error of its own, which a repeat would not change."""

    def __init__(self, code: grpc.StatusCode, reason: str, message: str) -> None:
        """Take the gRPC `code`, the stable `reason` if the server gave one, and the message for people."""
        super().__init__(f"{reason or code.name}: {message}")
        self.code = code
        self.reason = reason
        self.message = message

    @property
    def lost(self) -> bool:
        """Whether it says that the execution is the caller's no longer."""
        return self.code is grpc.StatusCode.NOT_FOUND or self.reason in _LOST


def refusal(error: grpc.aio.AioRpcError) -> Refusal | None:
    """Return what the server has refused for good; None when the call may be sent again."""
    code = error.code()
    if code in _AGAIN:
        return None
    status = _status(error)
    if code in _BROKEN and status is None:
        return None
    return Refusal(code, _reason(status), error.details() or "")


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
