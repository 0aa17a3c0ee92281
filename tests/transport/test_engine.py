"""Engines: which one is taken, why, and what is refused."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import grpc
import pytest

from runstream.server import Server
from runstream.settings import load_settings
from runstream.transport.engine import EngineUnfit, Wire, choose_engine
from tests.certificates import OPENSSL, Authority
from tests.serving import serving

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = Wire(loopback=True, max_message_bytes=1 << 20)
OPEN = Wire(loopback=False, max_message_bytes=1 << 20)


def encrypted() -> Wire:
    """A wire with TLS; nobody looks at the certificate before it is listened on."""
    return Wire(loopback=True, max_message_bytes=1 << 20, credentials=grpc.ssl_server_credentials([(b"key", b"cert")]))


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which pygrpc-native is not installed."""
    monkeypatch.setitem(sys.modules, "pygrpc_native", None)
    monkeypatch.delitem(sys.modules, "runstream.transport.native_engine", raising=False)


def test_auto_takes_native_where_it_can_do_everything() -> None:
    """On this machine alone and in plain text, the faster engine is taken where it is installed."""
    pytest.importorskip("pygrpc_native")
    choice = choose_engine("auto", PLAIN)
    assert choice.name == "native"
    assert choice.reason.startswith("pygrpc-native 0.5.")


def test_auto_takes_grpcio_for_what_native_cannot_do() -> None:
    """With TLS, and on the network, the engine that can do it is taken, and why is told."""
    for wire, why in ((encrypted(), "tls_cert"), (OPEN, "open to the network")):
        choice = choose_engine("auto", wire)
        assert choice.name == "grpcio"
        assert why in choice.reason


@pytest.mark.usefixtures("without_native")
def test_auto_takes_grpcio_where_native_is_not_installed() -> None:
    """Nobody needs the extra; who wants it is told how to get it."""
    choice = choose_engine("auto", PLAIN)
    assert choice.name == "grpcio"
    assert "pip install 'runstream[native]'" in choice.reason


@pytest.mark.usefixtures("without_native")
def test_native_is_refused_where_it_is_not_installed() -> None:
    """The engine that was asked for by name is never replaced by another one."""
    with pytest.raises(EngineUnfit, match=r"engine cannot be native: it is not installed; pip install"):
        choose_engine("native", PLAIN)


def test_native_is_refused_in_a_version_that_nobody_has_tried(
    without_native: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that this one was not made for is not run, and is named."""
    _ = without_native
    native = type(sys)("pygrpc_native")
    for name in ("EVENT_CANCEL", "STREAM_FULL", "STREAM_SENT", "NativeGrpcFront"):
        setattr(native, name, None)
    native.__dict__["__version__"] = "1.7.0"
    monkeypatch.setitem(sys.modules, "pygrpc_native", native)
    with pytest.raises(EngineUnfit, match=r"version 1\.7\.0"):
        choose_engine("native", PLAIN)
    assert choose_engine("auto", PLAIN).name == "grpcio"


def test_native_with_tls_is_refused() -> None:
    """What is configured is never left out in silence: the message names the option."""
    with pytest.raises(EngineUnfit, match="no TLS, and tls_cert is set"):
        choose_engine("native", encrypted())


def test_grpcio_can_do_everything() -> None:
    """Who asks for grpcio gets it."""
    for wire in (PLAIN, OPEN, encrypted()):
        assert choose_engine("grpcio", wire).name == "grpcio"


async def test_the_server_says_which_engine_it_runs_on(tmp_path: Path) -> None:
    """The setting reaches the server, which tells what it took and why."""
    async with serving(tmp_path / "data", engine="grpcio") as running:
        assert (running.server.engine.name, running.server.engine.reason) == ("grpcio", "it was asked for")


@pytest.mark.skipif(OPENSSL is None, reason="openssl makes the certificates and is not installed")
async def test_an_engine_that_cannot_do_it_stops_the_start(tmp_path: Path) -> None:
    """The refusal comes before the data folder is touched."""
    certificate, key = Authority(tmp_path, "ours").server()
    settings = load_settings(
        None, engine="native", listen="127.0.0.1:0", data=tmp_path / "data", tls_cert=certificate, tls_key=key
    )
    with pytest.raises(EngineUnfit, match="tls_cert"):
        await Server.start(settings)
    assert not (tmp_path / "data").exists()
