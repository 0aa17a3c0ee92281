"""DBOS's client in a process of its own: enqueues, polls for results, reads streams from an offset."""

from __future__ import annotations

import os
from contextlib import aclosing
from typing import TYPE_CHECKING

from dbos import DBOSClient

from benchmarks.peers.programs.counting import Piece
from benchmarks.peers.programs.measuring import FAILED, FINISHED, MISSING, UNFINISHED, main

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_RESULT_SECONDS = float(os.environ["PEER_RESULT_SECONDS"])
_STREAM_SECONDS = float(os.environ["PEER_STREAM_SECONDS"])
_ENDED = {"SUCCESS": FINISHED, "ERROR": FAILED, "CANCELLED": FAILED, "MAX_RECOVERY_ATTEMPTS_EXCEEDED": FAILED}


class QueueClient:
    """Talks to the database that the engine works on."""

    def __init__(self, store: str) -> None:
        self._store = store

    async def connect(self) -> None:
        """Connect; with PostgreSQL, streams are woken by LISTEN/NOTIFY, as the engine is by default."""
        self._client = DBOSClient(
            system_database_url=self._store, use_listen_notify=self._store.startswith("postgresql")
        )

    async def create(self) -> str:
        """Enqueue a workflow."""
        return str((await self._client.enqueue_async(self._options("trivial"))).workflow_id)

    async def run(self) -> None:
        """Enqueue one, and poll for its result."""
        handle = await self._client.enqueue_async(self._options("trivial"))
        await handle.get_result(polling_interval_sec=_RESULT_SECONDS)

    async def begin(self, events: int, pause: float, *, joined: bool) -> str:
        """Enqueue one that counts."""
        del joined
        return str((await self._client.enqueue_async(self._options("count"), events, pause)).workflow_id)

    async def read(self, run: str, cursor: str | None) -> AsyncGenerator[Piece, None]:
        """Read its stream from an offset."""
        offset = int(cursor or 0)
        values = self._client.read_stream_async(run, "numbers", offset=offset, polling_interval_sec=_STREAM_SECONDS)
        async with aclosing(values):
            async for value in values:
                offset += 1
                yield Piece(str(offset), [value])

    async def state(self, run: str) -> str:
        """Ask for its status."""
        found = await self._client.list_workflows_async(workflow_ids=[run])
        return _ENDED.get(found[0].status, UNFINISHED) if found else MISSING

    @staticmethod
    def _options(workflow: str) -> dict[str, str]:
        return {"queue_name": "work", "workflow_name": workflow}


if __name__ == "__main__":
    main(QueueClient(os.environ["PEER_STORE"]))
