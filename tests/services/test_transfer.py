"""Transfer: what one server has exported is on another one as it was, whole or not at all."""

from __future__ import annotations

import asyncio
import math
import random
import re
from typing import TYPE_CHECKING, Any

import pytest
from grpc import aio

from runstream.care.doctor import diagnose
from runstream.cli import intake
from runstream.cli.failure import Failure
from runstream.dispatch.housekeeping import Purger
from runstream.storage.offline import OfflineFolder
from runstream.storage.records import EXECUTION_HEAD, TOMBSTONE
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_APPROVE,
    CHANGE_AUTHOR_SYSTEM,
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_TERMINATED,
    EXECUTION_WAITING_FOR_INPUT,
    TOOL_CALL_INTERRUPTED,
    AgentExecution,
    AgentExecutionStatus,
    ExecutionChange,
)
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    GetAgentExecutionRequest,
    PauseAgentExecutionInput,
    RecoverAgentExecutionInput,
    ResumeAgentExecutionInput,
    TerminateAgentExecutionInput,
    WatchAgentExecutionRequest,
)
from runstream.v1.resource_pb2 import ResourceId
from runstream.v1.transfer_pb2 import (
    IMPORT_OUTCOME_IMPORTED,
    IMPORT_OUTCOME_TAKEN,
    LIVE_IMPORT_QUEUE,
    LIVE_IMPORT_TERMINATE,
    ImportResourcesRequest,
)
from tests.asking import answer, check_fold, decision, question, recover
from tests.attached import attached
from tests.clock import START, FakeClock
from tests.families import a_child, below
from tests.making import NOWHERE, agent, an_agent, an_execution, an_execution_in, delta, execution, stored, token
from tests.process import ROUNDS
from tests.serving import ABORTED, EXISTS, INVALID, MISSING, PRECONDITION, Client, Refusal, refusal, serving
from tests.transfers import everything, exported, imported, log_of, piece, stub

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runstream.v1.session_pb2 import Session


def findings(data: Path) -> list[str]:
    """What the doctor finds in a folder."""
    found: list[str] = []
    with OfflineFolder.open(data, purpose="test") as folder:
        diagnose(folder, lambda finding: found.append(str(finding)))
    return found


async def a_varied_execution(client: Client) -> str:
    """Make an execution of which almost every kind of change has been written; return its id."""
    request = execution(agent_id=await an_agent(client, "varied"), labels={"team": "web"}, tags=["blue"])
    request.spec.runtime_env["TOKEN"].value = "s3cret"
    request.spec.runtime_env["TOKEN"].is_secret = True
    request.spec.context.attributes.update({"deep": {"list": [1.5, None, "x"]}})
    made = await client.executions.Create(request)
    execution_id = made.metadata.id
    async with attached(client, agents=[made.spec.agent_id]) as runner:
        await runner.assignment()
        for word in ("so ", "on"):
            said = token(execution_id, word)
            said.attempt = 1
            await client.executions.UpdateStatus(said)
        await client.executions.UpdateStatus(
            question(execution_id, "call", attempt=1, seconds=60, default=APPROVAL_APPROVE)
        )
        await client.executions.SubmitApproval(decision(execution_id, "call", APPROVAL_APPROVE))
        await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_WAITING_FOR_INPUT, attempt=1))
        await client.executions.SubmitInput(answer(execution_id))
        failed = AgentExecutionStatus(phase=EXECUTION_FAILED, error="no")
        await client.executions.UpdateStatus(delta(execution_id, failed, attempt=1))
    await client.executions.Recover(recover(execution_id))
    changed = await stored(client, execution_id)
    changed.metadata.labels["seen"] = "yes"
    await client.executions.Update(changed)
    await client.executions.Pause(PauseAgentExecutionInput(id=execution_id))
    await client.executions.Resume(ResumeAgentExecutionInput(id=execution_id))
    return execution_id


async def test_what_is_imported_is_what_was_exported(tmp_path: Path) -> None:
    """The same changes from every revision, the same state, the same lines when it is exported again; nothing odd."""
    async with serving(tmp_path / "a") as one, serving(tmp_path / "b") as other:
        varied = await a_varied_execution(one.client)
        await one.client.executions.Terminate(TerminateAgentExecutionInput(id=varied))
        parent = await an_execution(one.client, agent="parent")
        child = await a_child(one.client, parent)
        for each in (child, parent):
            await one.client.executions.UpdateStatus(delta(each, phase=EXECUTION_COMPLETED))
        lines = await exported(one.client)
        assert b"s3cret" not in lines
        assert (await imported(other.client, lines))["imported"] == 3
        assert await exported(other.client) == lines
        for each in (varied, parent, child):
            assert await check_fold(other.client, each) == await stored(one.client, each)
            log = await log_of(one.client, each)
            for after in range(len(log)):
                watched = other.client.queries.Watch(
                    WatchAgentExecutionRequest(execution_id=each, after_revision=after)
                )
                assert [change async for change in watched] == log[after:]
    assert findings(tmp_path / "b") == []


async def test_a_value_of_no_kind_comes_in_as_null(tmp_path: Path) -> None:
    """JSON has no other word for it; every number is what it was, the negative zero too."""
    async with serving(tmp_path / "a") as one, serving(tmp_path / "b") as other:
        request = execution(agent_id=await an_agent(one.client))
        fields = request.spec.context.attributes.fields
        fields["none"].SetInParent()
        fields["zero"].number_value = -0.0
        fields["large"].number_value = 2.0**60 + 2.0**9
        execution_id = (await one.client.executions.Create(request)).metadata.id
        await one.client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED))
        await imported(other.client, await exported(one.client))
        was = (await stored(one.client, execution_id)).spec.context.attributes.fields
        now = (await stored(other.client, execution_id)).spec.context.attributes.fields
    assert (was["none"].WhichOneof("kind"), now["none"].WhichOneof("kind")) == (None, "null_value")
    assert math.copysign(1, now["zero"].number_value) == -1
    assert now["large"] == was["large"]


async def test_an_import_can_be_repeated(tmp_path: Path) -> None:
    """What is there already is left alone, on the server it comes from too; not a byte is written."""
    async with serving(tmp_path / "a") as one, serving(tmp_path / "b") as other:
        for phase in (EXECUTION_COMPLETED, EXECUTION_FAILED, EXECUTION_CANCELLED):
            await an_execution_in(one.client, phase, agent=f"in-{phase}")
        lines = await exported(one.client)
        await imported(other.client, lines)
        for client in (one.client, other.client):
            assert await imported(client, lines) == {"imported": 0, "unchanged": 3, "kept": 0}


async def test_a_log_comes_in_pieces_of_which_nobody_sees_any(tmp_path: Path) -> None:
    """Before the last piece there is no such execution; after it there is, whole, and no tombstone."""
    async with serving(tmp_path / "a") as one, serving(tmp_path / "b") as other:
        log, client = await a_log(one.client, 40, other.client), other.client
        for after in range(0, len(log) - 5, 5):
            taken = await stub(client).ImportExecution(piece(log[after : after + 5], after, last=False))
            assert (taken.outcome, taken.revision) == (IMPORT_OUTCOME_TAKEN, after + 5)
            told = await refusal(client.queries.Get(GetAgentExecutionRequest(value=log[0].execution_id)))
            assert told.code == MISSING
            assert await everything(client) == []
        done = await stub(client).ImportExecution(piece(log[-5:], len(log) - 5))
        assert (done.outcome, done.revision, done.phase) == (IMPORT_OUTCOME_IMPORTED, len(log), EXECUTION_COMPLETED)
        assert await log_of(client, log[0].execution_id) == log
        assert await other.store.durable.get(TOMBSTONE, log[0].execution_id) is None
    assert findings(tmp_path / "b") == []


async def a_log(client: Client, words: int, other: Client | None = None) -> list[ExecutionChange]:
    """Let an execution say some words and end; return its log. What it names is imported into the other."""
    execution_id = await an_execution_in(client, EXECUTION_IN_PROGRESS, agent=f"log-{words}")
    for number in range(words - 3):
        await client.executions.UpdateStatus(token(execution_id, f"{number} "))
    await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_COMPLETED))
    if other is not None:
        await import_named(client, other, execution_id)
    return await log_of(client, execution_id)


async def import_named(client: Client, other: Client, execution_id: str) -> None:
    """Import what an execution names."""
    made = await stored(client, execution_id)
    request = ImportResourcesRequest(agents=[await client.agent_queries.Get(ResourceId(value=made.spec.agent_id))])
    if made.spec.session_id:
        session: Session = await client.session_queries.Get(ResourceId(value=made.spec.session_id))
        request.sessions.append(session)
        instance_id = ResourceId(value=session.spec.agent_instance_id)
        request.agent_instances.append(await client.instance_queries.Get(instance_id))
    await stub(other).ImportResources(request)


async def test_an_import_that_was_cut_off_is_purged_at_the_next_start(tmp_path: Path) -> None:
    """What a crash leaves of it is sound by the doctor's rules, goes, and can be imported then."""
    async with serving(tmp_path / "a") as one:
        async with serving(tmp_path / "b") as other:
            log = await a_log(one.client, 12, other.client)
            await stub(other.client).ImportExecution(piece(log[:5], last=False))
            await stub(other.client).ImportExecution(piece(log[5:9], 5, last=False))
        assert findings(tmp_path / "b") == []
        async with serving(tmp_path / "b") as other:
            assert await stub_until_taken(other.client, log) == IMPORT_OUTCOME_IMPORTED
        assert findings(tmp_path / "b") == []


async def test_an_import_does_not_go_on_behind_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server began to purge when it started is not taken as the beginning of an import any more."""
    purge = Purger.run

    async def held(purger: Purger) -> None:
        await let_go.wait()
        await purge(purger)

    async with serving(tmp_path / "a") as one:
        async with serving(tmp_path / "b") as other:
            log = await a_log(one.client, 12, other.client)
            await stub(other.client).ImportExecution(piece(log[:5], last=False))
        monkeypatch.setattr(Purger, "run", held)
        let_go = asyncio.Event()
        async with serving(tmp_path / "b") as other:
            told = await refusal(stub(other.client).ImportExecution(piece(log[5:], 5)))
            assert (told.code, told.reason) == (ABORTED, "IMPORT_OUT_OF_STEP")
            let_go.set()
            assert await stub_until_taken(other.client, log) == IMPORT_OUTCOME_IMPORTED
            assert await log_of(other.client, log[0].execution_id) == log
    assert findings(tmp_path / "b") == []


async def stub_until_taken(client: Client, log: list[ExecutionChange]) -> int:
    """Import a log in one piece, as often as the purger needs to make place for it."""
    while True:
        try:
            return (await stub(client).ImportExecution(piece(log))).outcome
        except aio.AioRpcError as error:
            assert Refusal(error).reason == "IMPORT_OUT_OF_STEP"  # noqa: PT017  # the loop goes on after it


async def test_an_import_begun_anew_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    """A first piece is refused once while another import stands there; the rest of that goes, and nothing else."""
    async with serving(tmp_path / "a") as one, serving(tmp_path / "b") as other:
        log = await a_log(one.client, 12, other.client)
        await stub(other.client).ImportExecution(piece(log[:5], last=False))
        told = await refusal(stub(other.client).ImportExecution(piece(log[:7], last=False)))
        assert (told.code, told.reason) == (ABORTED, "IMPORT_OUT_OF_STEP")
        assert await stub_until_taken(other.client, log) == IMPORT_OUTCOME_IMPORTED
        assert await log_of(other.client, log[0].execution_id) == log
    assert findings(tmp_path / "b") == []


async def test_two_imports_at_once_bring_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loses step begins anew, until one of them is through; the other then finds it there."""
    monkeypatch.setattr(intake, "_PIECE_CHANGES", 4)
    async with serving(tmp_path / "a") as one, serving(tmp_path / "b") as other:
        log = await a_log(one.client, 12)
        lines = await exported(one.client)
        both = await asyncio.gather(*(imported(other.client, lines, retry_for=60.0) for _ in range(2)))
        assert sorted(counts["imported"] for counts in both) == [0, 1]
        assert sorted(counts["unchanged"] for counts in both) == [0, 1]
        assert await log_of(other.client, log[0].execution_id) == log
    assert findings(tmp_path / "b") == []


async def test_a_change_that_no_request_can_bring_is_told_with_what_to_do(tmp_path: Path) -> None:
    """Nothing is seen of its execution; a server that takes such a request takes the import, and it is whole."""
    async with serving(tmp_path / "a") as one:
        small = await an_execution_in(one.client, EXECUTION_COMPLETED, agent="small")
        large = await an_execution(one.client, agent="large")
        for size in (300 << 10, 2 << 20, 300 << 10):
            await one.client.executions.UpdateStatus(token(large, "x" * size))
        await one.client.executions.UpdateStatus(delta(large, phase=EXECUTION_COMPLETED))
        lines = await exported(one.client)
    async with serving(tmp_path / "b", max_message_bytes=1 << 20) as other:
        with pytest.raises(Failure, match=f"change 3 of {large} makes a request of 20[0-9]+ bytes") as told:
            await imported(other.client, lines)
        assert told.value.reason == "MESSAGE_TOO_LARGE"
        assert await everything(other.client) == [small]
    enough = int(re.findall(r"--max-message-bytes (\d+)", told.value.hint)[0])
    assert findings(tmp_path / "b") == []
    async with serving(tmp_path / "b", max_message_bytes=enough) as other:
        assert (await imported(other.client, lines, retry_for=60.0))["imported"] == 1
        assert await exported(other.client) == lines
    assert findings(tmp_path / "b") == []


async def test_a_resource_that_no_request_can_bring_is_told_with_what_to_do(tmp_path: Path) -> None:
    """As a change is: an agent may have become too large for the request that imports it."""
    async with serving(tmp_path / "a") as one:
        made = agent("large")
        made.spec.instructions = "x" * (1 << 20)
        created = await one.client.agents.Create(made)
        await one.client.executions.Create(execution(agent_id=created.metadata.id))
        lines = await exported(one.client)
    async with serving(tmp_path / "b", max_message_bytes=1 << 20) as other:
        with pytest.raises(Failure, match=r"line 2 makes a request of 10\d+ bytes") as told:
            await imported(other.client, lines, LIVE_IMPORT_TERMINATE)
        assert told.value.reason == "MESSAGE_TOO_LARGE"


@pytest.mark.parametrize("after", [3, 5, 6])
async def test_pieces_come_each_after_the_other(tmp_path: Path, after: int) -> None:
    """A piece that does not follow the last one is refused, and one that follows none."""
    async with serving(tmp_path / "a") as one, serving(tmp_path / "b") as other:
        log = await a_log(one.client, 12, other.client)
        if after != 5:
            await stub(other.client).ImportExecution(piece(log[:5], last=False))
        told = await refusal(stub(other.client).ImportExecution(piece(log[after:], after)))
        assert (told.code, told.reason) == (ABORTED, "IMPORT_OUT_OF_STEP")
        assert await everything(other.client) == []


async def test_another_execution_of_the_same_id_stays(tmp_path: Path) -> None:
    """A log that differs anywhere, or has gone on, is refused; the one that is there is as it was."""
    async with serving(tmp_path / "a") as one, serving(tmp_path / "b") as other:
        log = await a_log(one.client, 8, other.client)
        await stub(other.client).ImportExecution(piece(log))
        before = await stored(other.client, log[0].execution_id)
        for changed in (altered(log, 3, _say), log[:-1]):
            told = await refusal(stub(other.client).ImportExecution(piece(changed, live=LIVE_IMPORT_QUEUE)))
            assert (told.code, told.reason) == (EXISTS, "EXECUTION_DIFFERS")
        assert await stored(other.client, log[0].execution_id) == before


def altered(
    log: list[ExecutionChange], revision: int, alter: Callable[[ExecutionChange], None]
) -> list[ExecutionChange]:
    """Copy a log with one change altered."""
    copies = []
    for change in log:
        copy = ExecutionChange()
        copy.CopyFrom(change)
        copies.append(copy)
    alter(copies[revision - 1])
    return copies


def _say(change: ExecutionChange) -> None:
    change.status.messages[0].content_append = "something else"


def _set(path: str, value: Any) -> Callable[[ExecutionChange], None]:  # noqa: ANN401
    """Make what sets a field of a change."""

    def alter(change: ExecutionChange) -> None:
        *parents, name = path.split(".")
        message: Any = change
        for parent in parents:
            message = getattr(message, parent)
        if hasattr(value, "DESCRIPTOR"):
            getattr(message, name).CopyFrom(value)
        else:
            setattr(message, name, value)

    return alter


def _mark_end(change: ExecutionChange) -> None:
    change.terminal = not change.terminal


def _replace_phase(change: ExecutionChange) -> None:
    change.replace_mask.append("phase")


def _secret(change: ExecutionChange) -> None:
    change.created.spec.runtime_env["TOKEN"].value = "s3cret"
    change.created.spec.runtime_env["TOKEN"].is_secret = True


@pytest.mark.parametrize(
    ("revision", "alter", "told"),
    [
        (3, _set("revision", 4), "it says that it is change 4"),
        (3, _set("execution_id", f"aex_{NOWHERE}"), "it says that it is change 3 of"),
        (1, _set("created.metadata.id", f"aex_{NOWHERE}"), "it holds the execution"),
        (2, _set("created", AgentExecution()), "begins with the creation"),
        (3, _set("deleted", ExecutionChange().deleted), "a log holds creations"),
        (2, _set("status.phase", EXECUTION_WAITING_FOR_INPUT), "cannot follow EXECUTION_PENDING"),
        (2, _mark_end, "it is marked as the end"),
        (8, _mark_end, "it is not marked as the end"),
        (3, _set("attempt", 1), "while attempt 0 is current"),
        (3, _set("supersedes", 2), "which is still to come"),
        (4, _replace_phase, "it cannot be folded"),
        (2, _set("status.error", "x" * 70_000), "status.error: must be at most 65536 bytes"),
        (4, _set("status.phase", EXECUTION_COMPLETED), "it is not marked as the end"),
        (1, _secret, "it holds the value of a secret"),
        (1, _set("created.status.audit.spec_audit.created_at.seconds", 5), "created at another time"),
    ],
)
async def test_a_log_that_no_server_has_written_is_refused(
    tmp_path: Path, revision: int, alter: Callable[[ExecutionChange], None], told: str
) -> None:
    """Whatever contradicts itself is told with its revision, and leaves nothing that anybody sees."""
    async with serving(tmp_path / "a") as one, serving(tmp_path / "b") as other:
        log = altered(await a_log(one.client, 8, other.client), revision, alter)
        request = piece(log)
        request.execution_id = (await everything(one.client))[0]
        refused = await refusal(stub(other.client).ImportExecution(request))
        assert (refused.code, refused.reason) == (INVALID, "LOG_INVALID"), refused.message
        assert told in refused.message
        assert await everything(other.client) == []
    assert findings(tmp_path / "b") == []


async def test_what_is_no_change_is_refused(tmp_path: Path) -> None:
    """Bytes that are no change, and an id of a time to come."""
    clock = FakeClock()
    async with serving(tmp_path / "a") as one, serving(tmp_path / "b", clock) as other:
        log = await a_log(one.client, 4)
        request = piece(log)
        clock.set_now(log[0].created.status.audit.spec_audit.created_at.ToDatetime(START.tzinfo))
        request.changes[2] = b"\xff"
        told = await refusal(stub(other.client).ImportExecution(request))
        assert (told.code, told.reason) == (INVALID, "LOG_INVALID")
        clock.set_now(START.replace(year=2020))
        told = await refusal(stub(other.client).ImportExecution(piece(log)))
        assert (told.code, told.reason) == (INVALID, "ID_FROM_FUTURE")


async def test_what_an_execution_names_must_be_there(tmp_path: Path) -> None:
    """An agent, a session or a parent that is not on the server is told by its id."""
    async with serving(tmp_path / "a") as one, serving(tmp_path / "b") as other:
        log = await a_log(one.client, 4)
        told = await refusal(stub(other.client).ImportExecution(piece(log)))
        assert (told.code, told.reason) == (MISSING, "AGENT_NOT_FOUND")
        parent = await an_execution(one.client, agent="parent")
        child = await a_child(one.client, parent)
        await one.client.executions.UpdateStatus(delta(child, phase=EXECUTION_COMPLETED))
        lines = await exported(one.client, [child])
        with pytest.raises(aio.AioRpcError) as refused:
            await imported(other.client, lines)
        assert (Refusal(refused.value).code, Refusal(refused.value).reason) == (MISSING, "PARENT_NOT_FOUND")
        await one.client.executions.Delete(ResourceId(value=parent))
        await imported(other.client, await exported(one.client, [child]))
        assert await everything(other.client) == [child]
    assert findings(tmp_path / "b") == []


async def test_what_has_not_ended_needs_a_word(tmp_path: Path) -> None:
    """Without `live` it is refused with its phase; terminated, it has ended for a stable reason, settled."""
    async with serving(tmp_path / "a") as one, serving(tmp_path / "b") as other:
        live = await an_execution_in(one.client, EXECUTION_IN_PROGRESS)
        request = delta(live)
        request.status.tool_calls.add(id="open")
        await one.client.executions.UpdateStatus(request)
        lines = await exported(one.client)
        with pytest.raises(aio.AioRpcError) as refused:
            await imported(other.client, lines)
        told = Refusal(refused.value)
        assert (told.code, told.reason) == (PRECONDITION, "EXECUTION_NOT_ENDED")
        assert told.metadata["phase"] == "EXECUTION_IN_PROGRESS"
        assert (await imported(other.client, lines, LIVE_IMPORT_TERMINATE))["imported"] == 1
        ended = await check_fold(other.client, live)
        assert (ended.status.phase, ended.status.reason) == (EXECUTION_TERMINATED, "IMPORTED")
        assert ended.status.tool_calls[0].status == TOOL_CALL_INTERRUPTED
        assert (await log_of(other.client, live))[-1].author == CHANGE_AUTHOR_SYSTEM
        assert (await imported(other.client, lines))["unchanged"] == 1
    assert findings(tmp_path / "b") == []


async def test_what_is_queued_again_is_worked_on(tmp_path: Path) -> None:
    """A runner gets it as its next attempt, with the names of its secrets and without their values."""
    async with serving(tmp_path / "a") as one, serving(tmp_path / "b") as other:
        varied = await a_varied_execution(one.client)
        await imported(other.client, await exported(one.client), LIVE_IMPORT_QUEUE)
        queued = await check_fold(other.client, varied)
        assert queued.status.phase == EXECUTION_PENDING
        async with attached(other.client) as runner:
            assigned = await runner.assignment()
        assert (assigned.execution.metadata.id, assigned.attempt, assigned.resume_from) == (varied, 2, True)
        assert assigned.execution.spec.runtime_env["TOKEN"].value == ""
        await other.client.executions.Terminate(TerminateAgentExecutionInput(id=varied))
    assert findings(tmp_path / "b") == []


@pytest.mark.parametrize(("attempts", "phase"), [(0, EXECUTION_PENDING), (1, EXECUTION_FAILED), (2, EXECUTION_PENDING)])
async def test_work_that_comes_without_its_runner_counts_as_lost(tmp_path: Path, attempts: int, phase: int) -> None:
    """As often as the agent allows it is queued again; then it has FAILED, RUNNER_LOST."""
    async with serving(tmp_path / "a") as one, serving(tmp_path / "b") as other:
        request = agent("tried")
        request.spec.max_attempts = attempts
        made = await one.client.agents.Create(request)
        created = await one.client.executions.Create(execution(agent_id=made.metadata.id))
        await one.client.executions.UpdateStatus(delta(created.metadata.id, phase=EXECUTION_IN_PROGRESS))
        await imported(other.client, await exported(one.client), LIVE_IMPORT_QUEUE)
        found = await stored(other.client, created.metadata.id)
        assert found.status.phase == phase
        assert found.status.reason == ("RUNNER_LOST" if phase == EXECUTION_FAILED else "")
        head = await other.store.durable.get(EXECUTION_HEAD, created.metadata.id)
        assert head is not None
        assert head.lost_attempts == 1
    assert findings(tmp_path / "b") == []


async def test_what_somebody_asked_for_happens(tmp_path: Path) -> None:
    """What is paused, or shall be, is PAUSED; what shall end has ended, for the reason that was given."""
    async with serving(tmp_path / "a") as one, serving(tmp_path / "b") as other:
        paused = await an_execution_in(one.client, EXECUTION_PAUSED, agent="paused")
        pausing = await an_execution_in(one.client, EXECUTION_IN_PROGRESS, agent="pausing")
        await one.client.executions.Pause(PauseAgentExecutionInput(id=pausing))
        ending = await an_execution_in(one.client, EXECUTION_IN_PROGRESS, agent="ending")
        await one.client.executions.Cancel(CancelAgentExecutionInput(id=ending, reason="enough"))
        await imported(other.client, await exported(one.client), LIVE_IMPORT_QUEUE)
        found = [(await check_fold(other.client, each)).status for each in (paused, pausing, ending)]
        assert [status.phase for status in found] == [EXECUTION_PAUSED, EXECUTION_PAUSED, EXECUTION_CANCELLED]
        assert not any(status.HasField("control") for status in found)
        assert found[2].reason == "enough"
        await other.client.executions.Resume(ResumeAgentExecutionInput(id=pausing))
    assert findings(tmp_path / "b") == []


async def test_a_failed_one_can_be_recovered_there(tmp_path: Path) -> None:
    """With the names of its secrets, whose values have stayed behind."""
    async with serving(tmp_path / "a") as one, serving(tmp_path / "b") as other:
        request = execution(agent_id=await an_agent(one.client))
        request.spec.runtime_env["TOKEN"].value = "s3cret"
        request.spec.runtime_env["TOKEN"].is_secret = True
        made = await one.client.executions.Create(request)
        await one.client.executions.UpdateStatus(delta(made.metadata.id, phase=EXECUTION_FAILED))
        await imported(other.client, await exported(one.client))
        await other.client.executions.Recover(RecoverAgentExecutionInput(id=made.metadata.id))
        assert (await check_fold(other.client, made.metadata.id)).status.phase == EXECUTION_PENDING
    assert findings(tmp_path / "b") == []


async def test_resources_come_all_or_none(tmp_path: Path) -> None:
    """One that differs, a slug that is taken, and what names nothing refuse the whole request."""
    async with serving(tmp_path / "a") as one, serving(tmp_path / "b") as other:
        await an_execution(one.client, agent="shared")
        lines = await exported(one.client)
        there = await other.client.agents.Create(agent("shared"))
        with pytest.raises(aio.AioRpcError) as taken:
            await imported(other.client, lines, LIVE_IMPORT_TERMINATE)
        assert (Refusal(taken.value).code, Refusal(taken.value).reason) == (EXISTS, "SLUG_TAKEN")
        await other.client.agents.Delete(ResourceId(value=there.metadata.id))  # type: ignore[arg-type]
        await imported(other.client, lines, LIVE_IMPORT_TERMINATE)
        (listed,) = (await everything(one.client),)
        made = await one.client.agent_queries.Get(ResourceId(value=(await stored(one.client, listed[0])).spec.agent_id))
        made.spec.instructions = "otherwise"
        await other.client.agents.Update(made)
        with pytest.raises(aio.AioRpcError) as differs:
            await imported(other.client, lines)
        assert (Refusal(differs.value).code, Refusal(differs.value).reason) == (EXISTS, "RESOURCE_DIFFERS")
        assert (await imported(other.client, lines, keep=True))["kept"] == 1
        made.metadata.id = f"agt_{NOWHERE}"
        made.metadata.slug = "another"
        made.status.default_instance_id = f"ain_{NOWHERE}"
        made.status.audit.spec_audit.created_at.FromMilliseconds(0)
        told = await refusal(stub(other.client).ImportResources(ImportResourcesRequest(agents=[made])))
        assert (told.code, told.reason) == (MISSING, "AGENT_INSTANCE_NOT_FOUND")
    assert findings(tmp_path / "b") == []


class History:
    """Random calls on the executions of one server."""

    def __init__(self, chance: random.Random, agents: list[str]) -> None:
        self._chance = chance
        self._agents = agents
        self.ids: list[str] = []

    async def step(self, client: Client) -> None:
        """Make one call, which may be refused."""
        executions, chosen = client.executions, self._chance.choice(self.ids or [""])
        calls: list[tuple[int, Callable[[], Any]]] = [(3, lambda: executions.Create(self._new()))]
        if chosen:
            failed = AgentExecutionStatus(phase=EXECUTION_FAILED, error="no")
            calls += [
                (4, lambda: executions.Create(below(chosen, self._chance.choice(self._agents)))),
                (6, lambda: executions.UpdateStatus(delta(chosen, phase=EXECUTION_IN_PROGRESS))),
                (6, lambda: executions.UpdateStatus(token(chosen, "x" * self._chance.choice((1, 9_000))))),
                (3, lambda: executions.UpdateStatus(question(chosen, f"call-{self._chance.randrange(3)}"))),
                (3, lambda: executions.SubmitApproval(decision(chosen, "call-1", APPROVAL_APPROVE))),
                (2, lambda: executions.UpdateStatus(delta(chosen, phase=EXECUTION_WAITING_FOR_INPUT))),
                (2, lambda: executions.SubmitInput(answer(chosen))),
                (2, lambda: executions.UpdateStatus(delta(chosen, phase=EXECUTION_COMPLETED))),
                (2, lambda: executions.UpdateStatus(delta(chosen, failed, replace=("tool_calls",)))),
                (2, lambda: executions.Recover(recover(chosen))),
                (2, lambda: self._relabel(client, chosen)),
                (1, lambda: executions.Pause(PauseAgentExecutionInput(id=chosen))),
                (1, lambda: executions.Resume(ResumeAgentExecutionInput(id=chosen))),
                (1, lambda: executions.Cancel(CancelAgentExecutionInput(id=chosen))),
                (1, lambda: executions.Terminate(TerminateAgentExecutionInput(id=chosen))),
                (1, lambda: executions.Delete(ResourceId(value=chosen))),
            ]
        ((_, call),) = self._chance.choices(calls, [weight for weight, _ in calls])
        answered = await call()
        if answered.metadata.id not in self.ids:
            self.ids.append(answered.metadata.id)

    def _new(self) -> AgentExecution:
        made = execution(agent_id=self._chance.choice(self._agents), stateless=self._chance.random() < 0.3)
        made.spec.runtime_env["TOKEN"].is_secret = True
        made.spec.runtime_env["TOKEN"].value = "s3cret"
        if self._chance.random() < 0.3:
            made.spec.context.max_duration.FromSeconds(3600)
        return made

    async def _relabel(self, client: Client, execution_id: str) -> AgentExecution:
        found = await stored(client, execution_id)
        found.metadata.labels["step"] = str(self._chance.randrange(9))
        found.metadata.ClearField("revision")
        return await client.executions.Update(found)


@pytest.mark.parametrize("live", [LIVE_IMPORT_TERMINATE, LIVE_IMPORT_QUEUE])
@pytest.mark.parametrize("seed", range(3 * ROUNDS))
async def test_any_history_comes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, live: Any) -> None:  # noqa: ANN401
    """Whatever was done to executions on one server, they are the same on another one, which is sound."""
    monkeypatch.setattr(intake, "_PIECE_CHANGES", 3)
    chance = random.Random(seed)
    async with serving(tmp_path / "a", cancel_grace=3600) as one:
        history = History(chance, [await an_agent(one.client, name) for name in ("ann", "bob")])
        for _ in range(120):
            try:
                await history.step(one.client)
            except aio.AioRpcError as error:
                if error.code() not in (PRECONDITION, MISSING, ABORTED, INVALID):
                    raise
        async with serving(tmp_path / "b", cancel_grace=3600) as other:
            lines, kept = await exported(one.client), await everything(one.client)
            assert (await imported(other.client, lines, live))["imported"] == len(kept)
            assert (await imported(other.client, lines, live))["unchanged"] == len(kept)
            for each in kept:
                log, there = await log_of(one.client, each), await log_of(other.client, each)
                assert there[: len(log)] == log
                await check_fold(other.client, each)
            again = await exported(other.client)
            async with serving(tmp_path / "c", cancel_grace=3600) as third:
                await imported(third.client, again, live)
                if live == LIVE_IMPORT_TERMINATE:
                    assert await exported(third.client) == again
    assert findings(tmp_path / "b") == []
    assert findings(tmp_path / "c") == []
