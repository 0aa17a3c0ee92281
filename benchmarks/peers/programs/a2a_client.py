"""A2A's client: its own SDK; a dropped stream is subscribed to again, which begins with the task as it is."""

from __future__ import annotations

import os
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import httpx
from a2a.client import ClientConfig, create_client
from a2a.types import (
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    SubscribeToTaskRequest,
    Task,
    TaskState,
)

from benchmarks.peers.programs.counting import Piece
from benchmarks.peers.programs.measuring import FAILED, FINISHED, UNFINISHED, main

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_PATIENCE_SECONDS = 30.0
_ENDED = {
    TaskState.TASK_STATE_COMPLETED: FINISHED,
    TaskState.TASK_STATE_FAILED: FAILED,
    TaskState.TASK_STATE_CANCELED: FAILED,
    TaskState.TASK_STATE_REJECTED: FAILED,
}


def _numbers(task: Task) -> list[int]:
    return [int(part.text) for artifact in task.artifacts for part in artifact.parts]


class A2AClient:
    """Calls one agent: `send_message` without streaming, and subscriptions for what streams."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def connect(self) -> None:
        """Read the agent's card."""
        limits = httpx.Limits(max_connections=256, max_keepalive_connections=256)
        http = httpx.AsyncClient(timeout=_PATIENCE_SECONDS, limits=limits)
        url = f"http://{self._address}"
        self._client = await create_client(url, ClientConfig(httpx_client=http, streaming=False))
        self._streaming = await create_client(url, ClientConfig(httpx_client=http, streaming=True))

    async def create(self) -> str:
        """Send a message and do not wait for more than the task."""
        return (await self._send("0 0", wait=False)).id

    async def run(self) -> None:
        """Send one, and wait for the result."""
        await self._send("0 0", wait=True)

    async def begin(self, events: int, pause: float, *, joined: bool) -> str:
        """Send one that counts."""
        del joined
        return (await self._send(f"{events} {pause}", wait=False)).id

    async def read(self, run: str, cursor: str | None) -> AsyncGenerator[Piece, None]:
        """Subscribe, which begins with the task and all its artifacts; a task that has ended is only asked for."""
        del cursor
        task = await self._client.get_task(GetTaskRequest(id=run))
        if task.status.state in _ENDED:
            yield Piece("", _numbers(task), restated=True)
            return
        stream = self._streaming.subscribe(SubscribeToTaskRequest(id=run))
        async with aclosing(cast("AsyncGenerator[Any]", stream)):
            async for event in stream:
                if event.HasField("task"):
                    yield Piece("", _numbers(event.task), restated=True)
                elif event.HasField("artifact_update"):
                    yield Piece("", [int(part.text) for part in event.artifact_update.artifact.parts])

    async def state(self, run: str) -> str:
        """Ask for the task."""
        task = await self._client.get_task(GetTaskRequest(id=run))
        return _ENDED.get(task.status.state, UNFINISHED)

    async def _send(self, text: str, *, wait: bool) -> Task:
        message = Message(message_id=uuid4().hex, role=Role.ROLE_USER, parts=[Part(text=text)])
        request = SendMessageRequest(
            message=message, configuration=SendMessageConfiguration(return_immediately=not wait)
        )
        answers = [answer async for answer in self._client.send_message(request)]
        return answers[-1].task


if __name__ == "__main__":
    main(A2AClient(os.environ["PEER_SERVER"]))
