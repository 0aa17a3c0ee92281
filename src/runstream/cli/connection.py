"""The connection: which server a command talks to, how, and in which form it answers.

Every calling command takes these options, before its name or after it; what stands after it wins.
"""

import ipaddress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import grpc
import typer

from runstream.cli import certificates
from runstream.cli.failure import Misuse

DEFAULT_PORT: Final = 7400
DEFAULT_SERVER: Final = f"127.0.0.1:{DEFAULT_PORT}"
DEFAULT_TIMEOUT: Final = 30.0
_LAST_PORT: Final = 65535

#: What gRPC resolves by itself.
_SCHEMES: Final = ("unix:", "unix-abstract:", "dns:", "ipv4:", "ipv6:")

#: Without an answer to a ping within the timeout, the server counts as dead. A lost connection is
#: tried again soon: how long and how often is decided by who made the call.
_CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.primary_user_agent", "runstream-cli"),
)


class OutputFormat(StrEnum):
    """The form of what a command writes to its output."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


_PANEL: Final = "Connection and output"

ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="HOST:PORT",
        help=f"The server to call. Default: RUNSTREAM_SERVER, else {DEFAULT_SERVER}.",
        rich_help_panel=_PANEL,
    ),
]
TlsOption = Annotated[
    bool | None,
    typer.Option(
        "--tls/--no-tls",
        help="Encrypt the connection; --ca and --cert imply it.",
        rich_help_panel=_PANEL,
    ),
]
CaOption = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        metavar="FILE",
        dir_okay=False,
        exists=True,
        help="The certificates (PEM) to trust, instead of the public ones.",
        rich_help_panel=_PANEL,
    ),
]
CertOption = Annotated[
    Path | None,
    typer.Option(
        "--cert",
        metavar="FILE",
        dir_okay=False,
        exists=True,
        help="The certificate (PEM) to show to the server.",
        rich_help_panel=_PANEL,
    ),
]
KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE",
        dir_okay=False,
        exists=True,
        help="The private key (PEM) of --cert.",
        rich_help_panel=_PANEL,
    ),
]
OutputOption = Annotated[
    OutputFormat | None,
    typer.Option(
        "--output",
        "-o",
        help="How to write the answer; json and yaml are for scripts. Default: table.",
        rich_help_panel=_PANEL,
    ),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        min=0.001,
        help=f"How long one call may take; streams may take any time. Default: {DEFAULT_TIMEOUT:g}.",
        rich_help_panel=_PANEL,
    ),
]


@dataclass(frozen=True, slots=True)
class Connection:
    """What the connection options say; None where nothing was said."""

    server: str | None = None
    tls: bool | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    output: OutputFormat | None = None
    timeout: float | None = None

    def under(self, outer: "Connection") -> "Connection":
        """Return this, with what it leaves open taken from `outer`."""
        missing = {name: getattr(outer, name) for name in self.__slots__ if self._lacks(name)}
        return replace(self, **missing)

    @property
    def address(self) -> str:
        """The server's address, with the default port when it names none."""
        server = self.server or DEFAULT_SERVER
        if server.startswith(_SCHEMES):
            return server
        try:
            return f"[{ipaddress.IPv6Address(server.strip('[]'))}]:{DEFAULT_PORT}"
        except ValueError:
            return server if ":" in server else f"{server}:{DEFAULT_PORT}"

    @property
    def encrypted(self) -> bool:
        """Whether it is a TLS connection."""
        return bool(self.tls or (self.tls is None and (self.ca or self.cert)))

    @property
    def format(self) -> OutputFormat:
        """The form of the output."""
        return self.output or OutputFormat.TABLE

    @property
    def seconds(self) -> float:
        """How long one call may take."""
        return self.timeout or DEFAULT_TIMEOUT

    def open(self) -> grpc.aio.Channel:
        """Return a channel to the server; nothing is sent before the first call. Raises `Misuse`."""
        self.check()
        options = [*_CHANNEL_OPTIONS]
        if self._is_local():
            options.append(("grpc.enable_http_proxy", 0))
        credentials = self.credentials()
        if credentials is None:
            return grpc.aio.insecure_channel(self.address, options=options)
        return grpc.aio.secure_channel(self.address, credentials, options=options)

    def check(self) -> None:
        """Refuse options that contradict each other, and a port that is none. Raises `Misuse`."""
        port = self.address.rpartition(":")[2]
        if port.isdecimal() and not self.address.startswith("unix") and not 0 < int(port) <= _LAST_PORT:
            raise Misuse(f"--server {self.server}: a port is a number from 1 to {_LAST_PORT}")
        if (self.cert is None) != (self.key is None):
            raise Misuse("--cert and --key go together")
        if self.tls is False and (self.ca or self.cert):
            raise Misuse("--no-tls does not go with --ca or --cert")

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Return what the connection is encrypted with; None when it is not. Raises `Misuse`."""
        if not self.encrypted:
            return None
        chain = key = None
        if self.cert and self.key:
            chain, key = certificates.read_identity(self.cert, self.key, ("--cert", "--key"))
        authorities = certificates.read_authorities(self.ca, "--ca")
        return grpc.ssl_channel_credentials(authorities, private_key=key, certificate_chain=chain)

    def _lacks(self, name: str) -> bool:
        return getattr(self, name) is None

    def _is_local(self) -> bool:
        host = self.address.rpartition(":")[0].strip("[]")
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"
