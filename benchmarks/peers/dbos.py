"""DBOS: durable workflows as a library, whose engine and work are one process, on SQLite or on PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.machine import cores
from benchmarks.peers.environments import python
from benchmarks.peers.peer import Facts, Hosted, Layout, Part, free_address, talking
from benchmarks.peers.program import Answer, Command, NotPossible

if TYPE_CHECKING:
    from collections.abc import Mapping

_START_SECONDS = 60.0
_GRACE_SECONDS = 15.0
#: Shorter ones are slower: polls and commits wait for each other, in SQLite above all.
_POLLS = {
    "PEER_QUEUE_SECONDS": "0.1",
    "PEER_RESULT_SECONDS": "0.05",
    "PEER_STREAM_SECONDS": "0.1",
}
_TUNED = "polls of the queue {} s, of results {} s, of streams {} s (all 1 s by default)".format(*_POLLS.values())
_PLACED = "engine and work in one process on the first core; client (DBOSClient) on the other"
_DEBIAN = "/usr/lib/postgresql"


class _Dbos(Hosted):
    """An engine process that takes workflows from a queue, and a client process that enqueues them."""

    server_is_worker = True

    def install(self) -> None:
        """Make its environment."""
        python("dbos")

    async def ready(self, name: str) -> None:
        """Launch the engine, which recovers what an earlier one has left."""
        if name == "dbos-engine":
            await self.program(name).ask("connect", _START_SECONDS)

    async def within(self, count: int, in_flight: int, limit: float) -> Answer | None:
        """Start workflows in the engine's own process, without queue and client."""
        patience = limit + _GRACE_SECONDS
        return await self.program("dbos-engine").ask("run", patience, count=count, in_flight=in_flight, limit=limit)

    @staticmethod
    def _engine_and_client(store: str) -> tuple[Part, Command]:
        told: Mapping[str, str] = {"PEER_STORE": store, **_POLLS}
        program = str(python("dbos"))
        engine = Part(command=talking("dbos-engine", program, "dbos_engine", told, core=0))
        return engine, talking("dbos-client", program, "dbos_client", told, core=1)


class DbosSqlite(_Dbos):
    """On a SQLite file, which both processes open."""

    facts = Facts(
        title="DBOS SQLite",
        what="library for durable workflows; engine, work and store in the application's process",
        versions="dbos 3.4.0, SQLite of Python",
        durable="a row in SQLite, synced by its commit (rollback journal, synchronous=FULL, DBOS's default)",
        streamed="a row in SQLite, synced before it can be read",
        resumes="read_stream(offset)",
        placed=_PLACED,
        tuned=_TUNED,
    )

    def layout(self, folder: Path) -> Layout:
        """Return the engine and the client."""
        engine, client = self._engine_and_client(f"sqlite:///{folder / 'dbos.sqlite'}")
        return Layout([engine], client, folder)


class DbosPostgres(_Dbos):
    """On a PostgreSQL server of its own."""

    facts = Facts(
        title="DBOS PostgreSQL",
        what="library for durable workflows; engine and work in the application's process, store in PostgreSQL",
        versions="dbos 3.4.0, PostgreSQL as installed",
        durable="a row in PostgreSQL (fsync on, synchronous_commit on)",
        streamed="a row in PostgreSQL, synced before it can be read",
        resumes="read_stream(offset)",
        placed=_PLACED + "; PostgreSQL on the first core, and alive through the kills",
        tuned=_TUNED + "; streams are woken by LISTEN/NOTIFY",
    )

    def install(self) -> None:
        """Make its environment, and look for PostgreSQL."""
        super().install()
        _postgres("initdb")

    def layout(self, folder: Path) -> Layout:
        """Return PostgreSQL on a new cluster, the engine and the client."""
        address, user = free_address(), "postgres" if os.geteuid() == 0 else None
        cluster = folder / "postgresql"
        cluster.mkdir(mode=0o700)
        if user:
            folder.chmod(0o711)  # PostgreSQL does not run as root, and must reach its folder
            folder.parent.chmod(0o711)
            shutil.chown(cluster, user, user)
        _init_cluster(cluster, user)
        port = address.partition(":")[2]
        line = [_postgres("postgres"), "-D", str(cluster), "-p", port, "-c", "listen_addresses=127.0.0.1"]
        line += ["-c", f"unix_socket_directories={cluster}", "-c", "max_connections=200"]
        server = Command(
            name="postgresql",
            line=line,
            cores=cores()[0],
            folder=cluster,
            user=user,
            stopped_by=signal.SIGINT,  # a fast shutdown: it does not wait for its clients
        )
        engine, client = self._engine_and_client(f"postgresql+psycopg://postgres@{address}/bench")
        return Layout([Part(command=server, address=address, role="store"), engine], client, folder)


def _postgres(program: str) -> str:
    """Return where a program of PostgreSQL is: on the path, or the newest where Debian puts them."""
    found = shutil.which(program)
    if found:
        return found
    for each in sorted(Path(_DEBIAN).glob(f"*/bin/{program}"), reverse=True):
        return str(each)
    raise NotPossible("there is no PostgreSQL (Debian: apt-get install postgresql)")


def _init_cluster(cluster: Path, user: str | None) -> None:
    try:
        subprocess.run(
            [_postgres("initdb"), "-A", "trust", "-U", "postgres", "-D", str(cluster)],
            check=True,
            capture_output=True,
            text=True,
            cwd=cluster,
            user=user,
            group=user,
            extra_groups=[] if user else None,
        )
    except (subprocess.CalledProcessError, LookupError, OSError) as error:
        raise NotPossible(f"initdb failed: {getattr(error, 'stderr', '') or error}") from None
