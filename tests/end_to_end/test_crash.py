"""A server that is killed at any moment keeps what it has acknowledged, and leaves no half of a command."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from runstream.model.merge import EntryIndex, fold_all
from runstream.model.phases import is_terminal
from runstream.v1.agent_execution_pb2 import AgentExecution, ExecutionChange, ExecutionPhase
from runstream.v1.agent_execution_service_pb2 import (
    ListAgentExecutionsBySessionRequest,
    ListAgentExecutionsRequest,
    WatchAgentExecutionRequest,
)
from tests.end_to_end.folder_check import bits
from tests.end_to_end.load import KEY_LABEL
from tests.end_to_end.siege import Siege
from tests.making import stored
from tests.process import ROUNDS, server_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from tests.end_to_end.folder_check import Contents
    from tests.serving import Client

KILLS = 5
MOST_ACKNOWLEDGED = 700


@pytest.mark.parametrize("seed", range(2 * ROUNDS))
async def test_what_was_acknowledged_survives_kills_and_what_was_not_is_repeated_safely(
    tmp_path: Path, seed: int
) -> None:
    """After each kill -9 under load, the folder is whole, has all that was acknowledged, and is served so."""
    seeded = random.Random(seed)
    async with server_process(tmp_path / "data", cancel_grace=3600) as server:
        siege = Siege(server, seeded)
        await siege.prepare()
        for _ in range(KILLS):
            contents = await siege.strike_at(seeded.randrange(MOST_ACKNOWLEDGED))
            await server.start()
            async with server.client() as client:
                await check_served(client, contents)
        await siege.make_peace()
        assert all("listening on" in line for line in server.log)


async def check_served(client: Client, contents: Contents) -> None:
    """A server that nobody else uses serves what is in its folder: by Get, by Watch and by every list."""
    at_once = asyncio.Semaphore(8)

    async def check(execution_id: str) -> None:
        async with at_once:
            log = await watched(client, contents.executions[execution_id])
            assert [change.revision for change in log] == list(range(1, len(log) + 1))
            assert list(map(bits, log)) == list(map(bits, contents.logs[execution_id]))
            state = await stored(client, execution_id)
            folded = AgentExecution()
            fold_all(folded, log, EntryIndex())
            assert bits(state) == bits(folded) == bits(contents.executions[execution_id])

    async with asyncio.TaskGroup() as group:
        for execution_id in contents.executions:
            group.create_task(check(execution_id))
    await check_lists(client, contents)


async def watched(client: Client, state: AgentExecution) -> list[ExecutionChange]:
    """Watch an execution from its first change to the state that is known; to the end if it has ended."""
    call = client.queries.Watch(WatchAgentExecutionRequest(execution_id=state.metadata.id))
    if is_terminal(state.status.phase):
        return [change async for change in call]
    log = []
    async for change in call:
        log.append(change)
        if change.revision == state.metadata.revision:
            break
    call.cancel()
    return log


async def check_lists(client: Client, contents: Contents) -> None:
    """Every filter finds those executions that have what it asks for, and no others."""
    states = list(contents.executions.values())

    async def check(request: ListAgentExecutionsRequest, expected: Iterable[AgentExecution]) -> None:
        found = [entry async for entry in pages(client, request)]
        assert len(found) == len({entry.metadata.id for entry in found})
        told = {entry.metadata.id: entry.metadata.revision for entry in found}
        assert told == {state.metadata.id: state.metadata.revision for state in expected}

    await check(ListAgentExecutionsRequest(), states)
    for phase in ExecutionPhase.values():
        if phase:
            await check(ListAgentExecutionsRequest(phase=phase), [s for s in states if s.status.phase == phase])
    for key, value in {item for state in states for item in state.metadata.labels.items() if item[0] != KEY_LABEL}:
        with_label = [state for state in states if state.metadata.labels.get(key) == value]
        await check(ListAgentExecutionsRequest(labels={key: value}), with_label)
    for tag in "abc":
        await check(ListAgentExecutionsRequest(tags=[tag]), [s for s in states if tag in s.metadata.tags])
    for agent_id in contents.agents:
        await check(ListAgentExecutionsRequest(agent_id=agent_id), [s for s in states if s.spec.agent_id == agent_id])
    for session_id in list(contents.sessions)[-50:]:
        request = ListAgentExecutionsBySessionRequest(session_id=session_id, page_size=1000)
        listed = await client.queries.ListBySession(request)
        assert {entry.metadata.id for entry in listed.entries} == {
            state.metadata.id for state in states if state.spec.session_id == session_id
        }


async def pages(client: Client, request: ListAgentExecutionsRequest) -> AsyncIterator[AgentExecution]:
    """List all pages of a request."""
    request.page_size = 100
    while True:
        page = await client.queries.List(request)
        for entry in page.entries:
            yield entry
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
