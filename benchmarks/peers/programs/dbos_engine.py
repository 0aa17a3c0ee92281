"""DBOS's process: the engine is a library, so it and the work are one. Measures from within, too."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from dbos import DBOS

from benchmarks.peers.programs.measuring import main

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.peers.programs.counting import Piece

_QUEUE_SECONDS = float(os.environ["PEER_QUEUE_SECONDS"])
_RESULT_SECONDS = float(os.environ["PEER_RESULT_SECONDS"])


@DBOS.workflow()
async def trivial() -> str:
    """Do nothing."""
    return "done"


@DBOS.workflow()
def count(events: int, pause: float) -> None:
    """Write numbers to a stream; each is recorded, so a recovered workflow goes on after the last."""
    for number in range(events):
        DBOS.write_stream("numbers", number)
        if pause:
            time.sleep(pause)
    DBOS.close_stream("numbers")


class Within:
    """Starts workflows in the engine's own process, without a queue: what a request handler beside it would do."""

    async def connect(self) -> None:
        """Launch the engine: it takes up what an earlier process has left."""
        config = {
            "name": "bench",
            "system_database_url": os.environ["PEER_STORE"],
            "run_admin_server": False,
            "console_log_level": "ERROR",
        }
        await asyncio.to_thread(self._launch, config)

    @staticmethod
    def _launch(config: dict[str, object]) -> None:
        DBOS(config=config)
        DBOS.launch()
        DBOS.register_queue("work", polling_interval_sec=_QUEUE_SECONDS)

    async def create(self) -> str:
        """Start a workflow."""
        return str((await DBOS.start_workflow_async(trivial)).workflow_id)

    async def run(self) -> None:
        """Start one, and wait for its result."""
        handle = await DBOS.start_workflow_async(trivial)
        await handle.get_result(polling_interval_sec=_RESULT_SECONDS)

    async def begin(self, events: int, pause: float, *, joined: bool) -> str:
        """Not asked of the engine."""
        raise NotImplementedError(events, pause, joined)

    def read(self, run: str, cursor: str | None) -> AsyncGenerator[Piece, None]:
        """Not asked of the engine."""
        raise NotImplementedError(run, cursor)

    async def state(self, run: str) -> str:
        """Not asked of the engine."""
        raise NotImplementedError(run)


if __name__ == "__main__":
    main(Within())
