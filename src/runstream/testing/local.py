"""The local server: a real one on a temporary folder, in the test's own loop."""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runstream.runner.pool.checks import pools_checked
from runstream.server import Server
from runstream.settings import Settings
from runstream.testing.client import Client
from runstream.testing.clock import ManualClock
from runstream.testing.handle import Handle
from runstream.testing.leases import Leases
from runstream.testing.options import request
from runstream.testing.quiet import quiet
from runstream.testing.serving import CAPACITY, Serving
from runstream.v1.resource_pb2 import API_RESOURCE_KIND_AGENT, ResourceReference

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from typing import Unpack

    from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

    from runstream.model.clock import Clock
    from runstream.runner import Agent, AgentFunction, Runner
    from runstream.testing.options import Options
    from runstream.testing.state import State
    from runstream.v1.agent_execution_pb2 import AgentExecution

#: How long a test waits, in seconds, unless told otherwise. Nothing takes so long.
TIMEOUT: Final = 10.0
#: With a manual clock, leases last as long as they can: time then passes in few steps, and runners need not hurry.
_LEASE_SECONDS: Final = 3_600.0
_BEATS_PER_LEASE: Final = 3
#: The clients have gone by then; a fiftieth of it is waited in vain.
_DRAIN_SECONDS: Final = 0.5


class LocalServer:
    """A server for tests. Made by `local_server`."""

    def __init__(self, server: Server, client: Client, settings: Settings, clock: Clock | None, timeout: float) -> None:
        """Take what runs already."""
        self.address: str = server.address
        #: The generated stubs, for what is not offered here.
        self.client = client
        #: The server's settings.
        self.settings = settings
        #: The clock it was given; None for the machine's.
        self.clock = clock
        self._timeout = timeout
        self._serving = Serving(server.address, timeout)
        self._leases = Leases(client, self._serving)

    async def run(
        self,
        agent: AgentFunction | Agent | str,
        message: str | AgentExecution = "",
        *,
        within: float | None = None,
        **options: Unpack[Options],
    ) -> State:
        """Run an agent, and return the state in which the execution has ended, however it did.

        The agent is a function, an `Agent`, or the name of one that the server knows; a function is served from its
        first use to the end of the test. Raises `NotReached` when it has not ended in time.
        """
        handle = await self.start(agent, message, **options)
        return await handle.result(within)

    async def start(
        self,
        agent: AgentFunction | Agent | str,
        message: str | AgentExecution = "",
        **options: Unpack[Options],
    ) -> Handle:
        """Create an execution, as `run` does, and return a handle on it."""
        slug = agent if isinstance(agent, str) else await self._serving.slug_of(agent, options.get("name", ""))
        reference = ResourceReference(kind=API_RESOURCE_KIND_AGENT, slug=slug)
        known = await self.client.agent_queries.GetByReference(reference)
        made = await self.client.executions.Create(request(message, known.metadata.id, options))
        return self.handle(made.metadata.id)

    def handle(self, execution_id: str) -> Handle:
        """Return a handle on an execution that was created otherwise, such as a sub-execution."""
        return Handle(self.client, execution_id, self._timeout)

    async def serve(self, agents: Mapping[str, AgentFunction | Agent], *, capacity: int = CAPACITY) -> Runner:
        """Serve agents by name, all by one runner, until the test ends; for several that know each other by name.

        On return the server knows them and has the runner attached. Raises `RunnerRefused`.
        """
        return await self._serving.serve(agents, capacity)

    async def advance(self, seconds: float) -> None:
        """Let time pass on the manual clock, with the runners alive. Whatever falls due happens soon after.

        TypeError when the server has no manual clock.
        """
        if not isinstance(self.clock, ManualClock):
            raise TypeError("only a server with a ManualClock lets time pass: local_server(clock=ManualClock())")
        await self._leases.beat()
        while seconds > 0:
            step = min(seconds, self.settings.lease_duration / _BEATS_PER_LEASE)
            self.clock.advance(step)
            await self._leases.beat()
            seconds -= step

    async def lose_runners(self) -> None:
        """Have every runner lose what it holds, as if its process had been killed; then they are back. Takes no time.

        On return, the next attempt of all that was at work begins, or it has FAILED with RUNNER_LOST; what waits for a
        person waits on, and its next attempt begins with the answer.
        """
        await self._leases.lose(self._timeout)

    async def close(self) -> None:
        """Stop the runners; what their agents are doing is given back."""
        await self._serving.stop()


@asynccontextmanager
async def local_server(
    *,
    clock: Clock | None = None,
    data: Path | None = None,
    timeout: float = TIMEOUT,  # noqa: ASYNC109  # of what is done inside
    check_pools: bool = True,
    **settings: Any,  # noqa: ANN401  # a setting of any type
) -> AsyncIterator[LocalServer]:
    """Run a server for the length of the block, in this loop, on a free port of this machine.

    With a `ManualClock` as its clock, nothing falls due before the test says so. `data` is a folder to keep, a
    temporary one unless given. `timeout` is how long, in seconds, what waits waits by default. With `check_pools`, an
    agent of an `AgentPool` that changes itself fails what it is working on. The `settings` are those of
    `runstream.settings.Settings`; the environment sets none.
    """
    settings.setdefault("retry_backoff", 0)
    settings.setdefault("drain_timeout", _DRAIN_SECONDS)
    if isinstance(clock, ManualClock):
        settings.setdefault("lease_duration", _LEASE_SECONDS)
    async with AsyncExitStack() as stack:
        stack.enter_context(quiet())
        if check_pools:
            stack.enter_context(pools_checked())
        folder = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runstream-")))
        given = _GivenSettings(listen="127.0.0.1:0", data=folder, **settings)
        server = await Server.start(given, clock)
        stack.push_async_callback(server.stop)
        client = Client(server.address)
        stack.push_async_callback(client.close)
        local = LocalServer(server, client, given, clock, timeout)
        stack.push_async_callback(local.close)
        yield local


class _GivenSettings(Settings):
    """Settings as they are given; a developer's environment does not change what is tested."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what the constructor is given, and nothing else."""
        _ = settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)
