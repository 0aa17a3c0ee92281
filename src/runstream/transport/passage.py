"""Passages: one call on its way through the gate, counted in any case, and logged if it does not get through.

What a log line costs is paid only when it is written.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog
from google.protobuf.message import DecodeError

from runstream.model.errors import Internal, RunstreamError
from runstream.model.ids import AGENT_EXECUTION, is_id
from runstream.transport.call_counts import CANCELLED, OK
from runstream.transport.statuses import code_of

if TYPE_CHECKING:
    from types import TracebackType

    from google.protobuf.message import Message

    from runstream.pipeline.context import Caller
    from runstream.transport.methods import Method

_LOG = structlog.get_logger(__name__)
#: Where requests name an execution.
_FIELDS: Final = ("execution_id", "agent_execution_id", "value", "id")


class Passage:
    """The block in which a call is served. An error that is none of our tree leaves it as `Internal`.

    `verbose`: a call that is served is logged too, for debugging.
    """

    __slots__ = ("_begun", "_caller", "_method", "_payload", "_verbose")

    def __init__(self, method: Method, payload: bytes, caller: Caller, *, verbose: bool) -> None:
        self._method = method
        self._payload = payload
        self._caller = caller
        self._verbose = verbose

    def __enter__(self) -> None:
        counts = self._method.counts
        counts.open += 1
        counts.bytes_in += len(self._payload)
        self._begun = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._begun
        counts = self._method.counts
        counts.note_end(OK if error is None else _code(error))
        if self._method.stream is None:
            counts.seconds.note(seconds)
        if error is not None:
            self._tell(error, seconds)
        elif self._verbose:
            _LOG.debug("served", **self._names(), ms=_millis(seconds))

    def _tell(self, error: BaseException, seconds: float) -> None:
        """Log what ended the call, unless that was the client; raise `Internal` for a fault of ours."""
        code, ms = _code(error), _millis(seconds)
        if isinstance(error, RunstreamError):
            _LOG.info("refused", **self._names(), code=code, reason=error.reason, ms=ms)
        elif isinstance(error, Exception):
            request_id = self._caller.request_id
            _LOG.exception("failed", **self._names(), code=code, reason=code, ms=ms)
            raise Internal(
                "INTERNAL",
                f"The server failed; its log has more under request id {request_id}.",
                metadata={"request_id": request_id},
            ) from error

    def _names(self) -> dict[str, str]:
        """What finds the call elsewhere: at the client, in the log of the execution, in the trace."""
        names = {"method": self._method.path, "request_id": self._caller.request_id}
        execution_id = execution_of(self._method.request, self._payload)
        if execution_id:
            names["execution_id"] = execution_id
        if self._caller.traceparent:
            names["trace_id"] = self._caller.traceparent.split("-")[1]
        return names


def execution_of(kind: type[Message], payload: bytes) -> str:
    """Return the id of the execution that a request names, an empty text when it names none."""
    try:
        request = kind.FromString(payload)
    except DecodeError:
        return ""
    metadata = getattr(request, "metadata", None)
    named = [getattr(request, field, "") for field in _FIELDS] + [getattr(metadata, "id", "")]
    return next((each for each in named if isinstance(each, str) and is_id(AGENT_EXECUTION, each)), "")


def _code(error: BaseException) -> str:
    """Return the name of the code that an error is answered with; what is no `Exception` is the client's going away."""
    if isinstance(error, RunstreamError):
        return code_of(error).name
    return "INTERNAL" if isinstance(error, Exception) else CANCELLED


def _millis(seconds: float) -> float:
    return round(seconds * 1e3, 3)
