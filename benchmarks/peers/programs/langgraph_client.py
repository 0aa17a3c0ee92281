"""LangGraph's client: its own SDK; a dropped stream is joined again with Last-Event-ID."""

from __future__ import annotations

import os
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from langgraph_sdk import get_client
from langgraph_sdk.errors import NotFoundError

from benchmarks.peers.programs.counting import Piece
from benchmarks.peers.programs.measuring import FAILED, FINISHED, MISSING, UNFINISHED, main

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_TRIVIAL = {"events": 0, "pause": 0.0}
_ENDED = {"success": FINISHED, "error": FAILED, "timeout": FAILED, "interrupted": FAILED}


class LangGraphClient:
    """Calls one development server."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def connect(self) -> None:
        """Be ready, with an API key of nobody: without one the SDK looks for one in the environment."""
        self._client = get_client(url=f"http://{self._address}", api_key="none")

    async def create(self) -> str:
        """Start a run without a thread, in the background."""
        return str((await self._client.runs.create(None, "bench", input=_TRIVIAL))["run_id"])

    async def run(self) -> None:
        """Start one, and wait for its result."""
        await self._client.runs.wait(None, "bench", input=_TRIVIAL)

    async def begin(self, events: int, pause: float, *, joined: bool) -> str:
        """Start a run on a thread of its own, with a stream that can be resumed."""
        del joined
        thread = (await self._client.threads.create())["thread_id"]
        given = {"events": events, "pause": pause}
        run = await self._client.runs.create(thread, "bench", input=given, stream_mode="custom", stream_resumable=True)
        return f"{thread} {run['run_id']}"

    async def read(self, run: str, cursor: str | None) -> AsyncGenerator[Piece, None]:
        """Join its stream after an event; `-` is before all of them."""
        thread, run_id = run.split()
        parts = self._client.runs.join_stream(thread, run_id, stream_mode="custom", last_event_id=cursor or "-")
        async with aclosing(cast("AsyncGenerator[Any]", parts)):
            async for part in parts:
                if part.event == "custom":
                    yield Piece(part.id or cursor or "-", [part.data["number"]])

    async def state(self, run: str) -> str:
        """Get its status."""
        thread, run_id = run.split()
        try:
            status = (await self._client.runs.get(thread, run_id))["status"]
        except NotFoundError:
            return MISSING
        return _ENDED.get(status, UNFINISHED)


if __name__ == "__main__":
    main(LangGraphClient(os.environ["PEER_SERVER"]))
