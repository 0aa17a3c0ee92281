from __future__ import annotations

import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from runstream.cli.connection import Connection, OutputFormat
from tests.cli.processes import CommandLine, ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_what_stands_after_the_command_wins(cli: CommandLine) -> None:
    assert cli("--server", "127.0.0.1:1", "agent", "list").code == 6
    assert cli("--server", "127.0.0.1:1", "agent", "list", "--server", cli.address).code == 0
    assert cli("-o", "yaml", "agent", "list", "-n", "1", "-o", "json").out.startswith("{")
    assert cli("-o", "json", "agent", "list", "-n", "1").out.startswith("{")


def test_the_environment_names_the_server(cli: CommandLine) -> None:
    assert cli("agent", "list", env={"RUNSTREAM_SERVER": "127.0.0.1:1"}).code == 6


def test_a_server_that_does_not_answer_is_not_waited_for_long(cli: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = cli("list", "--server", f"127.0.0.1:{silent.getsockname()[1]}", "--timeout", "0.3")
    assert result.code == 6
    assert "no answer in time" in result.err or "cannot reach" in result.err


@pytest.mark.parametrize(
    ("server", "address"),
    [
        (None, "127.0.0.1:7400"),
        ("host", "host:7400"),
        ("host:1", "host:1"),
        ("::1", "[::1]:7400"),
        ("[::1]", "[::1]:7400"),
        ("[::1]:5", "[::1]:5"),
        ("unix:/run/x", "unix:/run/x"),
    ],
)
def test_the_port_may_be_left_out(server: str | None, address: str) -> None:
    assert Connection(server=server).address == address


def test_what_is_left_open_comes_from_before_the_command() -> None:
    outer = Connection(server="a:1", output=OutputFormat.JSON, tls=True)
    inner = Connection(server="b:2", tls=False)
    assert inner.under(outer) == Connection(server="b:2", output=OutputFormat.JSON, tls=False)


def test_a_certificate_needs_its_key(cli: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    file.touch()
    assert cli("list", "--cert", str(file)).code == 2
    assert cli("list", "--no-tls", "--ca", str(file)).code == 2
    assert cli("list", "--ca", str(tmp_path / "missing")).code == 2


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder with a self-signed certificate `it.pem` for this machine, and its key `it.key`."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is missing")
    subject = ["-subj", "/CN=someone", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    files = ["-keyout", str(tmp_path / "it.key"), "-out", str(tmp_path / "it.pem")]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([openssl, "req", "-x509", *key, *files, *subject], check=True, capture_output=True)
    return tmp_path


@pytest.fixture
def tls_server(certificates: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    certificate, key = str(certificates / "it.pem"), str(certificates / "it.key")
    options = ("--tls-cert", certificate, "--tls-key", key, "--tls-client-ca", certificate)
    server = ServerProcess(tmp_path / "data", *options)
    yield server
    server.end()


def test_both_sides_show_certificates(tls_server: ServerProcess, certificates: Path) -> None:
    cli = CommandLine(tls_server.address)
    ca = ("--ca", str(certificates / "it.pem"))
    identity = ("--cert", str(certificates / "it.pem"), "--key", str(certificates / "it.key"))
    created = cli.ok("agent", "create", "x", *ca, *identity, "-o", "json").json
    assert created["status"]["audit"]["spec_audit"]["created_by"]["id"] == "someone"
    assert cli("agent", "list", *ca).code == 6
    assert cli("agent", "list", "--tls").code == 6
    assert cli("agent", "list").code == 6
