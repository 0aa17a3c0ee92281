"""Bridge: from the threads of plain functions to the runner's loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Self

T = TypeVar("T")


class Bridge:
    """Lets threads wait for what the loop does, until the agent is stopped."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None, above: Bridge | None = None) -> None:
        """Lead to `loop`, or to the one from which a thread is started first.

        A bridge of a part of the work has the bridge of the whole `above` it, whose threads are its own, too.
        """
        self._loop = loop
        self._waiting: set[concurrent.futures.Future[Any]] = set()
        self._stopped = False
        self._above = above
        self._below: weakref.WeakSet[Bridge] = weakref.WeakSet()
        if above is not None:
            above.lead_to(self)
        #: How many threads are at work, also after they were stopped: a thread cannot be interrupted.
        self._threads = 0
        self._when_left: list[Callable[[], None]] = []

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop, wait for it in this thread, and return what it returns.

        Raises `asyncio.CancelledError` once the agent has been stopped.
        """
        loop = self._loop
        if self._has_stopped() or loop is None or _runs_here(loop):
            work.close()
            if self._has_stopped():
                raise asyncio.CancelledError
            raise RuntimeError("wait is for plain functions in their thread; here, await")
        future = asyncio.run_coroutine_threadsafe(work, loop)
        self._waiting.add(future)
        if self._has_stopped():  # meanwhile
            future.cancel()
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise asyncio.CancelledError from None
        finally:
            self._waiting.discard(future)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Stop, if what was done in the block did not end well: a thread of it may be left."""
        if error is not None:
            self.stop()

    def stop(self) -> None:
        """End every `wait`, now and from now on: the runner has stopped the agent."""
        self._stopped = True
        for future in tuple(self._waiting):
            future.cancel()
        if self._below:
            for bridge in tuple(self._below):
                bridge.stop()

    def when_left(self, call: Callable[[], None]) -> None:
        """Call something once no thread is at work: at once, or on the loop when the last one has ended."""
        if self._threads:
            self._when_left.append(call)
        else:
            call()

    def lead_to(self, bridge: Bridge) -> None:
        """Have a bridge of a part of the work stop with this one."""
        self._below.add(bridge)
        if self._stopped:
            bridge.stop()

    def begin_thread(self) -> None:
        """Count a thread that is at work."""
        self._threads += 1
        if self._above is not None:
            self._above.begin_thread()

    def end_thread(self) -> None:
        """Count it no more; called on the loop."""
        self._threads -= 1
        if not self._threads:
            calls, self._when_left = self._when_left, []
            for call in calls:
                call()
        if self._above is not None:
            self._above.end_thread()

    async def in_thread(self, body: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401  # whatever it returns
        """Call a function in a thread of its own, which keeps neither others nor the end of the process waiting.

        It sees the context variables of whoever calls this.
        """
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        future: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def settle(result: object, error: BaseException | None) -> None:
            self.end_thread()
            if future.done():
                return  # stopped meanwhile: what comes late does not count
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def run() -> None:
            result: object = None
            error: BaseException | None = None
            try:
                result = context.run(body, *arguments)
            except StopIteration as raised:  # a future cannot hold one
                error = RuntimeError(f"the function raised {raised!r}")
            except BaseException as raised:  # noqa: BLE001  # it is raised where the thread is awaited
                error = raised
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle, result, error)

        self.begin_thread()
        threading.Thread(target=run, name="runstream-agent", daemon=True).start()
        return await future

    def _has_stopped(self) -> bool:
        """Tell whether the agent was stopped; it may be at any time, on another thread than the one that asks."""
        return self._stopped


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
