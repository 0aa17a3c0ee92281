"""The page: ``/metrics`` over HTTP, for Prometheus, and nothing else.

It is served by the event loop, to a few at a time, each on a connection of its own that is closed with the answer. The
numbers are read in one turn of the loop and written out in a thread.
"""

from __future__ import annotations

import asyncio
import gzip
import io
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPException, parse_headers
from typing import TYPE_CHECKING, Final, cast

from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

    from runstream.metrics.reader import Reader

_PATH: Final = "/metrics"
_REQUEST_BYTES: Final = 16 << 10
_AT_ONCE: Final = 16
#: How long a client may take to ask, and to take the answer.
_SECONDS: Final = 10.0


class MetricsPage:
    """Serves what a reader reads."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._server: asyncio.Server | None = None
        self._visits: set[asyncio.Task[None]] = set()

    async def listen(self, address: str) -> str:
        """Serve on an address, HOST:PORT; return it with the port, chosen when it was 0. OSError when it is taken."""
        host, _, port = address.rpartition(":")
        try:
            self._server = await asyncio.start_server(self._visit, host.strip("[]"), int(port), limit=_REQUEST_BYTES)
        except OSError as error:
            raise OSError(f"cannot listen on {address} for metrics: {error}") from error
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Serve no more. A repeat does nothing."""
        if self._server is None:
            return
        self._server.close()
        for visit in list(self._visits):
            visit.cancel()
        await asyncio.gather(*self._visits, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _visit(self, asked: asyncio.StreamReader, told: asyncio.StreamWriter) -> None:
        visit = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            if len(self._visits) < _AT_ONCE:
                self._visits.add(visit)
                with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                    await self._answer(asked, told)
        finally:
            self._visits.discard(visit)
            told.transport.abort()

    async def _answer(self, asked: asyncio.StreamReader, told: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_SECONDS):
            try:
                head = await asked.readuntil(b"\r\n\r\n")
            except asyncio.LimitOverrunError:
                answer = _plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            else:
                answer = await self._page(head)
            told.write(answer)
            told.close()
            await told.wait_closed()

    async def _page(self, head: bytes) -> bytes:
        """Answer a request, of which `head` is all up to the first empty line."""
        first, _, rest = head.partition(b"\r\n")
        parts = first.decode("latin-1").split(" ")
        try:
            method, target, protocol = parts
            headers = parse_headers(io.BytesIO(rest))
        except (ValueError, HTTPException):
            return _plain(HTTPStatus.BAD_REQUEST)
        if not protocol.startswith("HTTP/1."):
            return _plain(HTTPStatus.BAD_REQUEST)
        if target.partition("?")[0] != _PATH:
            return _plain(HTTPStatus.NOT_FOUND)
        if method not in ("GET", "HEAD"):
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
        metrics = await self._reader.read()
        accepted = headers.get("Accept", ""), headers.get("Accept-Encoding", "")
        told, body = await asyncio.to_thread(_write_out, metrics, *accepted)
        return _response(HTTPStatus.OK, told, body, with_body=method == "GET")


class _Read(Collector):
    """What was read, as an encoder wants it."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _write_out(metrics: list[Metric], accepted: str, encodings: str) -> tuple[dict[str, str], bytes]:
    encode, content_type = choose_encoder(accepted)
    body = encode(_Read(metrics))
    told = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
    if gzip_accepted(encodings):
        return told | {"Content-Encoding": "gzip"}, gzip.compress(body, compresslevel=1)
    return told, body


def _plain(status: HTTPStatus, told: dict[str, str] | None = None) -> bytes:
    text = f"{status.value} {status.phrase}: there is {_PATH} and nothing else\n"
    headers = {"Content-Type": "text/plain; charset=utf-8", **(told or {})}
    return _response(status, headers, text.encode(), with_body=True)


def _response(status: HTTPStatus, told: dict[str, str], body: bytes, *, with_body: bool) -> bytes:
    headers = {**told, "Content-Length": str(len(body)), "Connection": "close"}
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body if with_body else b"")
