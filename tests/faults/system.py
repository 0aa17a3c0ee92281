"""A running system that faults strike: a server, runners and people at work, and the paths between them."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from grpc import aio

from tests.end_to_end.blocked import BlockedPath, path_to
from tests.end_to_end.storm import Storm
from tests.faults.faulty_server import FaultyServer
from tests.process import CHANNEL_OPTIONS
from tests.serving import Client

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path
    from random import Random

#: How long a runner's lease is.
LEASE: Final = 0.8
#: No execution comes near it, even when the wall clock is a day off over a restart.
_DEADLINE_SECONDS: Final = 30 * 86_400
#: What stands in whatever the server logs of a disk that refuses a write, and of what fails by that.
_REFUSED: Final = (
    "a write to the data folder failed",
    "It could not be written",
    "The data folder does not take writes",
)
#: As other clients; but a connection may take a while to come about, on a machine that is as busy as this makes it.
_CHANNEL_OPTIONS: Final = [
    (name, 2_000 if name == "grpc.min_reconnect_backoff_ms" else value) for name, value in CHANNEL_OPTIONS
]
#: So few places that some executions are always queued.
_RUNNER: Final = {"pace": 0.02, "capacity": 3}


@dataclass(slots=True)
class System:
    """What there is to be struck."""

    server: FaultyServer
    storm: Storm
    #: The paths by which people and runners call the server.
    to_people: BlockedPath
    to_runners: BlockedPath
    random: Random

    @property
    def tally(self) -> Counter[str]:
        """What was done to it, counted."""
        return self.storm.tally


@asynccontextmanager
async def system(
    data: Path,
    random: Random,
    *,
    runners: int = 3,
    environment: Mapping[str, str] | None = None,
    tally: Counter[str] | None = None,
) -> AsyncIterator[System]:
    """Let a server and runners work for the length of the block; nothing of them is left behind it."""
    settings: dict[str, Any] = {"lease_duration": LEASE, "retry_backoff": 0.02, "cancel_grace": 2, "drain_timeout": 1}
    server = FaultyServer(data, environment=environment, **settings)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.stop)
        await server.start()
        to_people = await stack.enter_async_context(path_to(server.address))
        to_runners = await stack.enter_async_context(path_to(server.address))
        channel = aio.insecure_channel(to_people.address, options=_CHANNEL_OPTIONS)
        stack.push_async_callback(channel.close)
        storm = Storm(server, Client(to_people.address, channel), random, **_RUNNER)
        stack.push_async_callback(storm.stop)
        storm.tally = storm.tally if tally is None else tally
        storm.runner_address = to_runners.address
        storm.deadline_seconds = _DEADLINE_SECONDS
        storm.expected_errors = _REFUSED
        await storm.prepare(runners)
        yield System(server, storm, to_people, to_runners, random)
