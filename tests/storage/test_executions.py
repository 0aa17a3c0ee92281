from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from runstream.v1.agent_execution_pb2 import AgentExecution, ExecutionChange
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC, RESOURCE_VIEW_FULL
from tests.feed.rig import Rig, rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from runstream.v1.resource_pb2 import ResourceView

VIEWS = pytest.mark.parametrize("view", [RESOURCE_VIEW_BASIC, RESOURCE_VIEW_FULL])


@pytest.fixture(name="kept")
async def _kept(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path / "data") as made:
        yield made


@VIEWS
async def test_a_state_is_encoded_once_for_all_who_ask_for_it(kept: Rig, view: ResourceView.ValueType) -> None:
    """A thousand who follow get the same bytes, which say what the state is."""
    execution_id = await kept.create()
    await kept.commit(execution_id)
    head = await kept.executions.head(execution_id)
    assert head is not None
    asked = [kept.executions.encoded_at_head(execution_id, head, view) for _ in range(1_000)]
    answers = await asyncio.gather(*asked)
    assert len({id(answer) for answer in answers}) == 1
    assert AgentExecution.FromString(answers[0] or b"") == await kept.executions.at_head(execution_id, head, view)


@VIEWS
async def test_of_an_execution_the_newest_state_is_remembered(kept: Rig, view: ResourceView.ValueType) -> None:
    """Not one for each revision that somebody followed; who asks for an earlier one does not displace it."""
    execution_id = await kept.create()
    heads, newest = [], None
    for _ in range(3):
        await kept.commit(execution_id)
        head = await kept.executions.head(execution_id)
        assert head is not None
        heads.append(head)
        newest = await kept.executions.encoded_at_head(execution_id, head, view)
    first = [await kept.executions.encoded_at_head(execution_id, heads[0], view) for _ in range(2)]
    assert first[0] == first[1]
    assert first[0] is not first[1]
    assert await kept.executions.encoded_at_head(execution_id, heads[-1], view) is newest


@VIEWS
async def test_what_is_remembered_of_a_state_goes_with_its_execution(kept: Rig, view: ResourceView.ValueType) -> None:
    """After the deletion nothing is told any more, though the state is asked for at the head that was read before."""
    execution_id = await kept.create()
    head = await kept.executions.head(execution_id)
    assert head is not None
    assert await kept.executions.encoded_at_head(execution_id, head, view)
    await kept.delete(execution_id)
    assert await kept.executions.encoded_at_head(execution_id, head, view) is None


async def test_what_was_begun_of_a_deleted_execution_is_not_remembered(
    kept: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state, put together while another execution of its id is taken in, is not told as that of the new one."""
    read, go_on = kept.store.changes, asyncio.Event()

    async def held(execution_id: str, *, after: int, limit: int, max_bytes: int) -> list[ExecutionChange]:
        found = await read(execution_id, after=after, limit=limit, max_bytes=max_bytes)
        await go_on.wait()
        return found

    execution_id = await kept.create()
    await kept.commit(execution_id)
    old = await kept.executions.head(execution_id)
    assert old is not None
    monkeypatch.setattr(kept.store, "changes", held)
    asked = [
        asyncio.create_task(kept.executions.encoded_at_head(execution_id, old, RESOURCE_VIEW_FULL)) for _ in range(2)
    ]
    await asyncio.sleep(0)
    await kept.delete(execution_id)
    await kept.purge(execution_id)
    await kept.create()
    await kept.relabel(execution_id, "new")
    monkeypatch.setattr(kept.store, "changes", read)
    go_on.set()
    await asyncio.gather(*asked)
    new = await kept.executions.head(execution_id)
    assert new is not None
    assert new.revision == old.revision
    encoded = await kept.executions.encoded_at_head(execution_id, new, RESOURCE_VIEW_FULL)
    state = AgentExecution.FromString(encoded or b"")
    assert state.metadata.labels["mood"] == "new"
    assert not state.status.messages
