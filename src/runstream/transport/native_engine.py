"""The native engine: the methods on pygrpc-native, whose HTTP/2 runs in Rust threads that do not hold the GIL.

    Rust threads ── events ──▶ our thread ── batches ──▶ event loop: one task per call ──▶ gate
         ◀──────────────────────── bytes, from the event loop ────────────────────────────

What it does not know itself is answered by a server of grpc.aio on a Unix socket of our own, to which the Rust threads
hand such calls on: health, reflection (which streams both ways), and methods that do not exist.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
import pygrpc_native
import structlog
from grpc import aio
from pygrpc_native import EVENT_CANCEL, NativeGrpcFront

from runstream.model.errors import ResourceExhausted, RunstreamError
from runstream.transport.gate import Call
from runstream.transport.keepalive import KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS
from runstream.transport.outlet import Outlet
from runstream.transport.quiet import quiet_seconds, until_quiet
from runstream.transport.standard import StandardServices
from runstream.transport.statuses import code_of, message_of, trailers_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from runstream.feed.hub import Offer
    from runstream.pipeline.context import Caller
    from runstream.transport.engine import Wire
    from runstream.transport.gate import Gate
    from runstream.transport.methods import Method

    Metadata = tuple[tuple[str, str | bytes], ...]
    Details = tuple[Metadata, str, float | None]
    Event = tuple[int, int, int, bytes | None, bytes | str | None, Details | None]

VERSION: Final[str] = pygrpc_native.__version__
if not VERSION.startswith("0.5."):
    raise ImportError(f"it is version {VERSION}, and this needs 0.5")

_LOG = structlog.get_logger(__name__)

#: How many events the event loop is given at once.
_BATCH = 64
#: As many as grpcio lets a client open on one connection: beyond the default, 1,024, clients would wait in silence.
_STREAMS_PER_CONNECTION = (1 << 31) - 1
_INTERNAL: Final[int] = grpc.StatusCode.INTERNAL.value[0]
_CANCELLED: Final[int] = grpc.StatusCode.CANCELLED.value[0]


class NativeEngine:
    """Serves the methods with pygrpc-native."""

    def __init__(self, gate: Gate, methods: Sequence[Method], wire: Wire) -> None:
        self._gate = gate
        self._methods = methods
        self._max_message_bytes = wire.max_message_bytes
        self._front: Any = None
        self._thread: threading.Thread | None = None
        self._tasks: dict[int, asyncio.Task[None]] = {}
        # Tasks whose client has gone; something must hold them until they have ended.
        self._leaving: set[asyncio.Task[None]] = set()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._side = aio.server()
        self._standard = StandardServices(self._side)

    def listen(self, address: str) -> int:
        """Bind `address`, host:port; return the port, chosen when it was 0. OSError when it is taken."""
        try:
            self._front = NativeGrpcFront(
                address,
                [(method.path, method.stream is not None) for method in self._methods],
                call_details=True,
                delay_stream_headers=True,
                keepalive_time_ms=KEEPALIVE_MS,
                keepalive_timeout_ms=KEEPALIVE_TIMEOUT_MS,
                keepalive_permit_without_calls=True,
                max_concurrent_streams=_STREAMS_PER_CONNECTION,
                # Two servers on one port would take each other's calls.
                reuse_port=False,
            )
        except OSError as error:
            raise OSError(f"cannot listen on {address}: {error.strerror or error}") from error
        port: int = self._front.bound_port
        return port

    async def start(self) -> None:
        """Begin to serve."""
        # Nobody else can reach the socket: the folder is ours alone.
        self._folder = tempfile.TemporaryDirectory(prefix="runstream-", ignore_cleanup_errors=True)
        socket = str(Path(self._folder.name) / "side.sock")
        self._side.add_insecure_port(f"unix:{socket}")
        await self._side.start()
        await self._standard.start()
        self._front.set_fallback(socket)
        self._front.start()
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._hand_over, args=(loop,), name="native-calls", daemon=True)
        self._thread.start()

    async def drain(self) -> None:
        """Say on health that no new calls are taken."""
        await self._standard.drain()

    async def stop(self, grace: float) -> None:
        """Let running calls end for `grace` seconds, then cut them and all connections; the gate must drain."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        await until_quiet(self._gate, grace)
        self._standard.end()
        stopping = asyncio.create_task(self._side.stop(grace))
        self._gate.refuse()
        if running := self._running():
            await asyncio.wait(running, timeout=grace)
        await stopping
        # An answer is on its way when its task has ended. Closing waits for some of it, and cuts off what is long.
        await asyncio.sleep(quiet_seconds(grace))
        await asyncio.to_thread(self._close, thread)
        cut = self._running()
        for task in cut:
            task.cancel()
        await asyncio.gather(*cut, return_exceptions=True)
        if self._folder is not None:
            self._folder.cleanup()

    def _running(self) -> list[asyncio.Task[None]]:
        return [*self._tasks.values(), *self._leaving]

    def _close(self, thread: threading.Thread) -> None:
        self._front.close()
        thread.join()

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """Bring events to the event loop, until the front is closed; the one thing that its thread does."""
        while (events := self._front.recv_batch_details(_BATCH)) is not None:
            try:
                loop.call_soon_threadsafe(self._take, events)
            except RuntimeError:  # the loop was closed, and nobody stopped us
                self._front.close()

    def _take(self, events: list[Event]) -> None:
        """Begin the calls that have come, and end those that nobody waits for any more."""
        for kind, call_id, method_id, payload, _, details in events:
            if kind == EVENT_CANCEL:
                self._leave(call_id)
            elif payload is not None and details is not None:
                call = self._serve(call_id, self._methods[method_id], payload, details)
                self._tasks[call_id] = asyncio.create_task(call)

    def _leave(self, call_id: int) -> None:
        # Taken out here, since a task that is cancelled before its first step never comes to do it.
        task = self._tasks.pop(call_id, None)
        if task is not None and task.cancel():
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _serve(self, call_id: int, method: Method, payload: bytes, details: Details) -> None:
        """Serve a call; however that goes, the call is ended."""
        request_id = ""
        try:
            self._measure(payload)
            metadata = {key: value for key, value in details[0] if type(value) is str}
            caller = self._gate.caller(Call(metadata, peer=lambda: details[1]))
            request_id = caller.request_id
            if method.stream is None:
                answer = await self._gate.unary(method, payload, caller)
                self._front.respond(call_id, method.encode(answer))
            else:
                await self._stream(call_id, method, payload, caller)
        except RunstreamError as error:
            code: int = code_of(error).value[0]
            self._front.fail(call_id, code, message_of(error), trailers_of(error, request_id))
        except asyncio.CancelledError:
            self._front.fail(call_id, _CANCELLED, "The call was cancelled.")  # no matter when the client has gone
            raise
        except Exception:  # noqa: BLE001  # a call that nobody ends would hang
            # The gate lets out nothing but errors of our tree: it is the answer that could not be sent.
            _LOG.exception("failed", method=method.path, request_id=request_id)
            self._front.fail(call_id, _INTERNAL, f"The server failed; its log has more under request id {request_id}.")
        finally:
            self._tasks.pop(call_id, None)

    def _measure(self, payload: bytes) -> None:
        limit = self._max_message_bytes
        if len(payload) > limit:
            told = f"The request has {len(payload)} bytes; the server takes {limit}."
            raise ResourceExhausted("MESSAGE_TOO_LARGE", told)

    async def _stream(self, call_id: int, method: Method, payload: bytes, caller: Caller) -> None:
        outlet = Outlet(self._front.stream_try_send, call_id)

        async def started() -> Offer:
            self._front.stream_send_initial_metadata(call_id, ())
            return outlet.send_now

        async with aclosing(self._gate.stream(method, payload, caller, started)) as answers:
            async for answer in answers:
                if not await outlet.send(method.encode(answer)):
                    return
        self._front.stream_end(call_id)
