"""Dispatch when something goes wrong: a disk, a stream, a process, or two things at the same moment."""

from __future__ import annotations

import asyncio
import resource
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import pytest
from structlog.testing import capture_logs

from runstream.dispatch.deadlines import RETRY_SECONDS
from runstream.model.errors import Unavailable
from runstream.storage.records import AGENT, EXECUTION_HEAD
from runstream.storage.store import Transaction
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_ACTION_UNSPECIFIED,
    APPROVAL_APPROVE,
    APPROVAL_REJECT,
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_WAITING_FOR_APPROVAL,
    EXECUTION_WAITING_FOR_INPUT,
    MESSAGE_AI,
    TOOL_CALL_FAILED,
    TOOL_CALL_SKIPPED,
    TOOL_CALL_WAITING_APPROVAL,
)
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    PauseAgentExecutionInput,
    RecoverAgentExecutionInput,
    ResumeAgentExecutionInput,
    SubmitApprovalInput,
    SubmitInputInput,
)
from runstream.v1.resource_pb2 import ResourceId
from runstream.v1.runner_pb2 import Held
from tests.attached import SECONDS, attached, held
from tests.clock import FakeClock
from tests.making import NOWHERE, agent, an_agent, an_execution, delta, execution, stored
from tests.serving import ABORTED, Serving, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runstream.dispatch.dispatcher import Dispatcher
    from runstream.storage.leveldb import LevelDBStore
    from runstream.storage.store import Store
    from runstream.stored.v1.stored_pb2 import ExecutionHead, LeaseCommand
    from runstream.v1.agent_execution_pb2 import AgentExecution, ExecutionPhase, ToolCallStatus
    from runstream.v1.agent_execution_service_pb2 import AgentExecutionUpdateStatusInput
    from runstream.v1.runner_pb2 import Assignment
    from tests.serving import Client

LEASE = 15.0


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()


class FailingReader:
    """A reader of what is on disk that fails some times, as a bad sector or a lack of descriptors does.

    No real disk can be made to fail at one read of one record and serve all others.
    """

    def __init__(self, store: Store, kind: object, times: int) -> None:
        self.failed = 0
        self._reader = store.durable
        self._kind = kind
        self._times = times

    async def get(self, kind: Any, record_id: str) -> Any:  # noqa: ANN401  # as in Reader
        """Read, or fail."""
        self._fail(kind)
        return await self._reader.get(kind, record_id)

    async def shared(self, kind: Any, record_id: str) -> Any:  # noqa: ANN401
        """Read, or fail."""
        self._fail(kind)
        return await self._reader.shared(kind, record_id)

    def _fail(self, kind: object) -> None:
        if kind is self._kind and self.failed < self._times:
            self.failed += 1
            raise Unavailable("STORE_UNAVAILABLE", "The data folder cannot be read; the same call may succeed later.")


class ReadThrough:
    """A store that is read through another reader."""

    def __init__(self, store: Store, reader: FailingReader) -> None:
        self.durable = reader
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


def fail_reads(served: Serving, kind: object) -> FailingReader:
    """Let the dispatcher's next read of a kind fail."""
    reader = FailingReader(served.store, kind, times=1)
    of(served)._store = cast("Store", ReadThrough(served.store, reader))  # noqa: SLF001  # nobody else's reads fail
    return reader


@contextmanager
def full_disk() -> Iterator[None]:
    """Let the disk refuse everything that this process would write for the length of the block, its logs too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with capture_logs():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def of(served: Serving) -> Dispatcher:
    """The dispatcher of a server, for what no client sees."""
    return served.server._dispatcher  # noqa: SLF001  # a test may look


def is_open(served: Serving) -> bool:
    """Whether the server has its database open."""
    return cast("LevelDBStore", served.store)._database._db is not None  # noqa: SLF001  # nothing else tells


def rests(served: Serving, clock: FakeClock) -> bool:
    """Whether the dispatcher has given up for a moment, since the store has refused."""
    return not of(served)._assigning and of(served)._rests_until > clock.monotonic()  # noqa: SLF001  # nothing else tells


async def until_it_takes_writes(served: Serving) -> None:
    """Return when the disk takes writes again; to open it may still fail for whoever began to before it was mended."""
    async with asyncio.timeout(SECONDS):
        while True:
            with suppress(Unavailable):
                return await served.store.commit(Transaction())


def count_lease_changes(served: Serving) -> list[LeaseCommand]:
    """Write down which changes of leases the dispatcher asks for."""
    asked: list[LeaseCommand] = []
    change = of(served)._change_lease  # noqa: SLF001  # a refused one is seen nowhere else

    async def ask_and_change(command: LeaseCommand) -> object:
        asked.append(command)
        return await change(command)

    of(served)._change_lease = ask_and_change  # noqa: SLF001
    return asked


async def until(holds: Callable[[], bool]) -> None:
    """Return when something holds."""
    async with asyncio.timeout(SECONDS):
        while not holds():  # noqa: ASYNC110  # nothing tells when it does
            await asyncio.sleep(0.002)


async def head_of(served: Serving, execution_id: str) -> ExecutionHead:
    """The head of an execution, which tells its holder."""
    head = await served.store.durable.get(EXECUTION_HEAD, execution_id)
    assert head is not None
    return head


async def assigned(served: Serving, execution_id: str, runner_id: str, attempt: int) -> None:
    """Return when a runner holds an execution as an attempt, whether it has heard of it or not."""

    def is_held() -> bool:
        runner = of(served).runners.get(runner_id)
        holding = None if runner is None else runner.held.get(execution_id)
        return holding is not None and holding.attempt == attempt

    await until(is_held)


async def in_phase(client: Client, execution_id: str, phase: ExecutionPhase.ValueType) -> AgentExecution:
    """Return an execution when it is in a phase."""
    async with asyncio.timeout(SECONDS):
        while (found := await stored(client, execution_id)).status.phase != phase:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.002)
    return found


async def quiet(served: Serving) -> None:
    """Return when the dispatcher has done what it can do now: that it does nothing shows nowhere else."""
    turns = 0  # of the loop in which nothing happened
    while turns < 8:
        await served.store.commit(Transaction())
        await asyncio.sleep(0.0005)
        busy = bool(of(served)._assigning) or of(served)._flag.is_set()  # noqa: SLF001
        turns = 0 if busy else turns + 1


async def report(client: Client, assignment: Assignment, phase: ExecutionPhase.ValueType) -> None:
    """Report a phase as the holder of an assignment."""
    await client.executions.UpdateStatus(
        delta(assignment.execution.metadata.id, phase=phase, attempt=assignment.attempt)
    )


def call_update(
    assignment: Assignment, status: ToolCallStatus.ValueType, phase: ExecutionPhase.ValueType | None = None
) -> AgentExecutionUpdateStatusInput:
    """What the holder of an assignment reports of the tool call ``t``."""
    request = delta(assignment.execution.metadata.id, phase=phase, attempt=assignment.attempt)
    request.status.tool_calls.add(id="t", status=status)
    return request


def ask(assignment: Assignment) -> AgentExecutionUpdateStatusInput:
    """What the holder of an assignment reports when it asks whether it may run the tool call ``t``."""
    return call_update(assignment, TOOL_CALL_WAITING_APPROVAL, EXECUTION_WAITING_FOR_APPROVAL)


def child_of(assignment: Assignment) -> AgentExecution:
    """A sub-execution to create, in the session of its parent."""
    made = execution(session_id=assignment.execution.spec.session_id, message="help")
    made.spec.context.parent_execution_id = assignment.execution.metadata.id
    made.spec.context.parent_call_id = "call"
    return made


async def test_one_failed_read_does_not_end_dispatch(tmp_path: Path, clock: FakeClock) -> None:
    """What could not be looked at is assigned a moment later, and what dead runners hold is still taken back."""
    async with serving(tmp_path, clock, retry_backoff=0) as served:
        client = served.client
        first = await an_execution(client, agent="first")
        async with attached(client, "dies") as runner:
            assert (await runner.assignment()).execution.metadata.id == first
            reader = fail_reads(served, AGENT)
            second = await an_execution(client, agent="second")
            await until(lambda: reader.failed == 1)
            await clock.awaited(RETRY_SECONDS)
            clock.advance(RETRY_SECONDS)
            assert (await runner.assignment()).execution.metadata.id == second
        clock.advance(LEASE)
        async with attached(client, "lives") as runner:
            again = [await runner.assignment() for _ in range(2)]
        assert {(each.execution.metadata.id, each.attempt) for each in again} == {(first, 2), (second, 2)}


async def test_what_a_full_disk_refused_to_assign_stays_queued_though_it_cannot_be_looked_at(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with serving(tmp_path, clock) as served:
        execution_id = await an_execution(served.client)
        reader = fail_reads(served, EXECUTION_HEAD)
        with full_disk():
            async with attached(served.client, "gone"):
                await until(lambda: reader.failed == 1)
        async with attached(served.client) as runner:
            clock.advance(RETRY_SECONDS)
            assert (await runner.assignment()).execution.metadata.id == execution_id


async def test_a_child_that_found_its_session_taken_and_its_parent_go_on_side_by_side(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with serving(tmp_path, clock) as served, attached(served.client) as runner:
        client = served.client
        parent_id = await an_execution(client)
        parent = await runner.assignment()
        await report(client, parent, EXECUTION_WAITING_FOR_INPUT)
        session_id = parent.execution.spec.session_id
        stranger_id = (await client.executions.Create(execution(session_id=session_id))).metadata.id
        await report(client, parent, EXECUTION_PAUSED)
        stranger = await runner.assignment()
        assert stranger.execution.metadata.id == stranger_id
        child_id = (await client.executions.Create(child_of(parent))).metadata.id
        await quiet(served)
        await client.executions.Resume(ResumeAgentExecutionInput(id=parent_id))
        await quiet(served)
        assert (await stored(client, child_id)).status.phase == EXECUTION_PENDING
        await report(client, stranger, EXECUTION_COMPLETED)
        assert (await runner.assignment()).execution.metadata.id == child_id
        assert (await runner.assignment()).execution.metadata.id == parent_id


async def test_executions_of_a_session_run_side_by_side_as_soon_as_their_agent_lets_them(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with serving(tmp_path, clock) as served, attached(served.client) as runner:
        client = served.client
        await an_execution(client)
        first = await runner.assignment()
        waits = await client.executions.Create(execution(session_id=first.execution.spec.session_id))
        await quiet(served)
        assert (await stored(client, waits.metadata.id)).status.phase == EXECUTION_PENDING
        changed = await client.agent_queries.Get(ResourceId(value=first.agent.metadata.id))
        changed.spec.concurrent_in_session = True
        await client.agents.Update(changed)
        assert (await runner.assignment()).execution.metadata.id == waits.metadata.id


@pytest.mark.parametrize("how", ["recovered", "resumed", "answered"])
async def test_earlier_work_outlives_an_assignment_that_never_arrives(
    tmp_path: Path, clock: FakeClock, how: str
) -> None:
    async with serving(tmp_path, clock) as served:
        client = served.client
        execution_id = await an_execution(client)
        async with attached(client, "first") as runner:
            first = await runner.assignment()
            said = delta(execution_id, attempt=1)
            said.status.messages.add(id="m", type=MESSAGE_AI, content="an hour of work")
            await client.executions.UpdateStatus(said)
            if how == "recovered":
                await report(client, first, EXECUTION_FAILED)
            elif how == "resumed":
                await client.executions.Pause(PauseAgentExecutionInput(id=execution_id))
                await report(client, first, EXECUTION_PAUSED)
            else:
                await report(client, first, EXECUTION_WAITING_FOR_INPUT)
                await runner.detach()
        if how == "recovered":
            await client.executions.Recover(RecoverAgentExecutionInput(id=execution_id))
        elif how == "resumed":
            await client.executions.Resume(ResumeAgentExecutionInput(id=execution_id))
        else:
            await client.executions.SubmitInput(SubmitInputInput(execution_id=execution_id, message="yes"))
        async with attached(client, "second"):
            await assigned(served, execution_id, "second", 2)
        async with attached(client, "second") as runner:
            third = await runner.assignment()
        assert (third.attempt, third.resume_from) == (3, True)
        assert third.execution.status.messages[0].content == "an hour of work"


async def test_an_assignment_that_never_arrives_counts_as_lost_the_third_time(tmp_path: Path, clock: FakeClock) -> None:
    async with serving(tmp_path, clock) as served:
        client = served.client
        request = agent()
        request.spec.max_attempts = 1
        made = await client.agents.Create(request)
        execution_id = (await client.executions.Create(execution(agent_id=made.metadata.id))).metadata.id
        for attempt in (1, 2, 3):
            async with attached(client):
                await assigned(served, execution_id, "runner-1", attempt)
        async with attached(client):
            ended = await in_phase(client, execution_id, EXECUTION_FAILED)
        assert ended.status.reason == "RUNNER_LOST"


@pytest.mark.parametrize("question", ["never asked", "withdrawn"])
async def test_what_lost_its_runner_waits_for_no_approval_that_nobody_can_give(
    tmp_path: Path, clock: FakeClock, question: str
) -> None:
    """The phase says that it waits and no call does, since the runner died between two reports."""
    async with serving(tmp_path, clock, retry_backoff=0) as served:
        client = served.client
        await an_execution(client)
        async with attached(client, "dies") as runner:
            first = await runner.assignment()
            if question == "withdrawn":
                await client.executions.UpdateStatus(ask(first))
                await client.executions.UpdateStatus(call_update(first, TOOL_CALL_FAILED))
            else:
                await report(client, first, EXECUTION_WAITING_FOR_APPROVAL)
        clock.advance(LEASE)
        async with attached(client, "lives") as runner:
            again = await runner.assignment()
        assert (again.execution.metadata.id, again.attempt) == (first.execution.metadata.id, 2)


async def test_every_decision_about_the_same_call_is_pushed(tmp_path: Path, clock: FakeClock) -> None:
    async with serving(tmp_path, clock) as served, attached(served.client) as runner:
        client = served.client
        execution_id = await an_execution(client)
        assignment = await runner.assignment()
        for comment in ("first", ""):
            await client.executions.UpdateStatus(ask(assignment))
            clock.advance(1)
            await client.executions.SubmitApproval(
                SubmitApprovalInput(
                    agent_execution_id=execution_id, tool_call_id="t", action=APPROVAL_APPROVE, comment=comment
                )
            )
            told = (await runner.command("approval")).approval
            assert (told.execution_id, told.tool_call_id) == (execution_id, "t")
            await client.executions.UpdateStatus(call_update(assignment, TOOL_CALL_FAILED))


async def test_a_call_asked_anew_shows_nothing_of_the_decision_before(tmp_path: Path, clock: FakeClock) -> None:
    async with serving(tmp_path, clock) as served, attached(served.client) as runner:
        client = served.client
        execution_id = await an_execution(client)
        assignment = await runner.assignment()
        decision = SubmitApprovalInput(agent_execution_id=execution_id, tool_call_id="t")
        await client.executions.UpdateStatus(ask(assignment))
        decision.action, decision.comment = APPROVAL_REJECT, "never"
        await client.executions.SubmitApproval(decision)
        await client.executions.UpdateStatus(call_update(assignment, TOOL_CALL_SKIPPED))
        await client.executions.UpdateStatus(ask(assignment))
        (call,) = (await stored(client, execution_id)).status.tool_calls
        assert call.status == TOOL_CALL_WAITING_APPROVAL
        assert (call.approval.action, call.approval.comment) == (APPROVAL_ACTION_UNSPECIFIED, "")
        assert not call.approval.HasField("decided_by")
        decision.action, decision.comment = APPROVAL_APPROVE, ""
        await client.executions.SubmitApproval(decision)
        (call,) = (await stored(client, execution_id)).status.tool_calls
        assert (call.approval.action, call.approval.comment) == (APPROVAL_APPROVE, "")


async def test_a_stalled_stream_loses_its_work_to_a_runner_that_hears(tmp_path: Path, clock: FakeClock) -> None:
    """Its process goes on with heartbeats, and has more places than any other."""
    async with serving(tmp_path, clock) as served:
        client = served.client
        async with attached(client, "stalled", capacity=8) as stalled, attached(client, "hears", capacity=1) as hears:
            execution_id = await an_execution(client)
            await assigned(served, execution_id, "stalled", 1)
            for _ in range(2):
                clock.advance(10)
                await hears.heartbeat()
                await stalled.heartbeat()
            assert (await hears.assignment()).attempt == 2
            refused = await stalled.ended()
            assert (refused.code, refused.reason) == (ABORTED, "STREAM_STALLED")
            assert (await head_of(served, execution_id)).runner_id == "hears"


@pytest.mark.parametrize("stream_ends", ["before its lease", "after its lease"])
async def test_a_runner_that_has_gone_is_forgotten(tmp_path: Path, clock: FakeClock, stream_ends: str) -> None:
    async with serving(tmp_path, clock) as served:
        runners = of(served).runners
        for number in range(3):
            async with attached(served.client, f"runner-{number}"):
                (runner,) = runners
                if stream_ends == "after its lease":
                    clock.advance(LEASE)
                    await until(lambda runner=runner: runner.expired)  # type: ignore[misc]
            await until(lambda runner=runner: runner.stream is None)  # type: ignore[misc]
            clock.advance(LEASE)
            await until(lambda: not list(runners))


async def test_what_ended_in_the_queue_leaves_nothing_there(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        agent_id = await an_agent(served.client)
        for _ in range(200):
            made = await served.client.executions.Create(execution(agent_id=agent_id))
            await served.client.executions.Cancel(CancelAgentExecutionInput(id=made.metadata.id))
        assert of(served).queued == 0
        lines = of(served)._queue._lines  # noqa: SLF001  # it is known by nothing else
        assert sum(len(ids) for line in lines for ids in line.values()) < 100


async def test_a_process_that_dies_and_comes_back_under_its_name_is_lost_each_time(
    tmp_path: Path, clock: FakeClock
) -> None:
    """What kills every process that works on it fails in the end, though none of them is gone for a whole lease."""
    async with serving(tmp_path, clock, retry_backoff=0) as served:
        client = served.client
        execution_id = await an_execution(client)
        for attempt in (1, 2, 3):
            async with attached(client) as runner:
                assert (await runner.assignment()).attempt == attempt
                said = delta(execution_id, attempt=attempt)
                said.status.messages.add(id=f"m{attempt}", type=MESSAGE_AI, content="begun")
                await client.executions.UpdateStatus(said)
        async with attached(client):
            ended = await in_phase(client, execution_id, EXECUTION_FAILED)
        assert ended.status.reason == "RUNNER_LOST"


async def test_a_returning_runner_is_told_of_a_loss_once(tmp_path: Path, clock: FakeClock) -> None:
    gone = Held(execution_id=f"aex_{NOWHERE}", attempt=1)
    async with serving(tmp_path, clock) as served, attached(served.client, holding=[gone]) as runner:
        assert (await runner.command("lost")).lost.execution_id == gone.execution_id
        await an_execution(served.client)
        await runner.assignment()
        assert runner.unread() == []


async def test_a_parent_that_begins_anew_does_not_wait_for_the_child_of_its_last_attempt(
    tmp_path: Path, clock: FakeClock
) -> None:
    """The child waits for a person in the same session, until it is ended."""
    async with serving(tmp_path, clock, retry_backoff=0) as served:
        client = served.client
        async with attached(client, "dies") as runner:
            parent_id = await an_execution(client)
            parent = await runner.assignment()
            child_id = (await client.executions.Create(child_of(parent))).metadata.id
            child = await runner.assignment()
            await report(client, child, EXECUTION_WAITING_FOR_INPUT)
            await runner.heartbeat(held(parent), held(child))
        clock.advance(LEASE)
        async with attached(client, "lives") as runner:
            again = await runner.assignment()
            assert (again.execution.metadata.id, again.attempt) == (parent_id, 2)
            await in_phase(client, child_id, EXECUTION_CANCELLED)


async def test_a_disk_that_fails_and_comes_back_costs_dispatch_nothing(tmp_path: Path, clock: FakeClock) -> None:
    """A commit fails, then the database cannot be opened anew, so that for a while nothing can even be read."""
    async with serving(tmp_path, clock) as served:
        client = served.client
        agents = [await an_agent(client, name) for name in ("one", "other")]
        ids = [(await client.executions.Create(execution(agent_id=agents[n % 2]))).metadata.id for n in range(4)]
        current = tmp_path / "leveldb" / "CURRENT"
        told = current.read_bytes()
        current.write_bytes(b"nonsense\n")
        async with AsyncExitStack() as stack:
            with full_disk():
                runner = await stack.enter_async_context(attached(client))
                await until(lambda: rests(served, clock))
            with capture_logs():  # it says how badly it stands
                clock.advance(RETRY_SECONDS)
                await until(lambda: not is_open(served) and rests(served, clock))
            current.write_bytes(told)
            await until_it_takes_writes(served)
            for _ in range(4):
                clock.advance(RETRY_SECONDS)
                await quiet(served)
            assert {(await runner.assignment()).execution.metadata.id for _ in ids} == set(ids)


async def test_a_disk_that_refuses_is_not_asked_again_until_time_has_passed(tmp_path: Path, clock: FakeClock) -> None:
    async with serving(tmp_path, clock) as served:
        client = served.client
        agent_id = await an_agent(client)
        ids = [
            (await client.executions.Create(execution(agent_id=agent_id, stateless=True))).metadata.id
            for _ in range(100)
        ]
        tried = count_lease_changes(served)
        with full_disk():
            async with attached(client, capacity=1) as runner:
                await until(lambda: rests(served, clock))
                for _ in range(50):  # each has the dispatcher look whether something can be assigned
                    await runner.heartbeat()
                assert len(tried) < 10
        async with attached(client, capacity=1) as runner:
            clock.advance(RETRY_SECONDS)
            assert (await runner.assignment()).execution.metadata.id in ids
