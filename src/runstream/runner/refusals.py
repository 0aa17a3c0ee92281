"""Refusals: which failed calls may be sent again, and when, and what the server said about the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status

from runstream.model.times import to_seconds

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
#: The execution is as long or as large as it may be: nothing but its end is taken any more.
_FULL: Final = frozenset({"EXECUTION_TOO_LONG", "EXECUTION_TOO_LARGE"})


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

    @property
    def full(self) -> bool:
        """Whether it says that the execution can take nothing more, but its end."""
        return self.reason in _FULL


def refusal(error: grpc.aio.AioRpcError) -> Refusal | None:
    """Return what the server has refused for good; None when the call may be sent again."""
    code = error.code()
    if code in _AGAIN:
        return None
    status = _status(error)
    if (code in _BROKEN and status is None) or _retry_info(status) is not None:
        return None
    return Refusal(code, _reason(status), error.details() or "")


def retry_after(error: grpc.aio.AioRpcError) -> float:
    """Return how many seconds the server asks to wait before the call is sent again; 0 when it does not."""
    return _retry_info(_status(error)) or 0


def _retry_info(status: Status | None) -> float | None:
    info = RetryInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            return to_seconds(info.retry_delay)
    return None


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
