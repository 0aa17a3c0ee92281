"""Runstream itself, by the same job: `runstream serve` on each of its engines, the SDK's runner, one client."""

from __future__ import annotations

import sys
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from benchmarks.machine import cores
from benchmarks.peers.peer import Facts, Hosted, Layout, Part, free_address, quiet, talking
from benchmarks.peers.program import Command, NotPossible

if TYPE_CHECKING:
    from pathlib import Path


class _Runstream(Hosted):
    """A server, a runner with room for 256 executions, a client."""

    joins = True
    engine: str

    def layout(self, folder: Path) -> Layout:
        """Return the three processes."""
        address = free_address()
        line = [sys.executable, "-m", "runstream.cli.main", "serve", "--listen", address, "--engine", self.engine]
        line += ["--data", str(folder / "data"), "--log-level", "error"]
        server = Command(name="runstream-server", line=line, cores=cores()[0])
        told = {"PEER_SERVER": address}
        worker = quiet("runstream-worker", sys.executable, "runstream_worker", told, core=1)
        client = talking("runstream-client", sys.executable, "runstream_client", told, core=1)
        parts = [Part(command=server, address=address), Part(command=worker, role="worker")]
        return Layout(parts, client, folder)


def _facts(title: str, engine: str) -> Facts:
    return Facts(
        title=title,
        what="execution service: a server process, runners and clients over gRPC",
        versions=f"runstream {version('runstream')}, {engine} engine",
        durable="LevelDB in the server; the commit is synced (fdatasync) before the answer",
        streamed="the change is synced before anyone sees it",
        resumes="Watch after_revision",
        placed="server on the first core; runner and client on the other",
    )


class Runstream(_Runstream):
    """On grpcio, as `pip install runstream` has it."""

    engine = "grpcio"
    facts = _facts("Runstream", engine)


class RunstreamNative(_Runstream):
    """On the native engine, as `pip install 'runstream[native]'` has it."""

    engine = "native"
    facts = _facts("Runstream native", engine)

    def install(self) -> None:
        """Look for the engine, which is installed with Runstream or not at all."""
        if find_spec("pygrpc_native") is None:
            raise NotPossible("the native engine is not installed (pip install 'runstream[native]')")
