"""Runstream itself, by the same job: `runstream serve` on the grpcio engine, the SDK's runner, one client."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

from benchmarks.machine import cores
from benchmarks.peers.peer import Facts, Hosted, Layout, Part, free_address, quiet, talking
from benchmarks.peers.program import Command

if TYPE_CHECKING:
    from pathlib import Path


class Runstream(Hosted):
    """A server, a runner with room for 256 executions, a client."""

    joins = True
    facts = Facts(
        title="Runstream",
        what="execution service: a server process, runners and clients over gRPC",
        versions=f"runstream {version('runstream')}, grpcio engine",
        durable="LevelDB in the server; the commit is synced (fdatasync) before the answer",
        streamed="the change is synced before anyone sees it",
        resumes="Watch after_revision",
        placed="server on the first core; runner and client on the other",
    )

    def layout(self, folder: Path) -> Layout:
        """Return the three processes."""
        address = free_address()
        line = [sys.executable, "-m", "runstream.cli.main", "serve", "--listen", address]
        line += ["--data", str(folder / "data"), "--log-level", "error"]
        server = Command(name="runstream-server", line=line, cores=cores()[0])
        told = {"PEER_SERVER": address}
        worker = quiet("runstream-worker", sys.executable, "runstream_worker", told, core=1)
        client = talking("runstream-client", sys.executable, "runstream_client", told, core=1)
        parts = [Part(command=server, address=address), Part(command=worker, role="worker")]
        return Layout(parts, client, folder)
