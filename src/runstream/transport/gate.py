"""The call gate: every call of every transport goes through here. Rules of every wire stand here and nowhere else.

It says who calls, refuses calls while the server drains and calls that are too many, checks requests that no pipeline
checks, logs every call once, and lets nothing out but errors of our own tree: anything else is logged with the request
id, and only the id goes out.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from google.protobuf.message import DecodeError

from runstream.model.errors import Internal, InvalidArgument, RunstreamError, Unavailable
from runstream.pipeline.context import Caller
from runstream.pipeline.validation import validate
from runstream.transport.admission import Admission, CallLimits

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping

    from google.protobuf.message import Message

    from runstream.transport.methods import Method

_LOG = structlog.get_logger(__name__)
_LONGEST_REQUEST_ID = 128


@dataclass(frozen=True, slots=True)
class Call:
    """What a transport knows of a call beside its request: metadata by lower-case name, proven identity, peer."""

    metadata: Mapping[str, str]
    identity: str = ""
    #: Tells the address it comes from; asked only when that counts.
    peer: Callable[[], str] = str


class Gate:
    """Lets calls through to their services."""

    def __init__(self, new_request_id: Callable[[], str], admission: Admission | None = None) -> None:
        self._new_request_id = new_request_id
        self._admission = admission or Admission(CallLimits(), time.monotonic)
        self._draining = False
        self._refusing = asyncio.Event()
        #: How many calls have come since draining began.
        self.held = 0

    def caller(self, call: Call) -> Caller:
        """Say who calls, and take from the metadata what the services use."""
        request_id = call.metadata.get("x-request-id", "")
        if not request_id.isprintable() or not 0 < len(request_id) <= _LONGEST_REQUEST_ID:
            request_id = self._new_request_id()
        return Caller(
            actor=call.identity or "anonymous",
            request_id=request_id,
            idempotency_key=call.metadata.get("idempotency-key", ""),
            traceparent=_traceparent(call.metadata.get("traceparent", "")),
            client=self._admission.client(call),
        )

    async def unary(self, method: Method, payload: bytes, caller: Caller) -> Message:
        """Serve a call with one answer. Raises errors of our tree only."""
        await self._admit()
        with _logged(method, caller), self._admission.admit(method, caller.client):
            request = parse(method, payload)
            if method.command is not None:
                return await method.command(request, caller)
            if method.query is None:
                raise LookupError(f"{method.path} does not answer once")
            validate(request)
            return await method.query(request)

    async def stream(
        self,
        method: Method,
        payload: bytes,
        caller: Caller,
        started: Callable[[], Awaitable[None]],
    ) -> AsyncGenerator[Message, None]:
        """Serve a call with a stream of answers. Raises errors of our tree only."""
        await self._admit()
        with _logged(method, caller), self._admission.admit(method, caller.client):
            if method.stream is None:
                raise LookupError(f"{method.path} does not stream")
            request = parse(method, payload)
            validate(request)
            # Closed at once when the client goes away, so that nobody is woken for it any more.
            async with aclosing(method.stream(request, started)) as answers:
                async for answer in answers:
                    yield answer

    def drain(self) -> None:
        """Admit no call from now on: those that come are held until `refuse`."""
        self._draining = True

    def refuse(self) -> None:
        """Answer the calls that are held, and those still to come, with UNAVAILABLE, reason SHUTTING_DOWN."""
        self._refusing.set()

    async def _admit(self) -> None:
        if self._draining:
            self.held += 1
            await self._refusing.wait()
            raise Unavailable("SHUTTING_DOWN", "The server is shutting down. Try again shortly.")


def parse(method: Method, payload: bytes) -> Message:
    """Decode a request. INVALID_ARGUMENT, reason MALFORMED_REQUEST."""
    try:
        return method.request.FromString(payload)
    except DecodeError as error:
        name = method.request.DESCRIPTOR.full_name
        raise InvalidArgument("MALFORMED_REQUEST", f"The request is not a {name} in protobuf encoding.") from error


@contextmanager
def _logged(method: Method, caller: Caller) -> Iterator[None]:
    begun = time.perf_counter()
    told = {"method": method.path, "request_id": caller.request_id}
    try:
        yield
    except RunstreamError as error:
        code = type(error).__name__
        _LOG.info("refused", **told, code=code, reason=error.reason, ms=_since(begun))
        raise
    except Exception as error:
        _LOG.exception("failed", **told, ms=_since(begun))
        raise Internal(
            "INTERNAL",
            f"The server failed; its log has more under request id {caller.request_id}.",
            metadata={"request_id": caller.request_id},
        ) from error
    else:
        _LOG.debug("served", **told, ms=_since(begun))


def _since(begun: float) -> float:
    return round((time.perf_counter() - begun) * 1e3, 3)


def _traceparent(value: str) -> str:
    """Take a W3C trace context of version 00 as it is; anything else is ignored, as W3C asks."""
    parts = value.split("-")
    lengths = [len(part) for part in parts]
    digits = set("0123456789abcdef-")
    return value if lengths == [2, 32, 16, 2] and set(value) <= digits else ""
