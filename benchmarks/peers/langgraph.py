"""The LangGraph development server: server, queue and work in one process, state in memory."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from benchmarks.machine import cores
from benchmarks.peers.environments import HERE, python
from benchmarks.peers.peer import Facts, Hosted, Layout, Part, free_address, talking
from benchmarks.peers.program import Command

if TYPE_CHECKING:
    from pathlib import Path

_JOBS = "64"


class LangGraph(Hosted):
    """`langgraph dev` on a folder with one graph."""

    server_is_worker = True
    facts = Facts(
        title="LangGraph dev",
        what="development server of LangGraph; NOT its production engine, which is closed (Go core, PostgreSQL, Redis)",
        versions="langgraph-cli 0.4.40, langgraph-api 0.16.7, langgraph-runtime-inmem 0.36.7",
        durable="nothing: memory, written to files every 10 s without a sync",
        streamed="nothing: memory",
        resumes="Last-Event-ID",
        placed="server and work in one process on the first core; client on the other",
        tuned=f"{_JOBS} jobs per worker (default 10), so that 64 can be in flight; its idle poll of 0.5 s is fixed",
    )

    def install(self) -> None:
        """Make its environment."""
        python("langgraph")

    def layout(self, folder: Path) -> Layout:
        """Return the server and the client."""
        address, program = free_address(), python("langgraph")
        shutil.copy(HERE / "programs" / "langgraph_graph.py", folder / "graph.py")
        (folder / "langgraph.json").write_text(
            json.dumps({"dependencies": ["."], "graphs": {"bench": "./graph.py:graph"}})
        )
        port = address.partition(":")[2]
        line = [str(program.parent / "langgraph"), "dev", "--no-browser", "--no-reload", "--host", "127.0.0.1"]
        line += ["--port", port, "--n-jobs-per-worker", _JOBS, "--server-log-level", "ERROR"]
        server = Command(
            name="langgraph-server",
            line=line,
            cores=cores()[0],
            folder=folder,
            environment={"LANGSMITH_TRACING": "false", "LANGGRAPH_CLI_NO_ANALYTICS": "1"},
        )
        client = talking("langgraph-client", str(program), "langgraph_client", {"PEER_SERVER": address}, core=1)
        return Layout([Part(command=server, address=address)], client, folder)
