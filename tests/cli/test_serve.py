from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.certificates import OPENSSL, Authority

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.processes import CommandLine, ServerProcess


def test_it_stops_on_request_and_keeps_what_it_has(own_server: ServerProcess, own_cli: CommandLine) -> None:
    own_cli.ok("agent", "create", "keeper")
    assert own_server.stop() == 0
    own_server.restart()
    own_cli.ok("agent", "get", "keeper")


def test_the_network_needs_tls_or_an_explicit_word(cli: CommandLine, tmp_path: Path) -> None:
    refused = cli("serve", "--listen", "0.0.0.0:0", "--data", str(tmp_path / "data"))
    assert refused.code == 2
    assert "allow_plaintext_network" in refused.err
    assert not (tmp_path / "data").exists()


def test_wrong_settings_are_told(cli: CommandLine, tmp_path: Path) -> None:
    refused = cli("serve", "--listen", "nonsense")
    assert refused.code == 2
    assert refused.err.startswith("error: --listen: must be HOST:PORT")
    assert cli("serve", "--log-level", "loud").code == 2
    assert cli("serve", "--metrics", "9464").err.startswith("error: --metrics: must be HOST:PORT")
    assert cli("serve", "--otlp", "localhost").err.startswith("error: --otlp: must be a URL")
    assert "--retain: 'soon' is no time to keep executions for" in cli("serve", "--retain", "soon").err
    assert cli("serve", "--config", str(tmp_path / "missing.toml")).code == 2
    file = tmp_path / "bad.toml"
    file.write_text("nonsense = 1\n[")
    assert cli("serve", "--config", str(file)).code == 2
    file.write_text("listne = 1\n")
    refused = cli("serve", "--config", str(file), "--log-format", "json")
    assert refused.err == f"error: listne in {file}: there is no such setting; did you mean listen?\n"


def test_a_misspelt_variable_is_told_at_the_start(cli: CommandLine, tmp_path: Path) -> None:
    env = {"RUNSTREAM_LISTN": "127.0.0.1:1", "RUNSTREAM_SERVICE_HOST": "10.0.0.1"}
    listen = ("--listen", "127.0.0.1:0", "--data", str(tmp_path / "data"), "--log-format", "json")
    server = cli.start("serve", *listen, env=env)
    server.wait_for("listening on ")
    server.end()
    told = [json.loads(line) for line in server.output.splitlines() if "variable_not_read" in line]
    assert [(each["variable"], each["level"]) for each in told] == [("RUNSTREAM_LISTN", "warning")]
    assert "did you mean RUNSTREAM_LISTEN?" in told[0]["told"]


def test_a_folder_serves_one(cli: CommandLine, own_server: ServerProcess, tmp_path: Path) -> None:
    refused = cli("serve", "--listen", "127.0.0.1:0", "--data", str(tmp_path / "data"))
    assert refused.code == 1
    assert refused.err.startswith("error: ")
    taken = cli("serve", "--listen", own_server.address, "--data", str(tmp_path / "other"))
    assert taken.code == 1
    assert own_server.address in taken.err


@pytest.mark.skipif(OPENSSL is None, reason="openssl is missing")
def test_a_file_that_is_no_pem_is_told(cli: CommandLine, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    certificate, key = (str(file) for file in authority.server())
    serve = ("serve", "--listen", "127.0.0.1:0", "--data", str(tmp_path / "data"))
    for files, told in (
        ((key, key), f"error: --tls-cert {key}: there is no certificate in it (PEM)\n"),
        ((certificate, certificate), f"error: --tls-key {certificate}: there is no private key in it"),
        ((certificate, str(tmp_path / "missing")), f"error: --tls-key {tmp_path / 'missing'}: No such file"),
        ((certificate, key, "--tls-client-ca", key), f"error: --tls-client-ca {key}: there is no certificate in it"),
    ):
        refused = cli(*serve, "--tls-cert", files[0], "--tls-key", *files[1:])
        assert refused.code == 2
        assert refused.err.startswith(told)
    assert not (tmp_path / "data").exists()


def test_flags_go_before_the_environment_and_that_before_the_file(cli: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f'listen = "127.0.0.1:0"\ndata = "{tmp_path / "from-file"}"\nlog_format = "json"\n')
    with_env = {"RUNSTREAM_DATA": str(tmp_path / "from-env")}
    for arguments, env, folder in (
        ((), {}, "from-file"),
        ((), with_env, "from-env"),
        (("--data", str(tmp_path / "from-flag")), with_env, "from-flag"),
    ):
        server = cli.start("serve", "--config", str(file), *arguments, env=env)
        server.wait_for("listening on ")
        server.end()
        assert (tmp_path / folder).is_dir()
        assert re.search(r'^\{.*"event"', server.output, re.MULTILINE)
