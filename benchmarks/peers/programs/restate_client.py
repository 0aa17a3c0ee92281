"""Restate's client: plain HTTP to the ingress, with HTTP/1.1 connections that are kept."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx

from benchmarks.peers.programs.counting import Piece
from benchmarks.peers.programs.measuring import FAILED, FINISHED, MISSING, UNFINISHED, main

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_POLL_SECONDS = 0.01
_PATIENCE_SECONDS = 30.0
_OK, _NOT_FOUND, _NOT_READY = 200, 404, 470


class RestateClient:
    """Calls one server's ingress."""

    def __init__(self, ingress: str, admin: str, worker: str) -> None:
        self._ingress, self._admin, self._worker = ingress, admin, worker

    async def connect(self) -> None:
        """Tell the server where the worker is."""
        limits = httpx.Limits(max_connections=256, max_keepalive_connections=256)
        self._client = httpx.AsyncClient(base_url=f"http://{self._ingress}", timeout=_PATIENCE_SECONDS, limits=limits)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while True:
                try:
                    answer = await self._client.post(
                        f"http://{self._admin}/deployments", json={"uri": f"http://{self._worker}", "force": True}
                    )
                    answer.raise_for_status()
                    await self.run()
                except httpx.HTTPError:
                    await asyncio.sleep(0.1)
                else:
                    return

    async def create(self) -> str:
        """Send an invocation: the answer is its id."""
        answer = await self._client.post("/trivial/run/send")
        answer.raise_for_status()
        return str(answer.json()["invocationId"])

    async def run(self) -> None:
        """Call, and wait for the result."""
        (await self._client.post("/trivial/run")).raise_for_status()

    async def begin(self, events: int, pause: float, *, joined: bool) -> str:
        """Send a workflow that counts."""
        del joined
        run = uuid4().hex
        answer = await self._client.post(f"/counting/{run}/run/send", json={"events": events, "pause": pause})
        answer.raise_for_status()
        return run

    async def read(self, run: str, cursor: str | None) -> AsyncGenerator[Piece, None]:
        """Ask for more until the workflow has ended and there is none."""
        after, ended = int(cursor or 0), False
        while True:
            answer = await self._client.post(f"/counting/{run}/events", json=after)
            answer.raise_for_status()
            numbers = answer.json()
            after += len(numbers)
            if numbers:
                yield Piece(str(after), numbers)
            elif ended:
                return
            else:
                ended = await self.state(run) != UNFINISHED
                await asyncio.sleep(0 if ended else _POLL_SECONDS)

    async def state(self, run: str) -> str:
        """Ask for the workflow's output."""
        answer = await self._client.get(f"/restate/workflow/counting/{run}/output")
        return {_OK: FINISHED, _NOT_FOUND: MISSING, _NOT_READY: UNFINISHED}.get(answer.status_code, FAILED)


if __name__ == "__main__":
    main(RestateClient(os.environ["PEER_SERVER"], os.environ["PEER_ADMIN"], os.environ["PEER_WORKER"]))
