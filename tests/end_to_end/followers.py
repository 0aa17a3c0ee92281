"""Clients that follow executions, lose their streams, come back with their cursors, and check all they are told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
from grpc import aio

from runstream.model.merge import EntryIndex, fold
from runstream.model.phases import is_terminal
from runstream.v1.agent_execution_pb2 import AgentExecution, ExecutionChange
from runstream.v1.agent_execution_service_pb2 import (
    ListAgentExecutionsRequest,
    SubscribeAgentExecutionRequest,
    WatchAgentExecutionRequest,
)
from runstream.v1.resource_pb2 import RESOURCE_VIEW_FULL
from tests.end_to_end.folder_check import bits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random

    from runstream.v1.resource_pb2 import ResourceView
    from tests.serving import Client

#: What a client is told that has lost its server. gRPC says CANCELLED to a call that was still on its way when the
#: server closed its connections (grpc issue 41785); nobody has cancelled it, so it is as good as UNAVAILABLE.
_SERVER_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
#: How many messages a client reads at most before it goes away and comes back.
_LONGEST_PATIENCE = 60


async def until_done(attempt: Callable[[], Awaitable[bool]]) -> None:
    """Try again until it is done; a server that is away is no reason to give up, anything else is."""
    while True:
        try:
            if await attempt():
                return
        except aio.AioRpcError as error:
            if error.code() not in _SERVER_GONE:
                raise


@dataclass(slots=True)
class Watcher:
    """Folds the changes of one execution, each exactly once."""

    client: Client
    execution_id: str
    random: Random
    state: AgentExecution = field(default_factory=AgentExecution)
    #: How it went: a snapshot as its negative revision, a change as its revision.
    seen: list[int] = field(default_factory=list)
    #: How often it came back with a cursor.
    resumed: int = 0
    _index: EntryIndex = field(default_factory=EntryIndex)

    async def follow(self) -> None:
        """Return after a stream that has ended with OK."""
        await until_done(self._follow_for_a_while)

    async def _follow_for_a_while(self) -> bool:
        cursor, patience = self.state.metadata.revision, self.random.randrange(_LONGEST_PATIENCE)
        from_snapshot = self.random.random() < 0.3
        request = WatchAgentExecutionRequest(
            execution_id=self.execution_id, after_revision=cursor, from_snapshot=from_snapshot
        )
        call = self.client.queries.Watch(request, wait_for_ready=True)
        self.resumed += cursor > 0
        if patience == 0:
            call.cancel()
            return False
        last = None
        async for last in call:
            self._take(last, may_be_snapshot=from_snapshot)
            from_snapshot = False
            patience -= 1
            if patience == 0:
                call.cancel()
                return False
        # OK; a reader that comes back with the terminal change is told nothing more.
        assert last is None or last.terminal
        assert is_terminal(self.state.status.phase)
        return True

    def _take(self, change: ExecutionChange, *, may_be_snapshot: bool) -> None:
        before = self.state.metadata.revision
        snapshot = change.WhichOneof("kind") == "snapshot"
        assert change.execution_id == self.execution_id
        if snapshot:
            assert may_be_snapshot
            assert change.revision > before
            self._index = EntryIndex()
        else:
            assert change.revision == before + 1
        assert not is_terminal(self.state.status.phase) or change.terminal
        fold(self.state, change, self._index)
        self.seen.append(-change.revision if snapshot else change.revision)


@dataclass(slots=True)
class Subscriber:
    """Takes the states of one execution as they come, each newer than the one before."""

    client: Client
    execution_id: str
    random: Random
    view: ResourceView.ValueType = RESOURCE_VIEW_FULL
    #: What it was told, by revision.
    seen: dict[int, bytes] = field(default_factory=dict)
    last: AgentExecution = field(default_factory=AgentExecution)

    async def follow(self) -> None:
        """Return after a stream that has ended with OK."""
        await until_done(self._follow_for_a_while)

    async def _follow_for_a_while(self) -> bool:
        patience = self.random.randrange(1, _LONGEST_PATIENCE)
        request = SubscribeAgentExecutionRequest(
            value=self.execution_id, after_revision=self.last.metadata.revision, view=self.view
        )
        call = self.client.queries.Subscribe(request, wait_for_ready=True)
        async for state in call:
            assert state.metadata.revision > self.last.metadata.revision
            self.last = state
            self.seen[state.metadata.revision] = bits(state)
            patience -= 1
            if patience == 0:
                call.cancel()
                return False
        assert is_terminal(self.last.status.phase)
        return True


@dataclass(slots=True)
class ListWatcher:
    """Keeps the newest head of every execution of a filter: lists them, then takes what is announced."""

    client: Client
    filter: ListAgentExecutionsRequest
    matches: Callable[[AgentExecution], bool]
    #: Everything it was told, by execution and revision.
    seen: dict[str, dict[int, bytes]] = field(default_factory=dict)
    #: How many heads were announced, and how often it had to list.
    announced: int = 0
    lists: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self) -> None:
        """Follow until cancelled."""
        await until_done(self._follow_once)

    def newest(self) -> dict[str, int]:
        """The highest revision of each execution that it has been told."""
        return {execution_id: max(revisions) for execution_id, revisions in self.seen.items()}

    async def has_heard(self, finals: dict[str, int]) -> None:
        """Return when it knows these to be the newest revisions."""
        while self.newest() != finals:
            self.news.clear()
            await self.news.wait()

    async def _follow_once(self) -> bool:
        call = self.client.queries.WatchList(self.filter, wait_for_ready=True)
        await call.initial_metadata()  # what changes from here on is announced
        listed = await self.client.queries.List(self.filter)
        assert not listed.next_page_token
        self.lists += 1
        for state in listed.entries:
            self._take(state)
        newest: dict[str, int] = {}
        async for state in call:
            revision, execution_id = state.metadata.revision, state.metadata.id
            assert revision >= newest.get(execution_id, 0)
            newest[execution_id] = revision
            self.announced += 1
            self._take(state)
        raise AssertionError("WatchList ended by itself")

    def _take(self, state: AgentExecution) -> None:
        assert self.matches(state)
        told = self.seen.setdefault(state.metadata.id, {})
        assert told.setdefault(state.metadata.revision, bits(state)) == bits(state)
        self.news.set()
