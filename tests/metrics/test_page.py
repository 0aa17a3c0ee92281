"""The page: what is answered over HTTP, to whom, and what is refused."""

from __future__ import annotations

import asyncio
import gzip
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from runstream.server import Server
from runstream.settings import load_settings
from tests.making import an_agent
from tests.metrics.scrape import Scrape, ask, get, scrape
from tests.serving import serving

if TYPE_CHECKING:
    from pathlib import Path


async def test_there_is_no_page_unless_it_is_asked_for(tmp_path: Path) -> None:
    """By default nothing is listened on but the address of the API."""
    async with serving(tmp_path / "data") as running:
        assert running.server.metrics_address == ""


async def test_the_page_is_what_prometheus_reads(tmp_path: Path) -> None:
    """It is answered in the text form, or in OpenMetrics when that is asked for, compressed if the client likes."""
    async with serving(tmp_path / "data", metrics="127.0.0.1:0") as running:
        address = running.server.metrics_address
        plain = await get(address)
        assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert int(plain.headers["Content-Length"]) == len(plain.body)
        assert Scrape(plain.body.decode())("process_open_fds") > 0
        modern = await get(address, Accept="application/openmetrics-text; version=1.0.0")
        assert modern.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
        assert modern.body.endswith(b"# EOF\n")
        packed = await get(address, "/metrics?name=x", Accept_Encoding="gzip")
        assert packed.headers["Content-Encoding"] == "gzip"
        assert b"runstream_build_info" in gzip.decompress(packed.body)


async def test_the_address_tells_the_port_that_was_chosen(tmp_path: Path) -> None:
    """Port 0 takes a free one, on IPv6 as well."""
    async with serving(tmp_path / "data", metrics="[::1]:0") as running:
        host, _, port = running.server.metrics_address.rpartition(":")
        assert (host, int(port) > 0) == ("[::1]", True)
        assert (await get(running.server.metrics_address)).status == 200


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET / HTTP/1.1", 404),
        ("GET /metrics/more HTTP/1.1", 404),
        ("GET /favicon.ico HTTP/1.1", 404),
        ("POST /metrics HTTP/1.1", 405),
        ("GET /metrics HTTP/2.0", 400),
        ("GET /metrics", 400),
        ("nonsense", 400),
        ("GET /" + "x" * 20_000 + " HTTP/1.1", 431),
    ],
)
async def test_there_is_nothing_but_the_page(tmp_path: Path, request_line: str, status: int) -> None:
    """Another path, another method and what is no HTTP are refused, and the page is there afterwards."""
    async with serving(tmp_path / "data", metrics="127.0.0.1:0") as running:
        answer = await ask(running.server.metrics_address, f"{request_line}\r\nHost: here\r\n\r\n".encode())
        assert answer.status == status
        assert b"there is /metrics and nothing else" in answer.body
        assert (await get(running.server.metrics_address)).status == 200


async def test_a_head_is_a_page_without_its_body(tmp_path: Path) -> None:
    """HEAD is answered with the headers of the page alone."""
    async with serving(tmp_path / "data", metrics="127.0.0.1:0") as running:
        answer = await ask(running.server.metrics_address, b"HEAD /metrics HTTP/1.1\r\n\r\n")
        assert (answer.status, answer.body) == (200, b"")
        assert int(answer.headers["Content-Length"]) > 0


async def test_clients_that_say_nothing_hold_up_nobody(tmp_path: Path) -> None:
    """A few silent connections leave the page, the API and the shutdown as they are; many get no answer at once."""
    async with serving(tmp_path / "data", metrics="127.0.0.1:0") as running:
        host, _, port = running.server.metrics_address.rpartition(":")
        async with AsyncExitStack() as stack:
            for _ in range(15):
                _, silent = await asyncio.open_connection(host, int(port))
                stack.callback(silent.close)
            assert await an_agent(running.client)
            page = await scrape(running.server.metrics_address)
            assert page("runstream_commits_total") == 1
            _, sixteenth = await asyncio.open_connection(host, int(port))
            stack.callback(sixteenth.close)
            answered, one_too_many = await asyncio.open_connection(host, int(port))
            stack.callback(one_too_many.close)
            with pytest.raises((ConnectionError, AssertionError)):
                assert await answered.read()


async def test_many_scrapes_at_once_are_all_answered(tmp_path: Path) -> None:
    """Scrapes beside each other get whole pages."""
    async with serving(tmp_path / "data", metrics="127.0.0.1:0") as running:
        pages = await asyncio.gather(*(scrape(running.server.metrics_address) for _ in range(10)))
    assert {page("runstream_commits_total") for page in pages} == {0}


async def test_an_address_that_is_taken_stops_the_start(tmp_path: Path) -> None:
    """A port in use is an OSError that names it and what it is for; the folder is free again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"cannot listen on {address} for metrics"):
            await Server.start(load_settings(None, listen="127.0.0.1:0", data=tmp_path / "data", metrics=address))
    async with serving(tmp_path / "data", metrics=address) as running:
        assert running.server.metrics_address == address


async def test_nothing_is_left_of_a_page(tmp_path: Path) -> None:
    """After a stop nobody listens any more, and no task of it is left."""
    before = asyncio.all_tasks()
    async with serving(tmp_path / "data", metrics="127.0.0.1:0") as running:
        address = running.server.metrics_address
        await scrape(address)
    with pytest.raises(OSError, match="Connect"):
        await get(address)
    assert not {task.get_name() for task in asyncio.all_tasks() - before} & {"PhaseCounts", "MetricsPush"}
