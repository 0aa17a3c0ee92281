"""Delete of an execution: its answer, what is left of it, and how those who follow it hear of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from runstream.dispatch import housekeeping
from runstream.model.phases import TERMINAL
from runstream.storage.leveldb import LevelDBStore
from runstream.storage.records import (
    AGENT_EXECUTION,
    EXECUTION_HEAD,
    EXECUTION_SECRETS,
    STATUS_SNAPSHOT,
    TOMBSTONE,
)
from runstream.storage.store import Query, Term, Transaction
from runstream.stored.v1.stored_pb2 import Tombstone
from runstream.v1.agent_execution_pb2 import CHANGE_AUTHOR_USER, AgentExecution, ExecutionPhase
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    GetAgentExecutionRequest,
    ListAgentExecutionsBySessionRequest,
    ListAgentExecutionsRequest,
    SubscribeAgentExecutionRequest,
    TerminateAgentExecutionInput,
    WatchAgentExecutionRequest,
)
from runstream.v1.resource_pb2 import ResourceId
from tests.making import NOWHERE, a_running_execution, an_agent, an_execution_in, delta, execution, stored, token
from tests.serving import INVALID, MISSING, Client, Serving, refusal, serving

if TYPE_CHECKING:
    from pathlib import Path

    from runstream.storage.records import AnyKind
    from runstream.storage.store import Store

KEPT_OF_AN_EXECUTION: tuple[AnyKind, ...] = (
    AGENT_EXECUTION,
    EXECUTION_HEAD,
    EXECUTION_SECRETS,
    STATUS_SNAPSHOT,
    TOMBSTONE,
)


class Purges:
    """Hears of the end of every purge: the commit that removes the tombstone."""

    def __init__(self, store: Store) -> None:
        self._done: dict[str, asyncio.Event] = {}
        store.on_commit(self._note)

    def _note(self, transaction: Transaction) -> None:
        for kind, execution_id in transaction.deletes:
            if kind is TOMBSTONE:
                self._done.setdefault(execution_id, asyncio.Event()).set()

    async def of(self, execution_id: str) -> None:
        """Return when the purge of an execution is on disk."""
        await self._done.setdefault(execution_id, asyncio.Event()).wait()


async def left_of(store: Store, execution_id: str) -> list[str]:
    """Name what the store still has of an execution."""
    left = [kind.name for kind in KEPT_OF_AN_EXECUTION if await store.durable.get(kind, execution_id) is not None]
    changes = await store.changes(execution_id, after=0, limit=10_000, max_bytes=1 << 30)
    return left + [f"change {change.revision}" for change in changes]


@pytest.mark.parametrize("phase", [phase for phase in ExecutionPhase.values() if phase])
async def test_an_execution_in_any_phase_can_be_deleted(client: Client, phase: ExecutionPhase.ValueType) -> None:
    """Delete answers with the whole execution as it was, whatever phase it is in."""
    execution_id = await an_execution_in(client, phase)
    if phase not in TERMINAL:
        request = delta(execution_id)
        request.status.messages.add(id="m", content="hello")
        request.status.tool_calls.add(id="t")
        await client.executions.UpdateStatus(request)
    before = await stored(client, execution_id)
    answer = await client.executions.Delete(ResourceId(value=execution_id))
    assert answer == before


async def test_nothing_finds_a_deleted_execution(client: Client) -> None:
    """After the deletion no query knows the execution, and the others are still there."""
    agent_id = await an_agent(client)
    gone = await client.executions.Create(execution(agent_id=agent_id, tags=["t"]))
    session_id = gone.spec.session_id
    left = await client.executions.Create(execution(session_id=session_id, tags=["t"]))
    await client.executions.Delete(ResourceId(value=gone.metadata.id))
    told = await refusal(client.queries.Get(GetAgentExecutionRequest(value=gone.metadata.id)))
    assert (told.code, told.reason) == (MISSING, "AGENT_EXECUTION_NOT_FOUND")
    for request in (
        ListAgentExecutionsRequest(),
        ListAgentExecutionsRequest(tags=["t"]),
        ListAgentExecutionsRequest(agent_id=agent_id, phase=ExecutionPhase.EXECUTION_PENDING),
    ):
        listed = await client.queries.List(request)
        assert [found.metadata.id for found in listed.entries] == [left.metadata.id]
    of_session = await client.queries.ListBySession(ListAgentExecutionsBySessionRequest(session_id=session_id))
    assert [found.metadata.id for found in of_session.entries] == [left.metadata.id]


async def test_no_command_finds_a_deleted_execution(client: Client) -> None:
    """Every command on a deleted execution is NOT_FOUND, a second deletion too, and so is following it."""
    execution_id = await a_running_execution(client)
    await client.executions.Delete(ResourceId(value=execution_id))
    update = AgentExecution()
    update.metadata.id = execution_id
    for call in (
        client.executions.Delete(ResourceId(value=execution_id)),
        client.executions.Update(update),
        client.executions.UpdateStatus(delta(execution_id)),
        client.executions.Cancel(CancelAgentExecutionInput(id=execution_id)),
        client.executions.Terminate(TerminateAgentExecutionInput(id=execution_id)),
        client.queries.Subscribe(SubscribeAgentExecutionRequest(value=execution_id)).read(),
        client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id)).read(),
    ):
        told = await refusal(call)
        assert (told.code, told.reason) == (MISSING, "AGENT_EXECUTION_NOT_FOUND")


async def test_an_id_of_another_kind_is_not_found(client: Client) -> None:
    """The id of an agent, and one that never was, are NOT_FOUND; what is no id is INVALID_ARGUMENT."""
    agent_id = await an_agent(client)
    for value in (agent_id, agent_id.replace("agt", "aex"), f"aex_{NOWHERE}"):
        told = await refusal(client.executions.Delete(ResourceId(value=value)))
        assert (told.code, told.reason) == (MISSING, "AGENT_EXECUTION_NOT_FOUND")
    told = await refusal(client.executions.Delete(ResourceId(value="nonsense")))
    assert (told.code, set(told.fields)) == (INVALID, {"value"})


async def test_of_ten_deletions_at_once_one_answers(client: Client) -> None:
    """Concurrent deletions delete once; the others are NOT_FOUND."""
    execution_id = await a_running_execution(client)
    calls = [client.executions.Delete(ResourceId(value=execution_id)) for _ in range(10)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(answer, AgentExecution) for answer in answers) == 1


async def test_open_streams_end_with_a_reason(client: Client) -> None:
    """A subscriber is told EXECUTION_DELETED; a watcher gets the deletion as a last change before that."""
    execution_id = await a_running_execution(client)
    subscribed = aiter(client.queries.Subscribe(SubscribeAgentExecutionRequest(value=execution_id)))
    watched = aiter(client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id)))
    assert (await anext(subscribed)).metadata.revision == 2
    assert [(await anext(watched)).revision for _ in range(2)] == [1, 2]
    await client.executions.Delete(ResourceId(value=execution_id))
    deletion = await anext(watched)
    assert (deletion.revision, deletion.terminal, deletion.author) == (3, True, CHANGE_AUTHOR_USER)
    assert deletion.deleted.deleted_by.id == "anonymous"
    for stream in (subscribed, watched):
        told = await refusal(anext(stream))
        assert (told.code, told.reason) == (MISSING, "EXECUTION_DELETED")
        assert told.metadata == {"id": execution_id}


async def test_the_log_goes_from_the_disk(running: Serving) -> None:
    """After a while nothing is left of a deleted execution: no record, no change, no index entry."""
    client = running.client
    purges = Purges(running.store)
    request = execution(agent_id=await an_agent(client), tags=["t"], labels={"k": "v"})
    request.spec.runtime_env["HIDDEN"].is_secret = True
    execution_id = (await client.executions.Create(request)).metadata.id
    for number in range(20):
        await client.executions.UpdateStatus(token(execution_id, f"{number} " * 1000))
    assert "change 21" in await left_of(running.store, execution_id)
    await client.executions.Delete(ResourceId(value=execution_id))
    await purges.of(execution_id)
    assert await left_of(running.store, execution_id) == []
    for term in (Term("tag", "t"), Term("org", ""), Term("phase", "1"), Term("agent", request.spec.agent_id)):
        assert await running.store.scan(Query(AGENT_EXECUTION, ((term,),)), limit=1) == []


async def test_a_long_log_goes_in_pieces(running: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log longer than one piece of a purge goes whole, and commands are served meanwhile."""
    monkeypatch.setattr(housekeeping, "PURGE_CHUNK", 3)
    client = running.client
    purges = Purges(running.store)
    gone, other = await a_running_execution(client, agent="gone"), await a_running_execution(client, agent="other")
    await asyncio.gather(*(client.executions.UpdateStatus(token(gone, "x")) for _ in range(50)))
    await client.executions.Delete(ResourceId(value=gone))
    answer = await client.executions.UpdateStatus(token(other, "y"))
    await purges.of(gone)
    assert answer.metadata.revision == 3
    assert await left_of(running.store, gone) == []
    assert "change 3" in await left_of(running.store, other)


async def test_a_purge_that_a_crash_has_cut_off_is_finished_by_the_next_start(tmp_path: Path) -> None:
    """A data folder with a tombstone and half a log, as a crash leaves it, is clean after the next start."""
    async with serving(tmp_path / "data") as running:
        execution_id = await a_running_execution(running.client)
        for _ in range(8):
            await running.client.executions.UpdateStatus(token(execution_id, "x"))
    store = LevelDBStore.open(tmp_path / "data", owner={})
    transaction = Transaction()
    transaction.put(TOMBSTONE, execution_id, Tombstone(revision=11))
    transaction.delete(AGENT_EXECUTION, execution_id)
    transaction.delete(EXECUTION_HEAD, execution_id)
    await store.commit(transaction)
    assert await store.purge_changes(execution_id, limit=4)
    assert await left_of(store, execution_id) == ["tombstone", *(f"change {number}" for number in range(5, 11))]
    await store.close()
    async with serving(tmp_path / "data") as running:
        purges = Purges(running.store)
        if await running.store.durable.get(TOMBSTONE, execution_id) is not None:
            await purges.of(execution_id)
        assert await left_of(running.store, execution_id) == []


async def test_a_deletion_during_updates_loses_none_that_was_answered(client: Client) -> None:
    """Updates and a deletion at once: each update is answered or NOT_FOUND, and the deletion shows all before it."""
    execution_id = await a_running_execution(client)
    updates = [client.executions.UpdateStatus(token(execution_id, "x")) for _ in range(30)]
    deletion = client.executions.Delete(ResourceId(value=execution_id))
    answers = await asyncio.gather(*updates, return_exceptions=True)
    deleted = await deletion
    # An update can be on disk and find its execution gone when it comes to answer.
    accepted = sum(isinstance(answer, AgentExecution) for answer in answers)
    assert accepted <= deleted.metadata.revision - 2 <= 30
    text = deleted.status.messages[0].content if deleted.status.messages else ""
    assert len(text) == deleted.metadata.revision - 2
    assert (await refusal(client.queries.Get(GetAgentExecutionRequest(value=execution_id)))).code == MISSING
