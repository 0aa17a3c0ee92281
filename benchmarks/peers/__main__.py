"""Runs the same job on Runstream and on its peers, each on a folder of its own, one after another.

Server, engine or store on one core, workers of their own and the client on the other; every client is a process of its
own and runs the same loops (`programs/measuring.py`). What is not installed yet is installed into build/peers first.

1. start: a trivial run is started, one at a time, until the system has acknowledged it.
2. result: a trivial run is started until its result is here, one at a time, then 64 at a time.
3. stream: one run emits 2,000 small events one by one as fast as it may, one reader.
4. resume: the same; the reader drops its connection three times at random places, is away for 50 ms, and goes on by the
   system's own means.
5. kill: a run emits 1,000 events, 2 ms apart; when 500 were seen the server is killed with SIGKILL and started again;
   then the same with the server and the worker, where they are two processes.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.machine import cores, describe
from benchmarks.peers.a2a import A2A
from benchmarks.peers.dbos import DbosPostgres, DbosSqlite
from benchmarks.peers.job import Job, do
from benchmarks.peers.langgraph import LangGraph
from benchmarks.peers.machine import look
from benchmarks.peers.restate import Restate
from benchmarks.peers.runstream import Runstream, RunstreamNative
from benchmarks.peers.table import Measured, as_json, notes, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.peers.peer import Peer

_INTERRUPTED = 130

PEERS: dict[str, Callable[[], Peer]] = {
    "runstream": Runstream,
    "runstream-native": RunstreamNative,
    "langgraph": LangGraph,
    "dbos-sqlite": DbosSqlite,
    "dbos-postgres": DbosPostgres,
    "restate": Restate,
    "a2a": A2A,
}


async def _all(names: list[str], job: Job, measured: list[Measured]) -> None:
    """Measure one peer after another, adding to `measured`; SIGTERM ends it and all it started, as Ctrl-C does."""
    running = asyncio.current_task()
    if running is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    for name in names:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        peer = PEERS[name]()
        with tempfile.TemporaryDirectory(prefix="peers-", ignore_cleanup_errors=True) as folder:
            machine = look(Path(folder))
            measured.append(Measured(peer.facts, machine, await do(job, peer, Path(folder))))


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--only", nargs="+", metavar="NAME", choices=PEERS, help=f"of {', '.join(PEERS)}; default all")
    options.add_argument("--jobs", type=int, default=500, metavar="N", help="trivial runs, 64 in flight (default 500)")
    options.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    given = options.parse_args()
    job = Job(runs=given.jobs)
    here = describe()
    machine = f"{here.processor}, {here.cores} cores, Python {here.python}, {here.system}"
    machine += f"; server side on core {cores()[0]}, client side on {cores()[1]}; loopback"
    peers: list[Measured] = []
    interrupted = False
    try:
        asyncio.run(_all(given.only or list(PEERS), job, peers))
    except (KeyboardInterrupt, asyncio.CancelledError):
        interrupted = True  # what was measured until then is told all the same
    if peers:
        print(f"machine: {machine}\n\n{table(peers)}\n\n{notes(peers)}")
    if given.json:
        given.json.write_text(as_json(peers, job, machine))
    if interrupted:
        raise SystemExit(_INTERRUPTED)


if __name__ == "__main__":
    main()
