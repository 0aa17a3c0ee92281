"""The same for tests that are plain functions: the server runs in a thread, and every method waits for it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from runstream.testing.local import TIMEOUT, local_server
from runstream.testing.serving import CAPACITY

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from typing import Self, Unpack

    from runstream.model.clock import Clock
    from runstream.runner import Agent, AgentFunction, Runner
    from runstream.testing.handle import Handle
    from runstream.testing.local import LocalServer
    from runstream.testing.options import Options
    from runstream.testing.phases import Phase
    from runstream.testing.state import State
    from runstream.v1.agent_execution_pb2 import AgentExecution, ExecutionChange

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread of its own, for the length of a block."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._stopping = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="runstream-testing", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_error: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop, wait for it, and return what it returns."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # when this thread was interrupted

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._started.set()
        await self._stopping.wait()


class SyncHandle:
    """`Handle`, for plain functions; its methods are told there."""

    def __init__(self, handle: Handle, loop: LoopThread) -> None:
        """Wait in this thread for what `handle` does in the thread of `loop`."""
        self.id: str = handle.id
        self._handle = handle
        self._call = loop.call

    def __repr__(self) -> str:
        return f"SyncHandle({self.id})"

    def until(self, what: Phase | int | Callable[[State], bool], within: float | None = None) -> State:
        """Return the state once the execution is in a phase, or once something holds of its state."""
        return self._call(self._handle.until(what, within))

    def until_said(self, text: str, within: float | None = None) -> State:
        """Return the state once some message holds this text."""
        return self._call(self._handle.until_said(text, within))

    def until_attempt(self, attempt: int, within: float | None = None) -> State:
        """Return the state once this attempt, or a later one, has begun."""
        return self._call(self._handle.until_attempt(attempt, within))

    def result(self, within: float | None = None) -> State:
        """Return the state in which the execution has ended, however it did."""
        return self._call(self._handle.result(within))

    def state(self) -> State:
        """Return the state now."""
        return self._call(self._handle.state())

    def changes(self) -> list[ExecutionChange]:
        """Return the log so far, from the first change."""
        return self._call(self._handle.changes())

    def approve(self, tool: str = "", comment: str = "") -> None:
        """Let a tool run, once it waits for approval."""
        self._call(self._handle.approve(tool, comment))

    def approve_all(self, comment: str = "") -> None:
        """Let the tool that waits run, and whatever else waits or asks later."""
        self._call(self._handle.approve_all(comment))

    def skip(self, tool: str = "", comment: str = "") -> None:
        """Have the agent go on without the tool."""
        self._call(self._handle.skip(tool, comment))

    def reject(self, tool: str = "", comment: str = "") -> None:
        """Refuse the tool."""
        self._call(self._handle.reject(tool, comment))

    def answer(self, text: str) -> None:
        """Say this to the agent as soon as it waits for input."""
        self._call(self._handle.answer(text))

    def cancel(self, reason: str = "") -> None:
        """Ask for the end."""
        self._call(self._handle.cancel(reason))

    def terminate(self, reason: str = "") -> None:
        """End it at once."""
        self._call(self._handle.terminate(reason))

    def pause(self, reason: str = "") -> None:
        """Ask for a halt."""
        self._call(self._handle.pause(reason))

    def resume(self, reason: str = "") -> None:
        """Let it go on after a pause."""
        self._call(self._handle.resume(reason))

    def recover(self, reason: str = "") -> None:
        """Let it go on after it has FAILED."""
        self._call(self._handle.recover(reason))


class SyncServer:
    """`LocalServer`, for plain functions; its methods are told there. Made by `local_server_sync`."""

    def __init__(self, server: LocalServer, loop: LoopThread) -> None:
        """Wait in this thread for what `server` does in the thread of `loop`."""
        #: The server itself, for coroutines that `call` runs.
        self.server = server
        self.address: str = server.address
        self.clock: Clock | None = server.clock
        self._loop = loop

    def run(
        self,
        agent: AgentFunction | Agent | str,
        message: str | AgentExecution = "",
        *,
        within: float | None = None,
        **options: Unpack[Options],
    ) -> State:
        """Run an agent, and return the state in which the execution has ended, however it did."""
        return self.call(self.server.run(agent, message, within=within, **options))

    def start(
        self,
        agent: AgentFunction | Agent | str,
        message: str | AgentExecution = "",
        **options: Unpack[Options],
    ) -> SyncHandle:
        """Create an execution, and return a handle on it."""
        return SyncHandle(self.call(self.server.start(agent, message, **options)), self._loop)

    def handle(self, execution_id: str) -> SyncHandle:
        """Return a handle on an execution that was created otherwise."""
        return SyncHandle(self.server.handle(execution_id), self._loop)

    def serve(self, agents: Mapping[str, AgentFunction | Agent], *, capacity: int = CAPACITY) -> Runner:
        """Serve agents by name, all by one runner, until the test ends."""
        return self.call(self.server.serve(agents, capacity=capacity))

    def advance(self, seconds: float) -> None:
        """Let time pass on the manual clock, with the runners alive."""
        self.call(self.server.advance(seconds))

    def lose_runners(self) -> None:
        """Have every runner lose what it holds, as if its process had been killed; then they are back."""
        self.call(self.server.lose_runners())

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of your own in the server's loop, such as one that uses `server.client`."""
        return self._loop.call(work)


@contextmanager
def local_server_sync(
    *,
    clock: Clock | None = None,
    data: Path | None = None,
    timeout: float = TIMEOUT,
    **settings: Any,  # noqa: ANN401  # a setting of any type
) -> Iterator[SyncServer]:
    """Run a server for the length of the block, in a thread; everything else is as with `local_server`."""
    with LoopThread() as loop:
        serving = local_server(clock=clock, data=data, timeout=timeout, **settings)
        server = loop.call(_entered(serving))
        try:
            yield SyncServer(server, loop)
        finally:
            loop.call(_left(serving))


async def _entered(serving: AbstractAsyncContextManager[LocalServer]) -> LocalServer:
    return await serving.__aenter__()


async def _left(serving: AbstractAsyncContextManager[LocalServer]) -> None:
    await serving.__aexit__(None, None, None)
