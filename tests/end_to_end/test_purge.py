"""A deleted execution's log goes to its last change, however often the server is killed over it, and nothing else."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from runstream.storage.leveldb import LevelDBStore
from runstream.storage.records import AGENT_EXECUTION, EXECUTION_HEAD, TOMBSTONE
from runstream.storage.store import Transaction
from runstream.v1.agent_execution_pb2 import ExecutionChange
from runstream.v1.resource_pb2 import ResourceId
from tests.care.folders import findings_of
from tests.end_to_end.folder_check import bits, check_folder
from tests.making import an_agent, execution, stored, token
from tests.process import ROUNDS, server_process
from tests.serving import MISSING, refusal, serving

if TYPE_CHECKING:
    from pathlib import Path

    from runstream.storage.store import Store
    from tests.end_to_end.folder_check import Contents
    from tests.serving import Client

LOG_CHANGES = 8_000
DELETED = 3
KILLS = 4
BOUND_SECONDS = 100


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_a_purge_that_is_killed_goes_on_and_touches_nothing_else(tmp_path: Path, seed: int) -> None:
    """Killed soon after the Deletes are answered, and again while it starts over: at the end all of it is gone."""
    data, seeded = tmp_path / "data", random.Random(seed)
    async with asyncio.timeout(BOUND_SECONDS), server_process(data, start=False) as server:
        doomed = await _prepare(data)
        before = check_folder(data)
        left = dict.fromkeys(doomed, LOG_CHANGES)
        cut_short = 0
        for kill in range(KILLS):
            await server.start()
            async with server.client() as client:
                if kill == 0:
                    await _delete(client, doomed)
                # Each answer is a little time for the purge.
                for _ in range(seeded.randrange(1, 10)):
                    assert (await refusal(stored(client, doomed[0]))).code is MISSING
                await server.kill9()
            contents = check_folder(data)
            assert findings_of(data) == []
            assert all(count <= left[execution_id] for execution_id, count in contents.purging.items())
            cut_short += sum(0 < count < LOG_CHANGES for count in contents.purging.values())
            left = {execution_id: contents.purging.get(execution_id, 0) for execution_id in doomed}
            _check_kept(contents, before, doomed)
        await _purge_to_the_end(data, doomed)
        contents = check_folder(data)
        assert contents.purging == {}
        _check_kept(contents, before, doomed)
        # Else this has tested nothing.
        assert cut_short > 0


async def _delete(client: Client, doomed: list[str]) -> None:
    """Delete all at once; each is answered with what it was."""
    whole = [await stored(client, execution_id) for execution_id in doomed]
    calls = [client.executions.Delete(ResourceId(value=execution_id)) for execution_id in doomed]
    assert list(map(bits, await asyncio.gather(*calls))) == list(map(bits, whole))


async def _prepare(data: Path) -> list[str]:
    """Make executions with long logs, with neighbours before, between and behind them in the order of ids."""
    doomed = []
    async with serving(data) as running:
        client = running.client
        agent_id = await an_agent(client)
        for number in range(2 * DELETED + 1):
            made = await client.executions.Create(execution(agent_id=agent_id, labels={"mood": "good"}))
            await client.executions.UpdateStatus(token(made.metadata.id, "a"))
            if number % 2:
                doomed.append(made.metadata.id)
    store = LevelDBStore.open(data, owner={})
    for execution_id in doomed:
        await _lengthen(store, execution_id)
    await store.close()
    return doomed


async def _lengthen(store: Store, execution_id: str) -> None:
    """Add changes to an execution in as few commits as they need."""
    head = await store.durable.get(EXECUTION_HEAD, execution_id)
    assert head is not None
    while head.revision < LOG_CHANGES:
        transaction = Transaction()
        for _ in range(min(1_000, LOG_CHANGES - head.revision)):
            head.revision += 1
            change = ExecutionChange(execution_id=execution_id, revision=head.revision)
            change.status.messages.add(id="m", content_append=f"{head.revision} ")
            head.log_bytes += change.ByteSize()
            transaction.append(change)
        transaction.put(EXECUTION_HEAD, execution_id, head)
        await store.commit(transaction)


async def _purge_to_the_end(data: Path, doomed: list[str]) -> None:
    """Run a server until nothing is left to purge; meanwhile the deleted ones are gone for everybody."""
    async with serving(data) as running:
        store, changed = running.server._store, asyncio.Event()  # noqa: SLF001  # to hear of its commits
        store.on_commit(lambda _: changed.set())
        for execution_id in doomed:
            assert (await refusal(stored(running.client, execution_id))).code is MISSING
            while await store.durable.get(TOMBSTONE, execution_id) is not None:
                await changed.wait()
                changed.clear()
            assert await store.durable.get(AGENT_EXECUTION, execution_id) is None


def _check_kept(contents: Contents, before: Contents, doomed: list[str]) -> None:
    """All but the deleted is as it was."""
    assert contents.logs == {name: log for name, log in before.logs.items() if name not in doomed}
    assert contents.sessions == before.sessions
    assert contents.instances == before.instances
    assert contents.agents == before.agents
