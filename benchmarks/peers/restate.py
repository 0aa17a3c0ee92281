"""Restate: a native server that journals what workers do, and calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.machine import cores
from benchmarks.peers.environments import binary, python
from benchmarks.peers.peer import Facts, Hosted, Layout, Part, free_address, quiet, talking
from benchmarks.peers.program import Command

if TYPE_CHECKING:
    from pathlib import Path

_PROGRAM = "@restatedev/restate-server-*/bin/restate-server"


class Restate(Hosted):
    """A server, a Python worker, a client of the ingress."""

    facts = Facts(
        title="Restate",
        what="durable execution: a native (Rust) server that calls workers over HTTP",
        versions="restate-server 1.7.12, restate-sdk 1.3.0",
        durable="the server's log in RocksDB, written with fsync (its default)",
        streamed="an entry of the log; Restate has no stream, so the events are the state of a workflow",
        resumes="the number of events read, asked for in each poll (our handler)",
        placed="server on the first core; worker (hypercorn, one process) and client on the other",
        tuned="nothing in the server; the reader polls every 10 ms when there is nothing new",
    )

    def install(self) -> None:
        """Make its environment, and install the server."""
        python("restate")
        binary("restate", _PROGRAM)

    def layout(self, folder: Path) -> Layout:
        """Return the three processes."""
        ingress, admin, fabric, worker_at = (free_address() for _ in range(4))
        settings = {
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_BASE_DIR": str(folder / "data"),
            "RESTATE_NODE_NAME": "bench",
            "RESTATE_CLUSTER_NAME": "bench",
            "RESTATE_LOG_FILTER": "error",
            "RESTATE_BIND_ADDRESS": fabric,
            "RESTATE_ADVERTISED_ADDRESS": f"http://{fabric}",
            "RESTATE_INGRESS__BIND_ADDRESS": ingress,
            "RESTATE_ADMIN__BIND_ADDRESS": admin,
        }
        line = [str(binary("restate", _PROGRAM)), "--no-logo"]
        server = Command(name="restate-server", line=line, cores=cores()[0], environment=settings, folder=folder)
        told = {"PEER_SERVER": ingress, "PEER_ADMIN": admin, "PEER_WORKER": worker_at}
        program = str(python("restate"))
        worker = quiet("restate-worker", program, "restate_worker", told, core=1)
        client = talking("restate-client", program, "restate_client", told, core=1)
        parts = [Part(command=worker, address=worker_at, role="worker"), Part(command=server, address=ingress)]
        return Layout(parts, client, folder)
