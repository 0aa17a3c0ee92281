"""Leases: runners that are alive however fast a test lets time pass, and runners that are lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from runstream.dispatch.dispatcher import LOST_EVENT
from runstream.testing.follow import Follow
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_IN_PROGRESS,
    EXECUTION_WAITING_FOR_APPROVAL,
    EXECUTION_WAITING_FOR_INPUT,
)
from runstream.v1.agent_execution_service_pb2 import ListAgentExecutionsRequest
from runstream.v1.runner_pb2 import AttachRequest, HeartbeatRequest, Held

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runstream.runner import Runner
    from runstream.testing.client import Client
    from runstream.testing.state import State
    from runstream.v1.agent_execution_pb2 import AgentExecution

_AT_WORK: Final = (EXECUTION_IN_PROGRESS, EXECUTION_WAITING_FOR_APPROVAL, EXECUTION_WAITING_FOR_INPUT)


class Leases:
    """Speaks to the server in the name of runners."""

    def __init__(self, client: Client, runners: Iterable[Runner]) -> None:
        """Speak for `runners`, those that there are at the time."""
        self._client = client
        self._runners = runners

    async def beat(self) -> None:
        """Send a heartbeat for every runner."""
        at_work = await self._at_work()
        for runner in self._runners:
            await self._beat(runner.id, at_work)

    async def lose(self, seconds: float) -> None:
        """Have the server take back what the runners hold, as from lost ones; wait for so many seconds at most.

        A runner that attaches and names nothing has lost what it held. The one that is meant finds its stream ended,
        attaches again, and is told what it has lost.
        """
        at_work = await self._at_work()
        await asyncio.gather(*(self._lose(runner.id, at_work, seconds) for runner in self._runners))

    async def _lose(self, runner_id: str, at_work: list[AgentExecution], seconds: float) -> None:
        held = await self._beat(runner_id, at_work)
        stream = self._client.runners.Attach(AttachRequest(runner_id=runner_id))
        try:
            await asyncio.gather(stream.wait_for_connection(), *(self._taken_back(each, seconds) for each in held))
        finally:
            stream.cancel()

    async def _beat(self, runner_id: str, at_work: list[AgentExecution]) -> list[AgentExecution]:
        """Send a heartbeat that names all that is at work; what the server does not call lost is what it holds."""
        named = [Held(execution_id=each.metadata.id, attempt=each.status.attempt) for each in at_work]
        answer = await self._client.runners.Heartbeat(HeartbeatRequest(runner_id=runner_id, held=named))
        lost = {command.lost.execution_id for command in answer.commands}
        return [each for each in at_work if each.metadata.id not in lost]

    async def _at_work(self) -> list[AgentExecution]:
        found: list[AgentExecution] = []
        request = ListAgentExecutionsRequest(phases=_AT_WORK, page_size=1_000)
        while True:
            page = await self._client.queries.List(request)
            found.extend(page.entries)
            if not page.next_page_token:
                return [each for each in found if each.status.attempt]
            request.page_token = page.next_page_token

    async def _taken_back(self, execution: AgentExecution, seconds: float) -> None:
        attempt = execution.status.attempt

        def gone(state: State) -> bool:
            event = state.status.audit.status_audit.event  # what waits for a person waits on without a runner
            return state.attempt > attempt or state.status.phase not in _AT_WORK or event == LOST_EVENT

        follow = Follow(self._client.queries, execution.metadata.id)
        follow.passed(execution.metadata.revision)
        await follow.until(gone, "its runner to be lost", seconds)
