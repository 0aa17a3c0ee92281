"""Clients: what each client has under way, and how often it may still call; only as long as that matters."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from runstream.model.errors import ResourceExhausted
from runstream.transport.bucket import Bucket
from runstream.transport.tally import Counted, Tally

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from runstream.transport.admission import CallLimits

CLIENT_CALLS: Final = Counted(
    "max_calls_per_client",
    "TOO_MANY_CLIENT_CALLS",
    "calls in flight, as many as one client may; send fewer at a time.",
    retry_after=0.1,
)
CLIENT_STREAMS: Final = Counted(
    "max_streams_per_client",
    "TOO_MANY_CLIENT_STREAMS",
    "streams open, as many as one client may; end one to open another.",
    retry_after=1,
)
#: How many clients are remembered that have nothing under way; of more, those that came longest ago are forgotten.
MOST_REMEMBERED: Final = 100_000
_LEAST_WAIT: Final = 0.001


class Client:
    """One client's calls in flight, open streams, and tokens."""

    __slots__ = ("bucket", "calls", "name", "streams")

    def __init__(self, name: str, limits: CallLimits, now: float) -> None:
        self.name = name
        self.calls = Tally(CLIENT_CALLS, limits.max_calls_per_client)
        self.streams = Tally(CLIENT_STREAMS, limits.max_streams_per_client)
        self.bucket = Bucket(limits.client_rate, limits.client_burst, now) if limits.client_rate else None

    @property
    def busy(self) -> bool:
        """Whether something of it is under way."""
        return bool(self.calls.count or self.streams.count)

    def untouched(self, now: float) -> bool:
        """Whether nothing would change if it were forgotten."""
        return not self.busy and (self.bucket is None or self.bucket.full(now))


class Clients:
    """The clients that have something under way, or have called lately. The memory of the others is given back."""

    def __init__(self, limits: CallLimits, monotonic: Callable[[], float], most: int = MOST_REMEMBERED) -> None:
        self._limits = limits
        self._monotonic = monotonic
        self._most = most
        #: The one that was looked at longest ago first.
        self._known: OrderedDict[str, Client] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def take(self, name: str, overall: Tally, *, stream: bool) -> AbstractContextManager[object]:
        """Take a place of a client's own and one in `overall`, which must have been checked.

        Raises `ResourceExhausted`, and takes nothing then: reasons TOO_MANY_CLIENT_CALLS, TOO_MANY_CLIENT_STREAMS,
        CLIENT_RATE_EXCEEDED.
        """
        now = self._monotonic()
        client = self._find(name, now)
        tally = client.streams if stream else client.calls
        tally.check(name)
        wait = 0.0 if client.bucket is None else client.bucket.take(now)
        if wait > 0:
            raise self._too_often(name, wait)
        places = ExitStack()
        places.enter_context(tally.take())
        places.enter_context(overall.take())
        return places

    def _find(self, name: str, now: float) -> Client:
        client = self._known.get(name)
        if client is None:
            # Two are looked at for each that comes: so those that can be forgotten never add up.
            self._look_at_oldest(now)
            self._look_at_oldest(now)
            client = self._known[name] = Client(name, self._limits, now)
        return client

    def _look_at_oldest(self, now: float) -> None:
        """Forget the client that was looked at longest ago, or let it be looked at last."""
        if not self._known:
            return
        name, client = next(iter(self._known.items()))
        if client.untouched(now) or (len(self._known) >= self._most and not client.busy):
            del self._known[name]
        else:
            self._known.move_to_end(name)

    def _too_often(self, name: str, wait: float) -> ResourceExhausted:
        rate, seconds = self._limits.client_rate, max(wait, _LEAST_WAIT)
        return ResourceExhausted(
            "CLIENT_RATE_EXCEEDED",
            f"Client {name!r} calls more than {rate:g} times a second; try again in {seconds:.3f} s.",
            metadata={"client": name, "limit": f"{rate:g}", "setting": "client_rate"},
            retry_after=seconds,
        )
