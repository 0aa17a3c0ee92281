"""The call gate: every call of every transport goes through here. Rules of every wire stand here and nowhere else.

It says who calls, refuses calls while the server drains and calls that are too many, checks requests that no pipeline
checks, has every call counted and logged once, and lets nothing out but errors of our own tree: anything else is logged
with the request id, and only the id goes out.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.message import DecodeError

from runstream.model.errors import InvalidArgument, Unavailable
from runstream.pipeline.context import Caller
from runstream.pipeline.validation import validate
from runstream.transport.admission import Admission, CallLimits
from runstream.transport.passage import Passage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from google.protobuf.message import Message

    from runstream.feed.follow import Started
    from runstream.feed.hub import Offer
    from runstream.transport.call_counts import CallCounts
    from runstream.transport.methods import Method

_LONGEST_REQUEST_ID = 128


class Call(NamedTuple):
    """What a transport knows of a call beside its request: metadata by lower-case name, proven identity, peer."""

    metadata: Mapping[str, str]
    identity: str = ""
    #: Tells the address it comes from; asked only when that counts.
    peer: Callable[[], str] = str


class Gate:
    """Lets calls through to their services. `verbose`: those that are served are logged too."""

    def __init__(
        self, new_request_id: Callable[[], str], admission: Admission | None = None, *, verbose: bool = False
    ) -> None:
        self._new_request_id = new_request_id
        self._admission = admission or Admission(CallLimits(), time.monotonic)
        self._verbose = verbose
        self._draining = False
        self._refusing = asyncio.Event()
        #: How many calls have come since draining began.
        self.held = 0

    def caller(self, call: Call) -> Caller:
        """Say who calls, and take from the metadata what the services use."""
        request_id = call.metadata.get("x-request-id", "")
        if not 0 < len(request_id) <= _LONGEST_REQUEST_ID or not request_id.isprintable():
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
        with Passage(method, payload, caller, verbose=self._verbose):
            if self._draining:
                await self._refuse()
            with self._admission.admit(method, caller.client):
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
        started: Started,
    ) -> AsyncGenerator[Message | bytes, None]:
        """Serve a call with a stream of answers. Raises errors of our tree only.

        `started` may return a way out for answers that come while the stream waits; see `Follower.changes`.
        """

        async def begun() -> Offer | None:
            offer = await started()
            return None if offer is None else partial(_offer_counted, method.counts, offer)

        with Passage(method, payload, caller, verbose=self._verbose):
            if self._draining:
                await self._refuse()
            with self._admission.admit(method, caller.client):
                if method.stream is None:
                    raise LookupError(f"{method.path} does not stream")
                request = parse(method, payload)
                validate(request)
                # Closed at once when the client goes away, so that nobody is woken for it any more.
                async with aclosing(method.stream(request, begun)) as answers:
                    async for answer in answers:
                        method.counts.messages += 1
                        yield answer

    def drain(self) -> None:
        """Admit no call from now on: those that come are held until `refuse`."""
        self._draining = True

    def refuse(self) -> None:
        """Answer the calls that are held, and those still to come, with UNAVAILABLE, reason SHUTTING_DOWN."""
        self._refusing.set()

    async def _refuse(self) -> None:
        """Hold a call that comes while the server drains, then refuse it."""
        self.held += 1
        await self._refusing.wait()
        raise Unavailable("SHUTTING_DOWN", "The server is shutting down. Try again shortly.")


def _offer_counted(counts: CallCounts, offer: Offer, answer: bytes) -> bool:
    taken = offer(answer)
    if taken:
        counts.messages += 1
        counts.bytes_out += len(answer)
    return taken


def parse(method: Method, payload: bytes) -> Message:
    """Decode a request. INVALID_ARGUMENT, reason MALFORMED_REQUEST."""
    try:
        return method.request.FromString(payload)
    except DecodeError as error:
        name = method.request.DESCRIPTOR.full_name
        raise InvalidArgument("MALFORMED_REQUEST", f"The request is not a {name} in protobuf encoding.") from error


def _traceparent(value: str) -> str:
    """Take a W3C trace context of version 00 as it is; anything else is ignored, as W3C asks."""
    if not value:
        return ""
    parts = value.split("-")
    lengths = [len(part) for part in parts]
    digits = set("0123456789abcdef-")
    return value if lengths == [2, 32, 16, 2] and set(value) <= digits else ""
