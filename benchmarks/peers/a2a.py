"""The A2A SDK: a protocol's own server parts, with tasks in SQLite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers.environments import python
from benchmarks.peers.peer import Facts, Hosted, Layout, Part, free_address, quiet, talking

if TYPE_CHECKING:
    from pathlib import Path


class A2A(Hosted):
    """One server process, in which the agent works, and a client."""

    server_is_worker = True
    facts = Facts(
        title="a2a-sdk",
        what="SDK of the Agent2Agent protocol: an agent's own server, not an execution engine",
        versions="a2a-sdk 1.3.0, SQLAlchemy 2.1.9, aiosqlite 0.22.1",
        durable="the whole task as one row in SQLite, synced by its commit (rollback journal, synchronous=FULL)",
        streamed="the whole task is written again for each event, then the event is sent",
        resumes="SubscribeToTask, which begins with the whole task; no cursor",
        placed="server and work in one process on the first core; client on the other",
    )

    def install(self) -> None:
        """Make its environment."""
        python("a2a")

    def layout(self, folder: Path) -> Layout:
        """Return the server and the client."""
        address, program = free_address(), str(python("a2a"))
        told = {"PEER_SERVER": address, "PEER_STORE": f"sqlite+aiosqlite:///{folder / 'tasks.sqlite'}"}
        server = Part(command=quiet("a2a-server", program, "a2a_server", told, core=0), address=address)
        return Layout([server], talking("a2a-client", program, "a2a_client", told, core=1), folder)
