"""The tree: whoever ends takes along what it asked for, level by level, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc import aio
from structlog.testing import capture_logs

from runstream.model.phases import TERMINAL
from runstream.services.executions import tree
from runstream.services.executions.live import live_children_of
from runstream.services.executions.tree import Tree
from runstream.v1.agent_execution_pb2 import (
    CONTROL_CANCEL,
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PENDING,
    EXECUTION_TERMINATED,
    SUB_AGENT_CANCELLED,
    SUB_AGENT_COMPLETED,
    SUB_AGENT_PENDING,
    AgentExecution,
    ExecutionPhase,
)
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    RecoverAgentExecutionInput,
    TerminateAgentExecutionInput,
)
from runstream.v1.resource_pb2 import ResourceId
from runstream.v1.runner_pb2 import AttachRequest, DetachRequest, RunnerCommand
from runstream.v1.runner_pb2_grpc import RunnerControllerStub
from tests.clock import FakeClock
from tests.families import a_child, asked_to_end, below, end_of, entry_of
from tests.making import a_running_execution, an_agent, delta, stored
from tests.process import ROUNDS
from tests.serving import PRECONDITION, Client, Refusal, Serving, refusal, serving

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from runstream.storage.store import Store


async def begin(client: Client, execution_id: str) -> str:
    """Take an execution to IN_PROGRESS, driven by whoever; return its id."""
    await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_IN_PROGRESS))
    return execution_id


async def cancel(client: Client, execution_id: str) -> None:
    """Ask for an end."""
    await client.executions.Cancel(CancelAgentExecutionInput(id=execution_id, reason="enough"))


async def terminate(client: Client, execution_id: str) -> None:
    """End it at once."""
    await client.executions.Terminate(TerminateAgentExecutionInput(id=execution_id))


async def delete(client: Client, execution_id: str) -> None:
    """Delete it."""
    await client.executions.Delete(ResourceId(value=execution_id))


async def live_children(store: Store, parent_id: str) -> list[str]:
    """The sub-executions of a parent that have not ended."""
    return await store.scan(live_children_of(parent_id), limit=1000)


async def test_a_cancel_goes_down_at_once(client: Client) -> None:
    """When a parent is asked to end its children are too: those that nobody works on are over, others are asked."""
    parent = await a_running_execution(client)
    idle, busy = await a_child(client, parent), await begin(client, await a_child(client, parent))
    await cancel(client, parent)
    ended, asked = await end_of(client, idle), await asked_to_end(client, busy)
    assert (ended.status.phase, ended.status.reason) == (EXECUTION_CANCELLED, "PARENT_CANCELLED")
    control = asked.status.control
    assert (control.action, control.reason) == (CONTROL_CANCEL, "PARENT_CANCELLED")
    assert control.requested_by.id == "system"
    assert (await stored(client, parent)).status.phase == EXECUTION_IN_PROGRESS
    assert (await entry_of(client, parent, idle)).status == SUB_AGENT_CANCELLED
    done = await client.executions.UpdateStatus(delta(busy, phase=EXECUTION_CANCELLED))
    assert done.status.reason == "PARENT_CANCELLED"


@pytest.mark.parametrize(
    ("phase", "reason"),
    [
        (EXECUTION_CANCELLED, "PARENT_CANCELLED"),
        (EXECUTION_COMPLETED, "PARENT_ENDED"),
        (EXECUTION_FAILED, "PARENT_ENDED"),
    ],
)
async def test_an_end_goes_down(client: Client, phase: ExecutionPhase.ValueType, reason: str) -> None:
    """Children that still go when their parent ends are cancelled, and the reason says why."""
    parent = await a_running_execution(client)
    idle, busy = await a_child(client, parent), await begin(client, await a_child(client, parent))
    await client.executions.UpdateStatus(delta(parent, phase=phase))
    ended, asked = await end_of(client, idle), await asked_to_end(client, busy)
    assert (ended.status.phase, ended.status.reason) == (EXECUTION_CANCELLED, reason)
    assert asked.status.control.reason == reason


async def test_a_termination_goes_down(client: Client) -> None:
    """Children of what was terminated are terminated, those that were asked to cancel before as well."""
    parent = await a_running_execution(client)
    busy, asked = [await begin(client, await a_child(client, parent)) for _ in range(2)]
    await cancel(client, asked)
    await terminate(client, parent)
    for child in (busy, asked):
        ended = await end_of(client, child)
        assert (ended.status.phase, ended.status.reason) == (EXECUTION_TERMINATED, "PARENT_TERMINATED")
        assert ended.status.audit.status_audit.updated_by.id == "system"


async def test_a_deletion_goes_down(client: Client) -> None:
    """Children of what was deleted are cancelled; they stay."""
    parent = await a_running_execution(client)
    child = await a_child(client, parent)
    await client.executions.Delete(ResourceId(value=parent))
    ended = await end_of(client, child)
    assert (ended.status.phase, ended.status.reason) == (EXECUTION_CANCELLED, "PARENT_ENDED")


async def test_a_cancel_of_what_nobody_works_on_goes_down(client: Client) -> None:
    """A parent that is CANCELLED at once, without a request, takes its children along."""
    root = await a_running_execution(client)
    parent, other = await a_child(client, root), await a_child(client, root)
    child, untouched = await a_child(client, parent), await a_child(client, other)
    await cancel(client, parent)
    ended = await end_of(client, child)
    assert ended.status.reason == "PARENT_CANCELLED"
    assert (await stored(client, untouched)).metadata.revision == 1


async def test_every_level_ends(client: Client) -> None:
    """A whole tree ends with its root, and every entry in it says so; another tree does not."""
    root, other = await a_running_execution(client, agent="root"), await a_running_execution(client, agent="other")
    untouched = await begin(client, await a_child(client, other))
    level = [root]
    ids = []
    for _ in range(4):
        level = [await begin(client, await a_child(client, parent)) for parent in level for _ in range(2)]
        ids += level
    await terminate(client, root)
    for child in ids:
        ended = await end_of(client, child)
        assert (ended.status.phase, ended.status.reason) == (EXECUTION_TERMINATED, "PARENT_TERMINATED")
        assert {entry.status for entry in ended.status.sub_agent_executions} <= {SUB_AGENT_CANCELLED}
    assert (await stored(client, untouched)).metadata.revision == 2


async def test_what_has_ended_is_left_alone(client: Client) -> None:
    """A child that ended by itself keeps its end and its entry, whatever becomes of its parent."""
    parent = await a_running_execution(client)
    done, going = await a_child(client, parent), await a_child(client, parent)
    await begin(client, done)
    ended = await client.executions.UpdateStatus(delta(done, phase=EXECUTION_COMPLETED))
    await terminate(client, parent)
    await end_of(client, going)
    assert await stored(client, done) == ended
    assert (await entry_of(client, parent, done)).status == SUB_AGENT_COMPLETED


async def test_what_failed_is_recovered_only_while_its_parent_lives(client: Client) -> None:
    """A failed child would not outlive a parent that has ended; with a live one it goes on."""
    over, live = await a_running_execution(client, agent="over"), await a_running_execution(client, agent="live")
    children = [await a_child(client, parent) for parent in (over, live)]
    for child in children:
        await client.executions.UpdateStatus(delta(child, phase=EXECUTION_FAILED))
    await client.executions.UpdateStatus(delta(over, phase=EXECUTION_COMPLETED))
    orphan, going = children
    before = await stored(client, orphan)
    refused = await refusal(client.executions.Recover(RecoverAgentExecutionInput(id=orphan)))
    assert (refused.code, refused.reason) == (PRECONDITION, "PARENT_ENDING")
    assert await stored(client, orphan) == before
    await client.executions.Recover(RecoverAgentExecutionInput(id=going))
    assert (await stored(client, going)).status.phase == EXECUTION_PENDING
    assert (await entry_of(client, live, going)).status == SUB_AGENT_PENDING


async def test_many_children_end(running: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """More children than are looked at in one piece or ended at once all end."""
    monkeypatch.setattr(tree, "_CHUNK", 7)
    client = running.client
    parent = await a_running_execution(client)
    agent_id = (await stored(client, parent)).spec.agent_id
    made = await asyncio.gather(*(client.executions.Create(below(parent, agent_id)) for _ in range(150)))
    await cancel(client, parent)
    for child in made:
        assert (await end_of(client, child.metadata.id)).status.reason == "PARENT_CANCELLED"
    state = await stored(client, parent)
    assert {entry.status for entry in state.status.sub_agent_executions} == {SUB_AGENT_CANCELLED}
    assert len(state.status.sub_agent_executions) == 150
    assert await live_children(running.store, parent) == []


async def test_a_deadline_goes_down(tmp_path: Path) -> None:
    """When a parent is asked to end by its deadline, its children are cancelled with it."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock) as running:
        client = running.client
        request = below("", await an_agent(client), call="")
        request.spec.context.max_duration.seconds = 60
        parent = await begin(client, (await client.executions.Create(request)).metadata.id)
        child = await begin(client, await a_child(client, parent))
        await clock.awaited(60)
        clock.advance(60)
        assert (await asked_to_end(client, parent)).status.control.deadline_exceeded
        asked = await asked_to_end(client, child)
    # Its own deadline is that of the parent: whichever was first.
    assert asked.status.control.reason in {"PARENT_CANCELLED", "DEADLINE_EXCEEDED"}


class Runner:
    """A runner with one place that does nothing by itself."""

    def __init__(self, client: Client, agent: str) -> None:
        self._stub = RunnerControllerStub(client.channel)
        self._id = "r-1"
        request = AttachRequest(runner_id=self._id, capacity=1, agents=[agent])
        self._stream = self._stub.Attach(request)
        self._commands = aiter(self._stream)

    async def next_assignment(self) -> RunnerCommand:
        """The next execution to work on."""
        while True:
            command: RunnerCommand = await anext(self._commands)
            if command.HasField("assign"):
                return command

    async def give_back(self) -> None:
        """Give back everything that is held; it is assigned anew."""
        await self._stub.Detach(DetachRequest(runner_id=self._id))

    def leave(self) -> None:
        """End the stream."""
        self._stream.cancel()


async def test_work_that_is_begun_anew_does_not_keep_what_was_asked_for(client: Client) -> None:
    """A new attempt that drops the work before it cancels what that asked for, and nothing that it asks for itself."""
    helper = await an_agent(client, "helper")
    runner = Runner(client, "worker")
    made = await client.executions.Create(below("", await an_agent(client, "worker"), call=""))
    parent = made.metadata.id
    await runner.next_assignment()
    old = (await client.executions.Create(below(parent, helper))).metadata.id
    await begin(client, old)
    await runner.give_back()
    again = await runner.next_assignment()
    new = (await client.executions.Create(below(parent, helper))).metadata.id
    assert (again.assign.attempt, again.assign.resume_from) == (2, False)
    asked = await asked_to_end(client, old)
    assert asked.status.control.reason == "PARENT_SUPERSEDED"
    await client.executions.UpdateStatus(delta(old, phase=EXECUTION_CANCELLED))
    await runner.give_back()
    await runner.next_assignment()
    ended = await end_of(client, new)
    assert (ended.status.phase, ended.status.reason) == (EXECUTION_CANCELLED, "PARENT_SUPERSEDED")
    assert (await stored(client, parent)).status.phase == EXECUTION_IN_PROGRESS
    runner.leave()


async def test_work_that_is_resumed_keeps_what_was_asked_for(client: Client) -> None:
    """A new attempt that continues has the children of the one before."""
    helper, agent = await an_agent(client, "helper"), await an_agent(client, "worker")
    worker = await client.agent_queries.Get(ResourceId(value=agent))
    worker.spec.resume_attempts = True
    await client.agents.Update(worker)
    runner = Runner(client, "worker")
    parent = (await client.executions.Create(below("", agent, call=""))).metadata.id
    await runner.next_assignment()
    child = (await client.executions.Create(below(parent, helper))).metadata.id
    await runner.give_back()
    again = await runner.next_assignment()
    assert (again.assign.attempt, again.assign.resume_from) == (2, True)
    await begin(client, child)
    await terminate(client, parent)
    ended = await end_of(client, child)
    assert (ended.status.reason, ended.metadata.revision) == ("PARENT_TERMINATED", 3), "it was asked nothing before"
    runner.leave()


async def test_a_child_is_refused_or_ends_with_its_parent(client: Client) -> None:
    """Creates that race with the cancel of their parent leave nothing running: refused, or cancelled."""
    chance = random.Random(11)
    helper = await an_agent(client, "helper")
    for turn in range(6 * ROUNDS):
        parent = await a_running_execution(client, agent=f"p{turn}")
        end = (cancel, terminate, delete)[turn % 3]
        calls: list[Awaitable[Any]] = [client.executions.Create(below(parent, helper)) for _ in range(20)]
        calls.insert(chance.randrange(20), end(client, parent))
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(answer, AgentExecution):
                ended = await end_of(client, answer.metadata.id)
                assert ended.status.reason in {"PARENT_CANCELLED", "PARENT_TERMINATED", "PARENT_ENDED"}
            elif answer is not None:
                assert isinstance(answer, aio.AioRpcError)
                assert Refusal(answer).reason in {"PARENT_ENDING", "PARENT_NOT_FOUND"}


async def test_an_end_of_its_own_and_one_with_the_parent_are_one_end(client: Client) -> None:
    """A child that completes while its parent is terminated has ended once, and the parent's entry as well."""
    helper = await an_agent(client, "helper")
    seen = set()
    for turn in range(10 * ROUNDS):
        parent = await a_running_execution(client, agent=f"p{turn}")
        child = await begin(client, (await client.executions.Create(below(parent, helper))).metadata.id)
        calls: list[Awaitable[Any]] = [client.executions.UpdateStatus(delta(child, phase=EXECUTION_COMPLETED))]
        calls.insert(turn % 2, terminate(client, parent))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, aio.AioRpcError)]
        ended = await end_of(client, child)
        assert ended.status.phase == (EXECUTION_TERMINATED if refused else EXECUTION_COMPLETED)
        assert all(error.code() == grpc.StatusCode.FAILED_PRECONDITION for error in refused)
        entry = await entry_of(client, parent, child)
        assert entry.status in {SUB_AGENT_CANCELLED, SUB_AGENT_COMPLETED}
        assert entry.status != SUB_AGENT_COMPLETED or ended.status.phase == EXECUTION_COMPLETED
        seen.add(ended.status.phase)
    assert seen <= TERMINAL


async def test_a_restart_ends_what_was_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a server had not come to when it died, the next one finds: children of every kind of ended parent."""
    parents, ends = {}, {}
    with monkeypatch.context() as patch:
        patch.setattr(Tree, "on_commit", lambda _self, _transaction: None)
        async with serving(tmp_path / "data") as running:
            client = running.client
            for name in ("cancelled", "terminated", "completed", "deleted", "asked", "live"):
                parents[name] = await a_running_execution(client, agent=name)
                ends[name] = await a_child(client, parents[name])
            await client.executions.UpdateStatus(delta(parents["cancelled"], phase=EXECUTION_CANCELLED))
            await terminate(client, parents["terminated"])
            await client.executions.UpdateStatus(delta(parents["completed"], phase=EXECUTION_COMPLETED))
            await client.executions.Delete(ResourceId(value=parents["deleted"]))
            await cancel(client, parents["asked"])
            for child in ends.values():
                assert (await stored(client, child)).status.phase == EXECUTION_PENDING
    async with serving(tmp_path / "data") as running:
        client = running.client
        reasons = {name: (await end_of(client, child)).status.reason for name, child in ends.items() if name != "live"}
        assert (await stored(client, ends["live"])).status.phase == EXECUTION_PENDING
    assert reasons == {
        "cancelled": "PARENT_CANCELLED",
        "terminated": "PARENT_TERMINATED",
        "completed": "PARENT_ENDED",
        "deleted": "PARENT_ENDED",
        "asked": "PARENT_CANCELLED",
    }


@pytest.mark.parametrize("entries", ["kept", "replaced"])
async def test_a_restart_ends_what_was_superseded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: str
) -> None:
    """Children of a dropped attempt are found again after a restart, from the parent's log, even without an entry."""
    with monkeypatch.context() as patch:
        patch.setattr(Tree, "on_commit", lambda _self, _transaction: None)
        async with serving(tmp_path / "data") as running:
            client = running.client
            helper = await an_agent(client, "helper")
            runner = Runner(client, "worker")
            made = await client.executions.Create(below("", await an_agent(client, "worker"), call=""))
            parent = made.metadata.id
            await runner.next_assignment()
            old = (await client.executions.Create(below(parent, helper))).metadata.id
            if entries == "replaced":
                request = delta(parent, attempt=1, replace=("sub_agent_executions",))
                await client.executions.UpdateStatus(request)
            await runner.give_back()
            await runner.next_assignment()
            new = (await client.executions.Create(below(parent, helper))).metadata.id
            assert (await stored(client, old)).status.phase == EXECUTION_PENDING
    async with serving(tmp_path / "data") as running:
        client = running.client
        ended = await end_of(client, old)
        assert ended.status.reason == "PARENT_SUPERSEDED"
        assert (await stored(client, new)).status.phase == EXECUTION_PENDING


async def test_what_cannot_be_ended_now_is_ended_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When ending one child fails the others end nevertheless, and that one a second later."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock) as running:
        client = running.client
        parent = await a_running_execution(client)
        stuck, others = await a_child(client, parent), [await a_child(client, parent) for _ in range(3)]
        controls = running.server._controls  # noqa: SLF001  # it shall fail once
        original, failures = controls.cancel, [stuck]

        async def failing(request: CancelAgentExecutionInput, caller: object) -> object:
            if request.id in failures and request.reason == "PARENT_CANCELLED":
                failures.remove(request.id)
                raise ZeroDivisionError
            return await original(request, caller)  # type: ignore[arg-type]

        monkeypatch.setattr(controls, "cancel", failing)
        with capture_logs() as logs:
            await cancel(client, parent)
            for child in others:
                await end_of(client, child)
            await clock.awaited(1.0)
            assert (await stored(client, stuck)).status.phase == EXECUTION_PENDING
            clock.advance(1.0)
            assert (await end_of(client, stuck)).status.reason == "PARENT_CANCELLED"
    assert [(log["event"], log["name"]) for log in logs] == [("deadline_failed", parent)]


async def test_what_never_had_a_child_costs_nothing(running: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of an execution without sub-executions leads to no search for them."""
    looked = []
    store_scan = running.store.scan

    async def scan(*arguments: object, **options: object) -> list[str]:
        looked.append(arguments)
        return await store_scan(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(running.store, "scan", scan)
    client = running.client
    lonely = await a_running_execution(client, agent="lonely")
    parent = await a_running_execution(client, agent="parent")
    child = await a_child(client, parent)
    await terminate(client, lonely)
    assert looked == []
    await terminate(client, parent)
    await end_of(client, child)
    assert looked != []
