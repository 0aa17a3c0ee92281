"""Dispatch under all that can happen to it, in any order: nothing is ever stuck, doubled or written behind a fence.

A real server on a folder, real streams over loopback, and a clock that only the test moves.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpc import aio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runstream.model.phases import TERMINAL, WAITING
from runstream.storage.records import AGENT_EXECUTION, EXECUTION_HEAD
from runstream.storage.store import Query, Transaction
from runstream.v1.agent_execution_pb2 import (
    CONTROL_CANCEL,
    CONTROL_PAUSE,
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_WAITING_FOR_INPUT,
)
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    PauseAgentExecutionInput,
    RecoverAgentExecutionInput,
    ResumeAgentExecutionInput,
    SubmitInputInput,
    TerminateAgentExecutionInput,
)
from runstream.v1.resource_pb2 import ResourceId
from runstream.v1.runner_pb2 import AttachRequest, DetachRequest, HeartbeatRequest, Held, RunnerCommand
from runstream.v1.runner_pb2_grpc import RunnerControllerStub
from tests.clock import FakeClock
from tests.making import agent, delta, execution
from tests.process import ROUNDS
from tests.serving import Refusal, Serving, serving

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from runstream.stored.v1.stored_pb2 import ExecutionHead

LEASE = 15.0
RUNNERS = ("ann", "bob")
STALE = {"STALE_ATTEMPT", "EXECUTION_TERMINAL", "AGENT_EXECUTION_NOT_FOUND"}
Place = st.integers(0, 9)


class ModelRunner:
    """What a runner knows of itself: what it was given and not told that it lost."""

    def __init__(self, runner_id: str) -> None:
        self.id = runner_id
        self.held: dict[str, int] = {}
        #: Executions and attempts of which it says that they wait for their sub-executions, and of which it ever did.
        self.waiting: set[tuple[str, int]] = set()
        self.ever_waiting: set[tuple[str, int]] = set()
        self.stream: aio.UnaryStreamCall[AttachRequest, RunnerCommand] | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def names(self) -> list[Held]:
        """What it holds, as it says it."""
        return [
            Held(execution_id=each, attempt=attempt, waiting=(each, attempt) in self.waiting)
            for each, attempt in self.held.items()
        ]

    def turn(self, execution_id: str) -> None:
        """Wait for the sub-executions of something that it holds, or wait no more."""
        named = (execution_id, self.held[execution_id])
        self.waiting ^= {named}
        self.ever_waiting.add(named)

    async def attach(self, channel: aio.Channel, capacity: int) -> None:
        """Open a stream and read it in the background, once it has said hello."""
        await self.cut()
        request = AttachRequest(runner_id=self.id, capacity=capacity, held=self.names)
        self.stream = RunnerControllerStub(channel).Attach(request)
        assert isinstance(await self.stream.read(), RunnerCommand)
        self._reading = asyncio.create_task(self._read(self.stream))

    async def cut(self) -> None:
        """End the stream, if there is one."""
        if self.stream is not None:
            self.stream.cancel()
            assert self._reading is not None
            with suppress(asyncio.CancelledError, aio.AioRpcError):
                await self._reading
            self.stream = None

    def take(self, command: RunnerCommand) -> None:
        """Learn from a command."""
        kind = command.WhichOneof("command")
        if kind == "assign":
            execution_id = command.assign.execution.metadata.id
            assert self.held.get(execution_id, 0) < command.assign.attempt
            self.held[execution_id] = command.assign.attempt
        elif kind == "lost" and self.held.get(command.lost.execution_id) == command.lost.attempt:
            del self.held[command.lost.execution_id]

    async def _read(self, stream: aio.UnaryStreamCall[AttachRequest, RunnerCommand]) -> None:
        with suppress(asyncio.CancelledError, aio.AioRpcError):
            while isinstance(command := await stream.read(), RunnerCommand):
                self.take(command)


class DispatchMachine(RuleBasedStateMachine):
    """Clients, runners, time and crashes, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="runstream-dispatch-"))
        self.clock = FakeClock()
        self.ids: list[str] = []
        self.attempts: dict[str, int] = {}
        self.ended: dict[str, int] = {}
        self.runners = [ModelRunner(name) for name in RUNNERS]
        self.stack = AsyncExitStack()
        self.served: Serving
        self.agent_id = ""

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401
        """Do something, then let everything that follows from it happen."""
        return self.loop.run_until_complete(self._and_settle(work))

    @initialize(resumes=st.booleans(), max_attempts=st.integers(1, 3))
    def start(self, resumes: bool, max_attempts: int) -> None:  # noqa: FBT001
        """Start a server with one agent."""

        async def begin() -> None:
            await self._serve()
            request = agent()
            request.spec.resume_attempts = resumes
            request.spec.max_attempts = max_attempts
            self.agent_id = (await self.served.client.agents.Create(request)).metadata.id

        self.run(begin())

    @rule(in_session=st.booleans(), at=Place)
    def create(self, in_session: bool, at: int) -> None:  # noqa: FBT001
        """Create an execution, perhaps in the session of another."""

        async def make() -> None:
            head = await self._head(at) if in_session else None
            session_id = head.session_id if head is not None else ""
            request = execution(agent_id=self.agent_id, session_id=session_id)
            self.ids.append((await self.served.client.executions.Create(request)).metadata.id)

        self.run(make())

    @rule(which=st.sampled_from(range(len(RUNNERS))), capacity=st.integers(1, 3))
    def attach(self, which: int, capacity: int) -> None:
        """Attach a runner, or attach it again, naming what it holds."""
        self.run(self.runners[which].attach(self.served.client.channel, capacity))

    @rule(which=st.sampled_from(range(len(RUNNERS))))
    def forget(self, which: int) -> None:
        """Let a runner's process begin anew: it holds nothing and has no stream."""
        self.run(self.runners[which].cut())
        self.runners[which].held.clear()

    @rule(which=st.sampled_from(range(len(RUNNERS))))
    def cut(self, which: int) -> None:
        """Cut a stream."""
        self.run(self.runners[which].cut())

    @rule(which=st.sampled_from(range(len(RUNNERS))))
    def heartbeat(self, which: int) -> None:
        """Send a heartbeat."""
        self.run(self._beat(self.runners[which]))

    @rule(which=st.sampled_from(range(len(RUNNERS))), at=Place, at_once=st.booleans())
    def wait(self, which: int, at: int, at_once: bool) -> None:  # noqa: FBT001
        """Begin or end to wait for sub-executions, and say so at once or when there is an occasion."""
        runner = self.runners[which]
        if runner.held:
            runner.turn(sorted(runner.held)[at % len(runner.held)])
            if at_once:
                self.run(self._beat(runner))

    @rule(which=st.sampled_from(range(len(RUNNERS))))
    def detach(self, which: int) -> None:
        """Give everything back."""
        stub = RunnerControllerStub(self.served.client.channel)
        self.run(self._call(stub.Detach, DetachRequest(runner_id=self.runners[which].id)))

    @rule(seconds=st.sampled_from([1.0, 6.0, LEASE + 1, 61.0]))
    def let_time_pass(self, seconds: float) -> None:
        """Move both clocks."""
        self.clock.advance(seconds)
        self.run(asyncio.sleep(0))

    @rule(minute=st.integers(0, 59))
    def jump(self, minute: int) -> None:
        """Let the wall clock jump."""
        self.clock.set_now(self.clock.now().replace(minute=minute))

    @precondition(lambda self: any(runner.held for runner in self.runners))
    @rule(
        which=st.sampled_from(range(len(RUNNERS))),
        at=Place,
        phase=st.sampled_from(
            [
                EXECUTION_IN_PROGRESS,
                EXECUTION_COMPLETED,
                EXECUTION_FAILED,
                EXECUTION_CANCELLED,
                EXECUTION_PAUSED,
                EXECUTION_WAITING_FOR_INPUT,
            ]
        ),
    )
    def report(self, which: int, at: int, phase: Any) -> None:  # noqa: ANN401
        """Report a phase of something that a runner believes to hold: taken if it does, else refused."""
        runner = self.runners[which]
        if not runner.held:
            return
        execution_id = sorted(runner.held)[at % len(runner.held)]
        attempt = runner.held[execution_id]

        async def write() -> None:
            head = await self.served.store.durable.get(EXECUTION_HEAD, execution_id)
            valid = head is not None and (head.runner_id, head.status.attempt) == (runner.id, attempt)
            request = delta(execution_id, phase=phase, attempt=attempt)
            refused = await self._call(self.served.client.executions.UpdateStatus, request)
            if not valid:
                assert refused is not None
                assert refused.reason in STALE
            elif refused is None and phase not in (EXECUTION_IN_PROGRESS, EXECUTION_WAITING_FOR_INPUT):
                runner.held.pop(execution_id, None)

        self.run(write())

    @rule(
        at=Place, what=st.sampled_from(["Cancel", "Terminate", "Pause", "Resume", "Recover", "SubmitInput", "Delete"])
    )
    def control(self, at: int, what: str) -> None:
        """Ask something of an execution."""
        if not self.ids:
            return
        execution_id = self.ids[at % len(self.ids)]
        requests: dict[str, Any] = {
            "Cancel": CancelAgentExecutionInput(id=execution_id),
            "Terminate": TerminateAgentExecutionInput(id=execution_id),
            "Pause": PauseAgentExecutionInput(id=execution_id),
            "Resume": ResumeAgentExecutionInput(id=execution_id),
            "Recover": RecoverAgentExecutionInput(id=execution_id),
            "SubmitInput": SubmitInputInput(execution_id=execution_id, message="go on"),
            "Delete": ResourceId(value=execution_id),
        }
        refused = self.run(self._call(getattr(self.served.client.executions, what), requests[what]))
        if what == "Recover" and refused is None:
            self.ended.pop(execution_id, None)

    @rule(at=Place)
    def drive_outside(self, at: int) -> None:
        """Report as somebody who is no runner."""
        if self.ids:
            request = delta(self.ids[at % len(self.ids)], phase=EXECUTION_IN_PROGRESS)
            self.run(self._call(self.served.client.executions.UpdateStatus, request))

    @rule()
    def restart(self) -> None:
        """Stop the server and start it again."""

        async def again() -> None:
            for runner in self.runners:
                await runner.cut()
            await self.stack.aclose()
            await self._serve()

        self.run(again())

    @invariant()
    def nothing_is_stuck(self) -> None:
        """Every execution has ended, is queued, waits for somebody, or is leased to a runner whose lease will end."""
        if self.agent_id:
            self.loop.run_until_complete(self._check())

    def teardown(self) -> None:
        """Stop everything."""

        async def end() -> None:
            for runner in self.runners:
                await runner.cut()
            await self.stack.aclose()

        self.loop.run_until_complete(end())
        self.loop.close()
        shutil.rmtree(self.folder)

    async def _beat(self, runner: ModelRunner) -> None:
        stub = RunnerControllerStub(self.served.client.channel)
        answer = await stub.Heartbeat(HeartbeatRequest(runner_id=runner.id, held=runner.names))
        for command in answer.commands:
            runner.take(command)

    async def _check(self) -> None:
        found = set(await self.served.store.scan(Query(AGENT_EXECUTION), limit=1_000))
        dispatcher = self.served.server._dispatcher  # noqa: SLF001  # a test may look
        at_work_in: dict[str, str] = {}
        queued = 0
        for execution_id in sorted(found):
            head = await self.served.store.durable.get(EXECUTION_HEAD, execution_id)
            assert head is not None
            phase = head.status.phase
            is_queued = execution_id in dispatcher._queue or execution_id in dispatcher._delayed  # noqa: SLF001
            queued += is_queued
            assert is_queued == (phase == EXECUTION_PENDING), f"{execution_id} is in phase {phase}"
            self._check_order(execution_id, head)
            if head.runner_id:
                assert phase not in TERMINAL
                assert phase not in (EXECUTION_PENDING, EXECUTION_PAUSED)
                assert dispatcher._leases.remaining(head.runner_id) is not None  # noqa: SLF001
                runner = dispatcher.runners.get(head.runner_id)
                assert runner is not None
                assert runner.held[execution_id].attempt == head.status.attempt
                assert runner.held[execution_id].for_person == (phase in WAITING)
                if phase == EXECUTION_IN_PROGRESS and head.session_id:
                    assert at_work_in.setdefault(head.session_id, execution_id) == execution_id
            elif phase == EXECUTION_IN_PROGRESS:
                assert head.driven_outside
            assert head.status.control.action in (0, CONTROL_CANCEL, CONTROL_PAUSE)
        assert queued == dispatcher.queued
        held = {each for runner in dispatcher.runners for each in runner.held}
        assert held <= found
        self._check_places()

    def _check_places(self) -> None:
        """What waits is counted as it is; what waits for sub-executions does so by the word of its runner."""
        counted: set[str] = set()
        ever = {runner.id: runner.ever_waiting for runner in self.runners}
        for runner in self.served.server._dispatcher.runners:  # noqa: SLF001  # a test may look
            assert runner.waiting == sum(holding.waits for holding in runner.held.values())
            said = {(each, holding.attempt) for each, holding in runner.held.items() if holding.for_children}
            assert said <= ever[runner.id]
            counted |= {each for each, holding in runner.held.items() if not holding.for_children}
        occupancy = self.served.server._dispatcher._occupancy  # noqa: SLF001
        assert occupancy._of_agent.get(self.agent_id, set()) == counted  # noqa: SLF001

    def _check_order(self, execution_id: str, head: ExecutionHead) -> None:
        """An attempt only grows, and an end stays what it was until it is recovered."""
        assert head.status.attempt >= self.attempts.get(execution_id, 0)
        self.attempts[execution_id] = head.status.attempt
        if head.status.phase in TERMINAL:
            assert self.ended.setdefault(execution_id, head.status.phase) == head.status.phase
        else:
            assert execution_id not in self.ended

    async def _serve(self) -> None:
        self.served = await self.stack.enter_async_context(
            serving(self.folder / "data", self.clock, lease_duration=LEASE, cancel_grace=5, drain_timeout=0.1)
        )

    async def _head(self, at: int) -> ExecutionHead | None:
        if not self.ids:
            return None
        return await self.served.store.durable.get(EXECUTION_HEAD, self.ids[at % len(self.ids)])

    async def _call(self, method: Any, request: Any) -> Refusal | None:  # noqa: ANN401
        """Call a method; return why it was refused, if it was."""
        try:
            await method(request)
        except aio.AioRpcError as error:
            return Refusal(error)
        return None

    async def _and_settle(self, work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401
        answer = await work
        dispatcher = self.served.server._dispatcher  # noqa: SLF001  # a test may look
        quiet = 0
        while quiet < 8:  # turns of the loop in which nothing happened
            before = sum(len(runner.held) for runner in self.runners)
            await self.served.store.commit(Transaction())
            await asyncio.sleep(0.0005)
            busy = bool(dispatcher._assigning) or dispatcher._flag.is_set()  # noqa: SLF001
            moved = before != sum(len(runner.held) for runner in self.runners)
            quiet = 0 if busy or moved else quiet + 1
        return answer


TestDispatch = DispatchMachine.TestCase
TestDispatch.settings = settings(
    max_examples=12 * ROUNDS,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
