from __future__ import annotations

import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from runstream.cli.connection import Connection, OutputFormat
from tests.certificates import OPENSSL, Authority
from tests.cli.processes import CommandLine, ServerProcess
from tests.engines import needs_tls

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


def test_a_variable_that_seems_to_name_the_server_is_told(cli: CommandLine) -> None:
    misspelt = {"RUNSTREAM_SERVER": "", "RUNSTREAM_SERVR": cli.address, "RUNSTREAM_RETAIN": "30d"}
    told = "warning: RUNSTREAM_SERVR is not read; did you mean RUNSTREAM_SERVER?\n"
    assert cli("agent", "list", "--timeout", "1", env=misspelt).err.startswith(told)
    assert "warning" not in cli("--server", cli.address, "agent", "list", env=misspelt).err
    assert "warning" not in cli("agent", "list", env={**misspelt, "RUNSTREAM_SERVER": cli.address}).err


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


@pytest.mark.parametrize("port", ["0", "65536", "99999"])
def test_a_port_that_is_none_is_misuse(cli: CommandLine, port: str) -> None:
    refused = cli("list", "--server", f"127.0.0.1:{port}")
    assert refused.code == 2
    assert "a port is a number from 1 to 65535" in refused.err


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if OPENSSL is None:
        pytest.skip("openssl is missing")
    return Authority(tmp_path_factory.mktemp("certificates"), "ours")


def _tls_server(authority: Authority, data: Path, *options: str) -> ServerProcess:
    certificate, key = authority.server()
    return ServerProcess(data, "--tls-cert", str(certificate), "--tls-key", str(key), *options)


@pytest.fixture(scope="module")
def tls_server(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that shows a certificate."""
    server = _tls_server(authority, tmp_path_factory.mktemp("tls") / "data")
    yield server
    server.end()


@pytest.fixture(scope="module")
def strict_server(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that wants to see a certificate, too."""
    data = tmp_path_factory.mktemp("strict") / "data"
    server = _tls_server(authority, data, "--tls-client-ca", str(authority.certificate))
    yield server
    server.end()


def _identity(authority: Authority) -> tuple[str, ...]:
    certificate, key = authority.client("someone")
    return ("--cert", str(certificate), "--key", str(key))


@needs_tls
def test_both_sides_show_certificates(strict_server: ServerProcess, authority: Authority) -> None:
    cli = CommandLine(strict_server.address)
    created = cli.ok("agent", "create", "x", "--ca", str(authority.certificate), *_identity(authority), "-o", "json")
    assert created.json["status"]["audit"]["spec_audit"]["created_by"]["id"] == "someone"


@needs_tls
def test_what_is_wrong_with_the_encryption_is_told(
    cli: CommandLine, tls_server: ServerProcess, strict_server: ServerProcess, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "theirs")
    ours = ("--ca", str(authority.certificate))
    plain, tls, strict = cli.address, tls_server.address, strict_server.address
    assert cli("list", "--server", tls, *ours).code == 0
    for address, options, told in (
        (tls, (), "if it wants TLS, add --tls"),
        (strict, (), "if it wants TLS, add --tls"),
        (plain, ("--tls",), "the server does not speak TLS"),
        (plain, ours, "the server does not speak TLS"),
        (tls, ("--tls",), "not of an authority that is trusted"),
        (tls, ("--ca", str(other.certificate)), "not of an authority that is trusted"),
        (strict, ours, "give one with --cert and --key"),
        (strict, (*ours, *_identity(other)), "it may not trust the certificate of --cert"),
        ("127.0.0.1:1", ours, "is the server running?"),
    ):
        refused = cli("list", "--server", address, *options)
        assert refused.code == 6
        hint = refused.err.splitlines()[-1]
        assert told in hint, (address, options)
        assert ("is the server running" in hint) == ("is the server running" in told)
        assert len(refused.err.splitlines()) == 2


@needs_tls
@pytest.mark.skipif(OPENSSL is None, reason="openssl is missing")
def test_a_certificate_for_another_name_is_told(tmp_path: Path) -> None:
    certificate, key = str(tmp_path / "it.pem"), str(tmp_path / "it.key")
    made_of = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-keyout",
        key,
        "-out",
        certificate,
    ]
    named = ["-subj", "/CN=elsewhere", "-addext", "subjectAltName=DNS:elsewhere.example"]
    subprocess.run([str(OPENSSL), "req", "-x509", *made_of, *named], check=True, capture_output=True)
    server = ServerProcess(tmp_path / "data", "--tls-cert", certificate, "--tls-key", key)
    try:
        refused = CommandLine(server.address)("list", "--ca", certificate)
    finally:
        server.end()
    assert refused.code == 6
    assert "hint: the server's certificate is for another name than that of --server" in refused.err


def test_a_file_that_is_no_pem_is_told(cli: CommandLine, authority: Authority, tmp_path: Path) -> None:
    certificate, key = (str(file) for file in authority.client("someone"))
    _, other = (str(file) for file in authority.client("another"))
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    for options, told in (
        (("--ca", key), "there is no certificate in it (PEM)"),
        (("--ca", str(garbage)), "there is no certificate in it (PEM)"),
        (("--cert", key, "--key", key), f"--cert {key}: there is no certificate in it (PEM)"),
        (("--cert", certificate, "--key", certificate), f"--key {certificate}: there is no private key in it"),
        (("--cert", certificate, "--key", other), f"--key {other}: is not the private key of --cert {certificate}"),
    ):
        refused = cli("list", *options)
        assert refused.code == 2
        assert told in refused.err
