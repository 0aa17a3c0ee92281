"""The no-op: an engine alone, with nothing behind it but a handler that answers at once.

`python -m benchmarks.noop ENGINE` serves it in a process of its own. It is the denominator of ratios: what the engine
takes for a call, before Runstream has done anything.
"""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import grpc
import uvloop
from grpc import aio

from benchmarks.machine import cores, pinned
from benchmarks.server_process import ServerProcess
from benchmarks.wire import Call

if TYPE_CHECKING:
    from collections.abc import Iterator

_SERVICE: Final = "benchmark.Noop"
NOOP: Final = Call.of_bytes(f"/{_SERVICE}/Call", b"")


@contextmanager
def noop_server(engine: str) -> Iterator[ServerProcess]:
    """Run an engine by itself, pinned to the server's core, for the length of the block."""
    with pinned(cores()[0]):
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.noop", engine], stdout=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().strip() if process.stdout else ""
        if not address:
            raise RuntimeError(f"the engine {engine} did not start")
        yield ServerProcess(process, address, 0.0)
    finally:
        process.terminate()
        process.communicate(timeout=60)


async def _answer(_request: bytes, _context: object) -> bytes:
    return b""


async def _serve(engine: str) -> None:
    # Optional, and without types for all that it takes: named here alone.
    module: Any = aio if engine == "grpcio" else importlib.import_module("pygrpc_native.aio")
    server = module.server()
    server.add_registered_method_handlers(_SERVICE, {"Call": grpc.unary_unary_rpc_method_handler(_answer)})
    generic = grpc.method_handlers_generic_handler(_SERVICE, {"Call": grpc.unary_unary_rpc_method_handler(_answer)})
    server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(sys.argv[1]))
