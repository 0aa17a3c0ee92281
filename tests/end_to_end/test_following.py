"""Whoever follows sees everything once and in order, over any number of lost streams and servers."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest

from runstream.model.merge import EntryIndex, fold
from runstream.model.phases import is_terminal
from runstream.model.views import strip_to_basic
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    AgentExecution,
    ExecutionChange,
)
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    ListAgentExecutionsRequest,
    WatchAgentExecutionRequest,
)
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC, RESOURCE_VIEW_FULL
from tests.end_to_end.folder_check import bits
from tests.end_to_end.followers import ListWatcher, Subscriber, Watcher, until_done
from tests.end_to_end.load import embellish
from tests.making import an_agent, delta, execution, stored
from tests.process import ROUNDS, ServerProcess, server_process

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from google.protobuf.message import Message

    from tests.serving import Client

EXECUTIONS = 5
UPDATES = 150
WATCHERS = 100
SUBSCRIBERS = 20
CHANNELS = 10
BOUND_SECONDS = 100


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_every_follower_sees_everything_once_and_in_order_over_lost_streams_and_restarts(
    tmp_path: Path, seed: int
) -> None:
    """A hundred watchers, beside subscribers and watchers of lists, while the server is drained, then killed."""
    async with server_process(tmp_path / "data") as server, AsyncExitStack() as stack, asyncio.timeout(BOUND_SECONDS):
        clients = [await stack.enter_async_context(server.client()) for _ in range(CHANNELS)]
        newsroom = Newsroom(server, clients, random.Random(seed))
        await newsroom.open()
        await newsroom.run()
        await newsroom.check()


class Progress:
    """Counts what is written, and lets others wait for a count."""

    def __init__(self) -> None:
        self.count = 0
        self._waiting: list[tuple[int, asyncio.Event]] = []

    def step(self) -> None:
        """Count one more."""
        self.count += 1
        for count, event in self._waiting:
            if self.count >= count:
                event.set()

    async def reach(self, count: int) -> None:
        """Return when so many are counted."""
        event = asyncio.Event()
        self._waiting.append((count, event))
        if self.count < count:
            await event.wait()


class Newsroom:
    """A writer of a few executions, everyone who follows them, and an operator who restarts the server."""

    def __init__(self, server: ServerProcess, clients: list[Client], seeded: random.Random) -> None:
        self._server = server
        self._clients = clients
        self._random = seeded
        self._progress = Progress()
        self._ids: list[str] = []
        self._watchers: list[Watcher] = []
        self._subscribers: list[Subscriber] = []
        self._list_watchers: list[ListWatcher] = []
        self._logs: dict[str, list[ExecutionChange]] = {}

    async def open(self) -> None:
        """Create the executions, and decide who follows what."""
        client = self._clients[0]
        agent_id = await an_agent(client)
        for number in range(EXECUTIONS):
            made = await client.executions.Create(execution(agent_id=agent_id, labels={"half": str(number % 2)}))
            self._ids.append(made.metadata.id)
        for number in range(WATCHERS):
            self._watchers.append(Watcher(self._clients[number % CHANNELS], self._any_id(), self._seed()))
        for number in range(SUBSCRIBERS):
            view = RESOURCE_VIEW_BASIC if number % 3 == 0 else RESOURCE_VIEW_FULL
            self._subscribers.append(Subscriber(self._clients[number % CHANNELS], self._any_id(), self._seed(), view))
        request = ListAgentExecutionsRequest(agent_id=agent_id)
        self._list_watchers = [
            ListWatcher(self._clients[0], request, lambda _: True),
            ListWatcher(self._clients[1], request, lambda _: True),
            ListWatcher(
                self._clients[2],
                ListAgentExecutionsRequest(labels={"half": "1"}),
                lambda state: state.metadata.labels["half"] == "1",
            ),
            ListWatcher(
                self._clients[3],
                ListAgentExecutionsRequest(phase=EXECUTION_IN_PROGRESS),
                lambda state: state.status.phase == EXECUTION_IN_PROGRESS,
            ),
        ]

    async def run(self) -> None:
        """Return when all is written and every stream of an execution has ended."""
        async with asyncio.TaskGroup() as group:
            list_watching = [group.create_task(watcher.follow()) for watcher in self._list_watchers]
            await self._write_and_follow()
            self._logs = {execution_id: await self._log(execution_id) for execution_id in self._ids}
            finals = {execution_id: len(log) for execution_id, log in self._logs.items()}
            for watcher in self._list_watchers[:2]:
                await watcher.has_heard(finals)
            await self._list_watchers[2].has_heard({name: finals[name] for name in self._ids[1::2]})
            for task in list_watching:
                assert not task.done()
                task.cancel()

    async def _write_and_follow(self) -> None:
        follow = [watcher.follow for watcher in self._watchers]
        follow += [subscriber.follow for subscriber in self._subscribers]
        async with asyncio.TaskGroup() as group:
            for one in follow:
                begin = self._random.randrange(EXECUTIONS * UPDATES) if self._random.random() < 0.5 else 0
                group.create_task(self._join(begin, one))
            group.create_task(self._restart())
            for execution_id in self._ids:
                group.create_task(self._write(execution_id, self._seed()))

    async def check(self) -> None:
        """Compare what everyone was told with the log."""
        states = {execution_id: await stored(self._clients[0], execution_id) for execution_id in self._ids}
        full, basic = self._folds()
        for watcher in self._watchers:
            assert bits(watcher.state) == bits(states[watcher.execution_id])
            assert all(abs(after) > abs(before) for before, after in zip(watcher.seen, watcher.seen[1:], strict=False))
        for subscriber in self._subscribers:
            assert (
                bits(subscriber.last)
                == (basic if subscriber.view == RESOURCE_VIEW_BASIC else full)[subscriber.execution_id][-1]
            )
            told = basic if subscriber.view == RESOURCE_VIEW_BASIC else full
            for revision, state in subscriber.seen.items():
                assert state == told[subscriber.execution_id][revision - 1]
        commits = sum(len(log) for log in self._logs.values())
        for list_watcher in self._list_watchers:
            # One head for a commit at most; what a lost stream has announced may be announced again.
            assert list_watcher.announced <= commits + EXECUTIONS * list_watcher.lists
            for execution_id, heads in list_watcher.seen.items():
                for revision, head in heads.items():
                    assert head == basic[execution_id][revision - 1]

    def _any_id(self) -> str:
        return self._random.choice(self._ids)

    def _seed(self) -> random.Random:
        return random.Random(self._random.random())

    async def _join(self, begin: int, follow: Callable[[], Awaitable[None]]) -> None:
        await self._progress.reach(begin)
        await follow()

    async def _restart(self) -> None:
        """Drain the server after a third of all updates, kill it after two."""
        await self._progress.reach(EXECUTIONS * UPDATES // 3)
        assert await self._server.terminate() == 0
        await self._server.start()
        await self._progress.reach(EXECUTIONS * UPDATES * 2 // 3)
        await self._server.kill9()
        await self._server.start()

    async def _write(self, execution_id: str, seeded: random.Random) -> None:
        """Write one execution to its end, each update as often as it takes."""
        client = self._clients[-1]
        for number in range(1, UPDATES + 1):
            if number == UPDATES // 2:
                await until_done(partial(self._relabel, client, execution_id))
            if number == UPDATES - 5 and seeded.random() < 0.5:
                request = CancelAgentExecutionInput(id=execution_id)
                await until_done(partial(_send, client.executions.Cancel, request))
            update = delta(execution_id, sequence=number, phase=EXECUTION_IN_PROGRESS if number == 1 else None)
            update.status.messages.add(id=f"m{number % 3}", content_append=f"{number} ")
            embellish(update, number, seeded)
            if number == UPDATES:
                update.status.phase = seeded.choice([EXECUTION_COMPLETED, EXECUTION_FAILED, EXECUTION_CANCELLED])
            update.view = RESOURCE_VIEW_BASIC
            await until_done(partial(_send, client.executions.UpdateStatus, update))
            self._progress.step()

    async def _relabel(self, client: Client, execution_id: str) -> bool:
        request = AgentExecution()
        request.metadata.CopyFrom((await stored(client, execution_id)).metadata)
        request.metadata.revision = 0
        request.metadata.labels["mood"] = "good"
        await client.executions.Update(request)
        return True

    async def _log(self, execution_id: str) -> list[ExecutionChange]:
        call = self._clients[0].queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id))
        log = [change async for change in call]
        assert [change.revision for change in log] == list(range(1, len(log) + 1))
        assert [change.terminal for change in log] == [False] * (len(log) - 1) + [True]
        return log

    def _folds(self) -> tuple[dict[str, list[bytes]], dict[str, list[bytes]]]:
        """Fold each log change by change: the states at all revisions, whole and BASIC."""
        full: dict[str, list[bytes]] = {}
        basic: dict[str, list[bytes]] = {}
        for execution_id, log in self._logs.items():
            state, index = AgentExecution(), EntryIndex()
            for change in log:
                fold(state, change, index)
                full.setdefault(execution_id, []).append(bits(state))
                bare = AgentExecution()
                bare.CopyFrom(state)
                strip_to_basic(bare)
                basic.setdefault(execution_id, []).append(bits(bare))
            assert is_terminal(state.status.phase)
        return full, basic


async def _send(method: Callable[..., Awaitable[AgentExecution]], request: Message) -> bool:
    await method(request, wait_for_ready=True)
    return True
