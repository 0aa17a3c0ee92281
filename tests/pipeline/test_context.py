"""The request context: what steps leave for each other, and records as the command itself has staged them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from runstream.pipeline.context import Caller, ContextKey, RequestContext
from runstream.storage.records import AGENT
from runstream.storage.store import Conflict, Transaction, Unique
from runstream.v1.agent_pb2 import Agent
from runstream.v1.resource_pb2 import ResourceId

if TYPE_CHECKING:
    from runstream.storage.leveldb import LevelDBStore

NAME = Unique("agent_slug", "", "survey")


def context_on(store: LevelDBStore) -> RequestContext[ResourceId, Agent]:
    """A context of one try."""
    return RequestContext(ResourceId(), Caller(), datetime.now(UTC), store, Transaction(epoch=store.epoch))


async def commit(store: LevelDBStore, agent_id: str, kind: str = "stored") -> None:
    """Put an agent on the disk."""
    transaction = Transaction()
    transaction.put(AGENT, agent_id, Agent(kind=kind))
    transaction.claim(NAME, agent_id)
    await store.commit(transaction)


async def test_a_value_is_found_by_its_key_alone(store: LevelDBStore) -> None:
    """A key is itself, whatever it is called: another one of the same name finds nothing."""
    context = context_on(store)
    mine: ContextKey[int] = ContextKey("number")
    other: ContextKey[int] = ContextKey("number")
    context.put(mine, 7)
    assert context.value(mine) == 7
    with pytest.raises(LookupError, match="no step has left a value for number"):
        context.value(other)


async def test_a_value_may_be_none_and_may_be_replaced(store: LevelDBStore) -> None:
    """None is a value like any other; the last one that was left counts."""
    context = context_on(store)
    key: ContextKey[int | None] = ContextKey("maybe")
    context.put(key, None)
    assert context.value(key) is None
    context.put(key, 1)
    assert context.value(key) == 1


async def test_a_state_that_no_step_has_set_is_a_fault(store: LevelDBStore) -> None:
    """Reading the state too early is told as what it is: a list of steps in the wrong order."""
    context = context_on(store)
    with pytest.raises(LookupError, match="no step has set the state yet"):
        _ = context.state
    context.state = Agent(kind="x")
    assert context.state == Agent(kind="x")


async def test_a_command_sees_what_it_has_staged(store: LevelDBStore) -> None:
    """A staged record is read in place of the stored one, a staged removal as nothing, anything else from the store."""
    await commit(store, "agt_1")
    await commit_without_name(store, "agt_2")
    context = context_on(store)
    assert await context.get(AGENT, "agt_1") == Agent(kind="stored")
    context.transaction.put(AGENT, "agt_1", Agent(kind="staged"))
    context.transaction.delete(AGENT, "agt_2")
    assert await context.get(AGENT, "agt_1") == Agent(kind="staged")
    assert await context.get(AGENT, "agt_2") is None
    assert await context.get(AGENT, "agt_3") is None


async def commit_without_name(store: LevelDBStore, agent_id: str) -> None:
    """Put an agent on the disk that holds no name."""
    transaction = Transaction()
    transaction.put(AGENT, agent_id, Agent(kind="stored"))
    await store.commit(transaction)


async def test_what_is_read_can_be_changed_without_harm(store: LevelDBStore) -> None:
    """A record that was read belongs to the step that read it; what is staged stays as it was staged."""
    context = context_on(store)
    context.transaction.put(AGENT, "agt_1", Agent(kind="staged"))
    read = await context.get(AGENT, "agt_1")
    assert read is not None
    read.kind = "changed"
    assert await context.get(AGENT, "agt_1") == Agent(kind="staged")


async def test_a_name_is_held_by_who_has_staged_it_else_by_who_has_it(store: LevelDBStore) -> None:
    """The holder of a name is the one in this commit, or the one in the store."""
    context = context_on(store)
    assert await context.holder(NAME) is None
    await commit(store, "agt_1")
    assert await context.holder(NAME) == "agt_1"
    context.transaction.claim(NAME, "agt_2")
    assert await context.holder(NAME) == "agt_2"


async def test_settled_waits_for_everything_before(store: LevelDBStore) -> None:
    """An answer without a commit of its own waits until what it was decided on is on disk."""
    context = context_on(store)
    writing = commit(store, "agt_1")
    writing.send(None)  # accepted, and on its way to disk
    assert await context.get(AGENT, "agt_1") is not None
    await context.settled()
    assert await store.durable.get(AGENT, "agt_1") is not None
    writing.close()


async def test_settled_is_a_conflict_when_what_was_read_was_undone(store: LevelDBStore) -> None:
    """A context of an earlier epoch has read what a failed write has undone: it must not be answered from."""
    context = context_on(store)
    context.transaction.epoch = store.epoch - 1
    with pytest.raises(Conflict, match="undone"):
        await context.settled()
