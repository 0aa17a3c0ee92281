"""The runner service: Attach, Heartbeat, Detach."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from runstream.dispatch.runners import RunnerStream
from runstream.model.errors import Aborted
from runstream.model.times import to_duration, to_timestamp
from runstream.services.runners.directives import complete, is_held, lost, outstanding
from runstream.storage.records import EXECUTION_HEAD
from runstream.v1.runner_pb2 import (
    DetachResponse,
    DrainCommand,
    HeartbeatResponse,
    Hello,
    Ping,
    RunnerCommand,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

    from runstream.dispatch.dispatcher import Dispatcher
    from runstream.dispatch.runners import Runner
    from runstream.model.errors import RunstreamError
    from runstream.services.runners.assignments import Assignments
    from runstream.services.runners.directives import Mark
    from runstream.services.wiring import Wiring
    from runstream.storage.store import Store
    from runstream.v1.runner_pb2 import AttachRequest, DetachRequest, HeartbeatRequest, Held

_LOG = structlog.get_logger(__name__)

#: How many heartbeats fit into a lease: two may get lost.
BEATS_PER_LEASE = 3
_SLACK = 64
#: How much of what a runner says of itself is logged: no line is as long as a request may be.
_LOGGED_AGENTS = 50
_LOGGED_TEXT = 100
#: After how many executions others get their turn on the event loop.
_TURN = 256


class RunnerService:
    """Serves runners."""

    def __init__(self, wiring: Wiring, dispatcher: Dispatcher, assignments: Assignments, lease_seconds: float) -> None:
        self._store = wiring.store
        self._clock = wiring.clock
        self._dispatcher = dispatcher
        self._assignments = assignments
        self._lease_seconds = lease_seconds
        self._draining: RunstreamError | None = None

    async def attach(
        self, request: AttachRequest, started: Callable[[], Awaitable[None]]
    ) -> AsyncGenerator[RunnerCommand, None]:
        """Yield what the runner is to do, as it comes; end when another stream of it begins, or the server stops."""
        runner = self._dispatcher.renew(request.runner_id)
        stream = RunnerStream(request.capacity, frozenset(request.agents), request.org)
        told = {"runner": request.runner_id, "capacity": request.capacity, "held": len(request.held)}
        labels = {key[:_LOGGED_TEXT]: value[:_LOGGED_TEXT] for key, value in request.labels.items()}
        _LOG.info("runner_attached", **told, agents=list(request.agents[:_LOGGED_AGENTS]), labels=labels)
        if runner.stream is not None:
            runner.stream.end(_replaced(runner.id))
        if self._draining is not None:
            stream.end(self._draining)
        runner.stream = stream
        try:
            await started()
            async for command in self._commands(runner, stream, request):
                yield command
        finally:
            if runner.stream is stream:
                runner.stream = None
                if runner.expired:  # its lease has ended while the stream was open: no end of one will forget it
                    self._dispatcher.runners.forget(runner)
                self._dispatcher.wake()

    async def heartbeat(self, request: HeartbeatRequest) -> HeartbeatResponse:
        """Renew the lease, and answer with what is asked of what the runner holds."""
        runner = self._dispatcher.renew(request.runner_id)
        answer = HeartbeatResponse()
        for number, held in enumerate(request.held, start=1):
            if number % _TURN == 0:
                await asyncio.sleep(0)
            self._dispatcher.hear(runner, held)
            head = await self._store.durable.shared(EXECUTION_HEAD, held.execution_id)
            if head is None or not is_held(head, runner.id, held.attempt):
                answer.commands.append(lost(held.execution_id, held.attempt, head))
                continue
            for _, command in outstanding(held.execution_id, head, taken=held.revision):
                answer.commands.append(await complete(self._store, command))
        await self._take_back_undelivered(runner)
        return answer

    async def detach(self, request: DetachRequest) -> DetachResponse:
        """Queue again what the runner holds, at once."""
        runner = self._dispatcher.runners.get(request.runner_id)
        if runner is not None:
            await self._dispatcher.take_back(runner, list(runner.held), lost=False)
        return DetachResponse()

    def drain(self, error: RunstreamError) -> None:
        """Assign nothing more; end every stream with `error`."""
        self._draining = error
        for runner in self._dispatcher.runners:
            if runner.stream is not None:
                runner.stream.end(error)

    async def _commands(
        self, runner: Runner, stream: RunnerStream, request: AttachRequest
    ) -> AsyncGenerator[RunnerCommand, None]:
        yield self._hello()
        async for command in self._reconcile(runner, request.held):
            yield command
        sender = _Sender(runner, stream, self._store, self._assignments)
        for held in request.held:  # the others were told already
            holding = runner.held.get(held.execution_id)
            if holding is not None and holding.attempt == held.attempt:
                stream.changed[held.execution_id] = held.attempt
        sender.taken = {held.execution_id: held.revision for held in request.held}
        interval, said = self._lease_seconds / BEATS_PER_LEASE, self._clock.monotonic()
        while stream.ended is None:
            stream.flag.clear()
            async for command in sender.send():
                said = self._clock.monotonic()
                yield command
            # Counted from the last command, not from the last wake: work that is reported wakes, and says nothing here.
            left = said + interval - self._clock.monotonic()
            if left <= 0:
                said, left = self._clock.monotonic(), interval
                yield RunnerCommand(ping=Ping(server_time=to_timestamp(self._clock.now())))
            if not stream.flag.is_set():
                await self._clock.wait(stream.flag, left)
        if stream.ended is self._draining:
            yield RunnerCommand(drain=DrainCommand(reason="SHUTTING_DOWN"))
        raise stream.ended

    async def _reconcile(self, runner: Runner, held: Iterable[Held]) -> AsyncGenerator[RunnerCommand, None]:
        """Bring together what the runner says it holds and what it does hold: neither has more than the other."""
        named = {entry.execution_id: entry for entry in held}
        missing = [
            execution_id
            for execution_id, holding in runner.held.items()
            if execution_id not in named or named[execution_id].attempt != holding.attempt
        ]
        for number, entry in enumerate(named.values(), start=1):
            if number % _TURN == 0:
                await asyncio.sleep(0)
            self._dispatcher.hear(runner, entry)
            head = await self._store.durable.shared(EXECUTION_HEAD, entry.execution_id)
            if not is_held(head, runner.id, entry.attempt):
                yield lost(entry.execution_id, entry.attempt, head)
        # What was assigned on this stream is on its way.
        stream = runner.stream
        unsent = stream.assigned if stream is not None else {}
        await self._dispatcher.take_back(runner, [each for each in missing if each not in unsent])

    async def _take_back_undelivered(self, runner: Runner) -> None:
        """Queue again what the runner should hold and has not named for a whole lease: it does not know of it."""
        before = self._clock.monotonic() - self._lease_seconds
        unknown = [execution_id for execution_id, holding in runner.held.items() if holding.seen < before]
        if runner.stream is not None and any(not runner.held[each].named for each in unknown):
            # What it is sent does not reach it: it gets nothing until it attaches anew.
            runner.stream.end(_stalled(runner.id))
        await self._dispatcher.take_back(runner, unknown)

    def _hello(self) -> RunnerCommand:
        return RunnerCommand(
            hello=Hello(
                lease_duration=to_duration(self._lease_seconds),
                heartbeat_interval=to_duration(self._lease_seconds / BEATS_PER_LEASE),
                server_time=to_timestamp(self._clock.now()),
            )
        )


class _Sender:
    """Turns what a stream has to look at into commands, each directive once."""

    def __init__(self, runner: Runner, stream: RunnerStream, store: Store, assignments: Assignments) -> None:
        self._runner = runner
        self._stream = stream
        self._store = store
        self._assignments = assignments
        #: The newest input that the runner said it has, by execution.
        self.taken: dict[str, int] = {}
        self._sent: dict[str, set[Mark]] = {}

    async def send(self) -> AsyncGenerator[RunnerCommand, None]:
        """Yield commands for everything that there is to look at now."""
        if len(self._sent) > 2 * len(self._runner.held) + _SLACK:  # mostly of executions that have ended
            self._sent = {each: marks for each, marks in self._sent.items() if each in self._runner.held}
        for execution_id, attempt in _drain(self._stream.changed):
            async for command in self._directives(execution_id, attempt):
                yield command
        # Assignments go out one by one, so that what is asked of the first need not wait for the last.
        for execution_id in list(self._stream.assigned):
            attempt = self._stream.assigned.get(execution_id, 0)
            assignment = await self._assignments.make(execution_id, self._runner.id, attempt)
            if self._stream.assigned.get(execution_id) != attempt:
                continue  # taken back meanwhile
            del self._stream.assigned[execution_id]
            if assignment is not None:
                self._sent.pop(execution_id, None)
                self.taken.pop(execution_id, None)
                yield assignment
                self._stream.changed[execution_id] = attempt
                self._stream.flag.set()

    async def _directives(self, execution_id: str, attempt: int) -> AsyncGenerator[RunnerCommand, None]:
        head = await self._store.durable.shared(EXECUTION_HEAD, execution_id)
        if head is None or not is_held(head, self._runner.id, attempt):
            self._sent.pop(execution_id, None)
            self.taken.pop(execution_id, None)
            yield lost(execution_id, attempt, head)
            return
        sent = self._sent.setdefault(execution_id, set())
        for mark, command in outstanding(execution_id, head, taken=self.taken.get(execution_id, 0)):
            if mark not in sent:
                sent.add(mark)
                yield await complete(self._store, command)


def _drain(changed: dict[str, int]) -> Iterable[tuple[str, int]]:
    """Take everything out, oldest first, also what comes in meanwhile."""
    while changed:
        execution_id = next(iter(changed))
        yield execution_id, changed.pop(execution_id)


def _replaced(runner_id: str) -> Aborted:
    return Aborted(
        "RUNNER_REPLACED",
        f"Another stream of runner {runner_id!r} began. Every process needs a name of its own.",
        metadata={"runner_id": runner_id},
    )


def _stalled(runner_id: str) -> Aborted:
    return Aborted(
        "STREAM_STALLED",
        f"Runner {runner_id!r} has not named for a whole lease what it was assigned on this stream. Attach again.",
        metadata={"runner_id": runner_id},
    )
