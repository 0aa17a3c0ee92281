"""Everything at once, at random and from many sides, on a disk that fails now and then: all views tell the same.

What is on disk, the indexes, the log of changes, what a client reads, and what the dispatcher and the timers believe
are compared whenever all is quiet.
"""

from __future__ import annotations

import asyncio
import random
import resource
from collections import Counter
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

import pytest
from grpc import StatusCode, aio
from structlog.testing import capture_logs

from runstream.dispatch.deadlines import RETRY_SECONDS
from runstream.model.merge import fold_all
from runstream.model.phases import is_terminal, phase_name
from runstream.services.executions.approvals import waiting
from runstream.services.executions.parents import sub_agent_status
from runstream.services.resource_types import phase_term
from runstream.storage.records import AGENT_EXECUTION, EXECUTION_HEAD
from runstream.storage.store import Query
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_APPROVE,
    APPROVAL_APPROVE_ALL,
    APPROVAL_REJECT,
    APPROVAL_SKIP,
    CONTROL_CANCEL,
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_WAITING_FOR_APPROVAL,
    EXECUTION_WAITING_FOR_INPUT,
    MESSAGE_AI,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_FAILED,
    TOOL_CALL_RUNNING,
    TOOL_CALL_WAITING_APPROVAL,
    AgentExecution,
    AgentExecutionStatus,
    ExecutionPhase,
)
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    PauseAgentExecutionInput,
    RecoverAgentExecutionInput,
    ResumeAgentExecutionInput,
    SubmitApprovalInput,
    SubmitInputInput,
    TerminateAgentExecutionInput,
)
from runstream.v1.resource_pb2 import ResourceId
from runstream.v1.runner_pb2 import AttachRequest, DetachRequest, HeartbeatRequest, Held
from runstream.v1.runner_pb2_grpc import RunnerControllerStub
from tests.attached import SECONDS
from tests.clock import FakeClock
from tests.making import agent, delta, execution, stored
from tests.process import ROUNDS
from tests.serving import Serving, serving

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from pathlib import Path

    from runstream.stored.v1.stored_pb2 import ExecutionHead
    from runstream.v1.runner_pb2 import RunnerCommand
    from tests.serving import Client

STEPS, RUNNERS = 14, 4
#: What a client never hears, whatever it asks and whoever was quicker.
FAULTS = {StatusCode.INTERNAL, StatusCode.UNKNOWN}
AT_WORK = {EXECUTION_IN_PROGRESS, EXECUTION_WAITING_FOR_APPROVAL, EXECUTION_WAITING_FOR_INPUT}
CALLS = ("t", "u")


class FuzzRunner:
    """A runner that forgets things, breaks off, and comes back."""

    def __init__(self, number: int, client: Client, chance: random.Random) -> None:
        self.held: dict[str, int] = {}
        self._id = f"runner-{number}"
        self._client = client
        self._stub = RunnerControllerStub(client.channel)
        self._chance = chance
        self._reading: asyncio.Task[None] | None = None

    async def attach(self) -> None:
        """Open a stream, beside the one before or after it was cut; not all that is held is named."""
        if self._chance.random() < 0.6:
            await self.cut()
        named = [each for each in self._names() if self._chance.random() < 0.9]
        request = AttachRequest(runner_id=self._id, capacity=self._chance.randint(0, 4), held=named)
        self._reading = asyncio.create_task(self._read(request))

    async def cut(self) -> None:
        """Break off the newest stream, if there is one."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    async def heartbeat(self) -> None:
        """Name all that is held, and hear what is asked of it."""
        answer = await self._stub.Heartbeat(HeartbeatRequest(runner_id=self._id, held=self._names()))
        for command in answer.commands:
            self._take(command)

    async def detach(self) -> None:
        """Give everything back."""
        self.held.clear()
        await self._stub.Detach(DetachRequest(runner_id=self._id))

    async def report(self) -> None:
        """Report something of something that is held, or was."""
        if not self.held:
            return
        chance, execution_id = self._chance, self._chance.choice(list(self.held))
        attempt, what = self.held[execution_id], self._chance.random()
        request = delta(execution_id, attempt=attempt)
        if what < 0.3:
            request.status.messages.add(id=f"m{attempt}", type=MESSAGE_AI, content_append="x")
        elif what < 0.55:
            request.status.phase = EXECUTION_WAITING_FOR_APPROVAL
            call = request.status.tool_calls.add(id=chance.choice(CALLS), status=TOOL_CALL_WAITING_APPROVAL)
            if chance.random() < 0.5:
                call.approval.timeout.seconds = chance.randint(3, 40)
                call.approval.default_action = chance.choice((APPROVAL_APPROVE, APPROVAL_SKIP, APPROVAL_REJECT))
        elif what < 0.65:
            status = chance.choice((TOOL_CALL_RUNNING, TOOL_CALL_COMPLETED, TOOL_CALL_FAILED))
            request.status.tool_calls.add(id=chance.choice(CALLS), status=status)
        else:
            phases: tuple[ExecutionPhase.ValueType, ...] = (
                EXECUTION_IN_PROGRESS,
                EXECUTION_IN_PROGRESS,
                EXECUTION_WAITING_FOR_INPUT,
                EXECUTION_PAUSED,
                EXECUTION_COMPLETED,
                EXECUTION_FAILED,
                EXECUTION_CANCELLED,
            )
            request.status.phase = chance.choice(phases)
        await self._client.executions.UpdateStatus(request)
        if is_terminal(request.status.phase) or request.status.phase == EXECUTION_PAUSED:
            self.held.pop(execution_id, None)

    def _names(self) -> list[Held]:
        return [Held(execution_id=each, attempt=attempt) for each, attempt in self.held.items()]

    def _take(self, command: RunnerCommand) -> None:
        kind = command.WhichOneof("command")
        if kind == "assign":
            self.held[command.assign.execution.metadata.id] = command.assign.attempt
        elif kind == "lost" and self.held.get(command.lost.execution_id) == command.lost.attempt:
            del self.held[command.lost.execution_id]

    async def _read(self, request: AttachRequest) -> None:
        with suppress(aio.AioRpcError):
            async for command in self._stub.Attach(request):
                self._take(command)


class Fuzz:
    """Clients, runners, time and the disk."""

    def __init__(self, served: Serving, clock: FakeClock, seed: int, *, disk_fails: bool) -> None:
        self.ids: list[str] = []
        self._served = served
        self._client = served.client
        self._clock = clock
        self._chance = random.Random(seed)
        self._disk_fails = disk_fails
        self._sessions: list[str] = []
        self._agents: list[str] = []
        self._made = self._refusing = 0
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        self._runners = [FuzzRunner(number, served.client, self._chance) for number in range(RUNNERS)]
        #: How many calls were answered, and how many refused, by code.
        self.answers: Counter[StatusCode] = Counter()

    async def begin(self) -> None:
        """Create agents with a rule of each kind."""
        requests = [agent(name) for name in ("plain", "limited", "resumes", "parallel")]
        _, limited, resumes, parallel = (request.spec for request in requests)
        limited.max_concurrent_executions = 2
        resumes.resume_attempts, resumes.max_attempts = True, 2
        parallel.concurrent_in_session = True
        self._agents = [(await self._client.agents.Create(request)).metadata.id for request in requests]

    async def step(self) -> None:
        """Do many things at once."""
        await asyncio.gather(*(self._any_act() for _ in range(self._chance.randint(5, 40))))

    async def end(self) -> None:
        """Break off all streams."""
        for runner in self._runners:
            await runner.cut()

    async def settle(self) -> list[str]:
        """Let everything that follows happen; return in what the views differ even then."""
        problems: list[str] = []
        for _ in range(4):
            await _settle()
            if self._disk_fails:
                await self._heal()
                await _settle()
            problems = await disagreements(self._served, self.ids)
            if not problems:
                break
        return problems

    async def _any_act(self) -> None:
        chance = self._chance
        acts: list[tuple[float, Callable[[], Awaitable[object]]]] = [
            (30, lambda: chance.choice(self._runners).report()),
            (7, lambda: chance.choice(self._runners).heartbeat()),
            (5, lambda: chance.choice(self._runners).attach()),
            (1, lambda: chance.choice(self._runners).detach()),
            (2, self._let_time_pass),
            (15, self._create),
        ]
        if self.ids:
            acts += self._acts_on(chance.choice(self.ids))
        if self._disk_fails:
            acts.append((4, self._fail))
        ((_, act),) = chance.choices(acts, [weight for weight, _ in acts])
        try:
            await act()
        except aio.AioRpcError as error:
            self.answers[error.code()] += 1
            if error.code() in FAULTS:
                raise
        else:
            self.answers[StatusCode.OK] += 1

    def _acts_on(self, execution_id: str) -> list[tuple[float, Callable[[], Awaitable[object]]]]:
        executions, chance = self._client.executions, self._chance
        decision = SubmitApprovalInput(agent_execution_id=execution_id, tool_call_id=chance.choice(CALLS))
        decision.action = chance.choice(
            (APPROVAL_APPROVE, APPROVAL_APPROVE, APPROVAL_SKIP, APPROVAL_REJECT, APPROVAL_APPROVE_ALL)
        )
        driven = delta(execution_id, phase=chance.choice((EXECUTION_IN_PROGRESS, EXECUTION_COMPLETED)))
        answer = SubmitInputInput(execution_id=execution_id, message="go on")
        return [
            (5, lambda: executions.Cancel(CancelAgentExecutionInput(id=execution_id))),
            (2, lambda: executions.Terminate(TerminateAgentExecutionInput(id=execution_id))),
            (5, lambda: executions.Pause(PauseAgentExecutionInput(id=execution_id))),
            (6, lambda: executions.Resume(ResumeAgentExecutionInput(id=execution_id))),
            (4, lambda: executions.Recover(RecoverAgentExecutionInput(id=execution_id))),
            (4, lambda: executions.SubmitInput(answer)),
            (8, lambda: executions.SubmitApproval(decision)),
            (1.5, lambda: executions.Delete(ResourceId(value=execution_id))),
            (1.5, lambda: executions.UpdateStatus(driven)),
            (3, lambda: self._relabel(execution_id)),
        ]

    async def _create(self) -> None:
        chance = self._chance
        if self._sessions and chance.random() < 0.6:
            request = execution(session_id=chance.choice(self._sessions))
        else:
            request = execution(agent_id=chance.choice(self._agents))
        if chance.random() < 0.2:
            request.spec.context.max_duration.seconds = chance.randint(5, 80)
        if self.ids and chance.random() < 0.35:
            request.spec.context.parent_execution_id = chance.choice(self.ids)
            request.spec.context.parent_call_id = "c"
        made = await self._client.executions.Create(request)
        self.ids.append(made.metadata.id)
        if made.spec.session_id:
            self._sessions.append(made.spec.session_id)

    async def _relabel(self, execution_id: str) -> None:
        label = str(self._chance.random())
        request = await stored(self._client, execution_id)
        request.metadata.labels["x"] = label
        request.ClearField("status")
        await self._client.executions.Update(request)

    async def _let_time_pass(self) -> None:
        self._clock.advance(self._chance.choice((0.5, 1, 3, 8, 16)))

    async def _fail(self) -> None:
        """Let the disk refuse everything until it has refused something, then take everything again."""
        self._refusing += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, self._limits[1]))
        try:
            await self._make_an_agent()
        finally:
            self._refusing -= 1
            if not self._refusing:
                resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)

    async def _heal(self) -> None:
        """Have the disk take something, and let the time pass after which all is tried again that it refused."""
        async with asyncio.timeout(SECONDS):
            while True:
                with suppress(aio.AioRpcError):
                    await self._make_an_agent()
                    break
        self._clock.advance(RETRY_SECONDS)

    async def _make_an_agent(self) -> None:
        self._made += 1
        await self._client.agents.Create(agent(f"number {self._made}"))


async def _settle() -> None:
    """Give what is under way some turns of the loop; that all is quiet shows nowhere."""
    for _ in range(20):
        await asyncio.sleep(0.002)


async def disagreements(served: Serving, ids: list[str]) -> list[str]:
    """Compare all views of the executions; return in what they differ."""
    # One that was refused by the disk may be on it all the same, and one that was deleted in an index.
    known = sorted({*ids, *await served.store.scan(Query(AGENT_EXECUTION), limit=10_000)})
    heads = {each: head for each in known if (head := await served.store.durable.get(EXECUTION_HEAD, each)) is not None}
    problems = [*_of_runners(served, heads), *_of_queue(served, heads), *_of_timers(served, heads)]
    for phase in ExecutionPhase.values():
        indexed = set(await served.store.scan(Query(AGENT_EXECUTION, ((phase_term(phase),),)), limit=10_000))
        if indexed != {each for each, head in heads.items() if head.status.phase == phase}:
            problems.append(f"the index of {phase_name(phase)} holds {indexed}")
    states = {each: (await stored(served.client, each)).status for each in heads}
    have_ended: set[str] = set()
    for execution_id, head in heads.items():
        state = states[execution_id]
        log = await served.store.changes(execution_id, after=0, limit=100_000, max_bytes=1 << 30)
        folded = AgentExecution()
        fold_all(folded, log)
        if [change.revision for change in log] != list(range(1, head.revision + 1)):
            problems.append(f"{execution_id}: its log has a gap")
        if folded.status != state:
            problems.append(f"{execution_id}: a client reads another state than the log tells")
        if any(is_terminal(change.status.phase) for change in log):
            have_ended.add(execution_id)
        problems += _of_head(execution_id, head, state)
    for execution_id, head in heads.items():
        # To one that has ended nothing is written, so that it knows less of its children when it is recovered.
        if head.parent_id in heads and head.parent_id not in have_ended:
            problems += _of_parent(execution_id, head, states[head.parent_id])
    return problems


def _of_runners(served: Serving, heads: Mapping[str, ExecutionHead]) -> Iterator[str]:
    """Compare what the runners are believed to hold with what is on disk."""
    dispatcher = served.server._dispatcher  # noqa: SLF001  # a test may look, here and below
    held: dict[tuple[str, str], int] = {}
    for runner in dispatcher.runners:
        held |= {(runner.id, each): holding.attempt for each, holding in runner.held.items()}
        if runner.reserved:
            yield f"{runner.id}: {runner.reserved} places are reserved"
        if runner.held and dispatcher._leases.remaining(runner.id) is None:  # noqa: SLF001
            yield f"{runner.id}: its lease does not end"
    on_disk = {(head.runner_id, each): head.status.attempt for each, head in heads.items() if head.runner_id}
    if held != on_disk:
        yield f"the runners hold {on_disk} and are believed to hold {held}"


def _of_queue(served: Serving, heads: Mapping[str, ExecutionHead]) -> Iterator[str]:
    """Compare what the dispatcher believes to wait and to be at work with what is on disk."""
    dispatcher = served.server._dispatcher  # noqa: SLF001
    queue, delayed = dispatcher._queue, dispatcher._delayed  # noqa: SLF001
    at_work = set(dispatcher._occupancy._known)  # noqa: SLF001
    in_line = {each for line in queue._lines for ready in line.values() for each in ready}  # noqa: SLF001
    in_line |= {each for parked in queue._parked.values() for _, each in parked}  # noqa: SLF001
    if dispatcher._assigning:  # noqa: SLF001
        yield "assignments are under way"
    for execution_id, head in heads.items():
        phase, known = head.status.phase, f"{execution_id} in {phase_name(head.status.phase)}"
        if (execution_id in queue or execution_id in delayed) != (phase == EXECUTION_PENDING):
            yield f"{known}: it is queued or not as it should not"
        if execution_id in queue and execution_id not in in_line:
            yield f"{known}: it is queued in no line"
        if (phase in AT_WORK or execution_id in delayed) != (execution_id in at_work):
            yield f"{known}: it keeps its session or not as it should not"
    for execution_id in at_work - heads.keys():
        yield f"{execution_id}: it is at work and not there"


def _of_timers(served: Serving, heads: Mapping[str, ExecutionHead]) -> Iterator[str]:
    """Compare what time will do with what is on disk."""
    grace, approvals = served.server._grace, served.server._approvals  # noqa: SLF001
    for execution_id, head in heads.items():
        asked = head.status.control.action == CONTROL_CANCEL
        if asked != (execution_id in grace._waiting):  # noqa: SLF001
            yield f"{execution_id}: its grace period runs or not as it should not"
        if asked and grace._deadlines.remaining(execution_id) is None:  # noqa: SLF001
            yield f"{execution_id}: its grace period does not end"
        timed = sum(known.approval.HasField("expire_time") for known in waiting(head))
        if timed != len(approvals._open.get(execution_id, ())):  # noqa: SLF001
            yield f"{execution_id}: {timed} approvals should have a time limit"
    for execution_id in served.server._time_limits._known:  # noqa: SLF001
        if execution_id not in heads or is_terminal(heads[execution_id].status.phase):
            yield f"{execution_id}: its time limit outlives it"


def _of_head(execution_id: str, head: ExecutionHead, state: AgentExecutionStatus) -> Iterator[str]:
    """Compare a head with the state, and with itself."""
    phase, on_its_own = head.status.phase, not head.runner_id and not head.driven_outside
    for name in ("phase", "attempt", "reason", "error", "started_at", "completed_at", "control"):
        if getattr(state, name) != getattr(head.status, name):
            yield f"{execution_id}: {name} in the head is another"
    if phase not in AT_WORK and head.runner_id:
        yield f"{execution_id}: it is {phase_name(phase)} and {head.runner_id} holds it"
    if phase == EXECUTION_IN_PROGRESS and on_its_own:
        yield f"{execution_id}: nobody works on it"
    if phase == EXECUTION_WAITING_FOR_APPROVAL and on_its_own and not waiting(head):
        yield f"{execution_id}: it waits for nothing"
    calls = {call.id: call for call in state.tool_calls}
    for known in head.approvals:
        call = calls.get(known.tool_call_id)
        if call is None:
            yield f"{execution_id}: the call {known.tool_call_id} in its books is not there"
        elif call.approval.action != known.approval.action:
            yield f"{execution_id}: the decision about {call.id} is another"
        elif not known.approval.action and call.status != TOOL_CALL_WAITING_APPROVAL:
            yield f"{execution_id}: the call {call.id} does not wait, but in the books"


def _of_parent(execution_id: str, head: ExecutionHead, parent: AgentExecutionStatus) -> Iterator[str]:
    """Compare an execution with its entry in its parent."""
    entries = [entry for entry in parent.sub_agent_executions if entry.execution_id == execution_id]
    if [entry.status for entry in entries] != [sub_agent_status(head.status.phase)]:
        yield f"{execution_id} in {phase_name(head.status.phase)}: its parent knows {entries}"


@pytest.mark.parametrize("seed", range(3 * ROUNDS))
@pytest.mark.parametrize("disk", ["sound", "failing"])
async def test_all_views_tell_the_same(tmp_path: Path, disk: str, seed: int) -> None:
    """Whatever is asked, reported, lost, given back, cut and refused by the disk at once."""
    clock = FakeClock()
    fails = disk == "failing"
    async with serving(tmp_path, clock, cancel_grace=10) as served:
        fuzz = Fuzz(served, clock, seed, disk_fails=fails)
        await fuzz.begin()
        with capture_logs() if fails else nullcontext():  # a disk that refuses everything takes no log
            for _ in range(STEPS):
                await fuzz.step()
                assert await fuzz.settle() == []
            await fuzz.end()
    assert fuzz.answers[StatusCode.OK] > 50
    assert (fuzz.answers[StatusCode.UNAVAILABLE] > 0) == fails
