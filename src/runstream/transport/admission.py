"""Admission: how many calls and streams may be under way, in all and of one client, and how often a client may call.

What runners call about themselves, `RunnerController`, is counted apart, under the same numbers, and against no client:
whatever others do, a runner can attach, renew its leases and give back what it holds. Health and reflection are not
counted, since they do not come through the gate.

A client is the name in its certificate, else the address it calls from, without the port.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runstream.transport.clients import Clients
from runstream.transport.tally import Counted, Tally

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from runstream.transport.gate import Call
    from runstream.transport.methods import Method

CALLS: Final = Counted(
    "max_calls",
    "TOO_MANY_CALLS",
    "calls in flight, as many as it takes at a time.",
    retry_after=0.1,
)
STREAMS: Final = Counted(
    "max_streams",
    "TOO_MANY_STREAMS",
    "streams open, as many as it keeps.",
    retry_after=1,
)
_RUNNERS: Final = "runstream.v1.RunnerController"


@dataclass(frozen=True, slots=True)
class CallLimits:
    """The limits of calls; 0 is none. `client_burst` counts only with a `client_rate`, in calls per second."""

    max_calls: int = 0
    max_streams: int = 0
    max_calls_per_client: int = 0
    max_streams_per_client: int = 0
    client_rate: float = 0
    client_burst: int = 1

    @property
    def per_client(self) -> bool:
        """Whether anything is counted of each client."""
        return bool(self.max_calls_per_client or self.max_streams_per_client or self.client_rate)


class Admission:
    """Gives each call its place, or refuses it."""

    def __init__(self, limits: CallLimits, monotonic: Callable[[], float]) -> None:
        """Count by `limits`; `monotonic` tells the time in seconds."""
        self.calls = Tally(CALLS, limits.max_calls)
        self.streams = Tally(STREAMS, limits.max_streams)
        self.runner_calls = Tally(CALLS, limits.max_calls)
        self.runner_streams = Tally(STREAMS, limits.max_streams)
        #: None when nothing is counted of single clients.
        self.clients = Clients(limits, monotonic) if limits.per_client else None

    def client(self, call: Call) -> str:
        """Return whom a call is counted for; empty when nothing is counted of single clients."""
        if self.clients is None:
            return ""
        return call.identity or _without_port(call.peer())

    def admit(self, method: Method, client: str) -> AbstractContextManager[object]:
        """Take a place for a call, and return the block it is taken for, which gives it back at its end.

        Raises `ResourceExhausted`, and takes no place then: reasons TOO_MANY_CALLS, TOO_MANY_STREAMS, and those of
        `Clients.take`.
        """
        stream = method.stream is not None
        if method.service == _RUNNERS:
            own = self.runner_streams if stream else self.runner_calls
            own.check()
            return own.take()
        tally = self.streams if stream else self.calls
        tally.check()
        if self.clients is None:
            return tally.take()
        return self.clients.take(client, tally, stream=stream)


def _without_port(peer: str) -> str:
    """Return the address of a peer as gRPC names it: ipv4:127.0.0.1:7400, ipv6:%5B::1%5D:7400, unix:/a/path."""
    host, colon, port = peer.rpartition(":")
    return host if colon and port.isdecimal() else peer
