"""The watched list: the executions that match, then each again as it changes."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING

from grpc.aio import AioRpcError
from rich.text import Text

from runstream.cli.failure import is_lost_connection, retry_after
from runstream.cli.patience import Patience
from runstream.cli.phases import phase_text
from runstream.cli.plain_text import one_line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from runstream.cli.client import Client
    from runstream.v1.agent_execution_pb2 import AgentExecution
    from runstream.v1.agent_execution_service_pb2 import ListAgentExecutionsRequest

_PHASE_WIDTH = 20
_NAME_WIDTH = 100


class ListWatch:
    """Prints executions as they change, and after an outage those that changed meanwhile."""

    def __init__(
        self,
        client: Client,
        request: ListAgentExecutionsRequest,
        fetch: Callable[[], Awaitable[list[AgentExecution]]],
        retry_for: float,
    ) -> None:
        """Print what matches `request`; `fetch` lists it, newest first."""
        self._client = client
        self._request = request
        self._fetch = fetch
        self._patience = Patience(retry_for)
        self._connected = False
        self._told = False
        self._printed: dict[str, int] = {}

    async def run(self) -> None:
        """Print until interrupted. Raises `AioRpcError` for what the server refused, and when patience runs out."""
        while True:
            try:
                await self._follow()
            except AioRpcError as error:
                asked, delay = retry_after(error), self._patience.next_delay()
                lost = self._connected and is_lost_connection(error)
                if delay is None or not (lost or asked is not None):
                    raise
                if lost and not self._told:
                    self._told = True
                    self._client.output.note("connection lost, resuming…")
                await asyncio.sleep(max(delay, asked or 0))

    async def _follow(self) -> None:
        call = self._client.queries.WatchList(self._request)
        try:
            # Only what changes after this answer is sent: what was there before must be listed after it.
            await call.initial_metadata()
            for execution in reversed(await self._fetch()):
                self._print(execution)
            self._resumed()
            async for execution in call:
                self._print(execution)
        finally:
            call.cancel()

    def _resumed(self) -> None:
        self._connected = True
        self._patience.resumed()
        if self._told:
            self._told = False
            self._client.output.note("resumed")

    def _print(self, execution: AgentExecution) -> None:
        """Print an execution, unless it was printed at this revision."""
        metadata = execution.metadata
        if self._printed.get(metadata.id, 0) >= metadata.revision:
            return
        self._printed[metadata.id] = metadata.revision
        if self._client.output.for_people:
            self._client.output.say(_line(execution))
        else:
            self._client.output.element(execution)


def _line(execution: AgentExecution) -> Text:
    audit = execution.status.audit
    changed = max(audit.spec_audit.updated_at.ToMilliseconds(), audit.status_audit.updated_at.ToMilliseconds())
    phase = phase_text(execution.status.phase)
    phase.pad_right(max(_PHASE_WIDTH - len(phase), 0))
    return Text("  ").join(
        [
            Text(f"{datetime.fromtimestamp(changed / 1000).astimezone():%H:%M:%S}", style="dim"),
            Text(execution.metadata.id),
            phase,
            Text(f"revision {execution.metadata.revision:<4}", style="dim"),
            Text(one_line(execution.metadata.name, _NAME_WIDTH)),
        ]
    )
