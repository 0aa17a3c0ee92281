"""`runstream serve`: the one command that starts a server instead of calling one."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from runstream.cli import certificates
from runstream.cli.exit_codes import ExitCode
from runstream.cli.failure import Misuse
from runstream.cli.plain_text import clean

_TLS = "TLS"
_LOG = "Logging"
_METRICS = "Metrics"


class Engine(StrEnum):
    """What carries the calls."""

    AUTO = "auto"
    GRPCIO = "grpcio"
    NATIVE = "native"


class LogFormat(StrEnum):
    """How the server logs."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """From which level on the server logs."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def serve(  # noqa: PLR0913 — one parameter per setting
    *,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="The address to listen on; port 0 takes a free one. Default: 127.0.0.1:7400."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where everything is stored. Default: ./runstream-data."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A TOML file with settings, named as these options with underscores."),
    ] = None,
    engine: Annotated[
        Engine | None,
        typer.Option(
            help="What carries the calls. native takes several times as many and has no TLS; it comes with"
            " the extra of that name. auto, the default, takes it where it can do all that is set, else grpcio."
        ),
    ] = None,
    max_message_bytes: Annotated[
        int | None, typer.Option(metavar="BYTES", help="The largest request that is taken. Default: 8 MiB.")
    ] = None,
    cancel_grace: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="How long a runner has to give up what was cancelled. Default: 30."),
    ] = None,
    lease_duration: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="How long after its last heartbeat a runner has lost what it works on. Default: 15.",
        ),
    ] = None,
    retry_backoff: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="How long an execution waits that has lost its runner; doubled each time. Default: 1.",
        ),
    ] = None,
    retain: Annotated[
        str | None,
        typer.Option(
            metavar="SPAN",
            help="How long executions are kept after their end, as in 30d, 12h, 4w; or by phase, as in"
            " COMPLETED=7d,FAILED=90d. Default: for ever.",
        ),
    ] = None,
    drain_timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="How long running calls may take when the server stops. Default: 10."),
    ] = None,
    backups: Annotated[
        bool | None,
        typer.Option(
            "--backups/--no-backups",
            help="Whether to give backups to whoever can call: everything, secrets included. Default: yes.",
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The server's certificate chain (PEM).", rich_help_panel=_TLS),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its private key (PEM).", rich_help_panel=_TLS)
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Let in only clients with a certificate of this authority (PEM).",
            rich_help_panel=_TLS,
        ),
    ] = None,
    allow_plaintext_network: Annotated[
        bool,
        typer.Option(
            "--allow-plaintext-network",
            help="Listen on an address that other machines reach, without TLS. Anyone on the path can then read and"
            " change everything, secrets included.",
            rich_help_panel=_TLS,
        ),
    ] = False,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve metrics for Prometheus here, at /metrics, in plain text: how much is done, nothing of what.",
            rich_help_panel=_METRICS,
        ),
    ] = None,
    otlp: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Push metrics to an OpenTelemetry collector, as http://localhost:4317. Needs runstream\\[otlp].",
            rich_help_panel=_METRICS,
        ),
    ] = None,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(help="auto: console on a terminal, else json.", rich_help_panel=_LOG),
    ] = None,
    log_level: Annotated[
        LogLevel | None, typer.Option(help="From which level on. Default: info.", rich_help_panel=_LOG)
    ] = None,
) -> None:
    """Start a server; SIGTERM or Ctrl-C stops it gracefully.

    Every option can also be set in the environment, as in RUNSTREAM_DATA, or in a TOML file. An option goes before the
    environment, the environment before the file.
    """
    # A server and all that it needs is loaded here, and only here.
    from runstream.server import serve as run_server  # noqa: PLC0415
    from runstream.settings import load_settings  # noqa: PLC0415

    try:
        settings = load_settings(
            config,
            listen=listen,
            data=data,
            engine=engine and engine.value,
            tls_cert=tls_cert,
            tls_key=tls_key,
            tls_client_ca=tls_client_ca,
            allow_plaintext_network=allow_plaintext_network or None,
            max_message_bytes=max_message_bytes,
            cancel_grace=cancel_grace,
            lease_duration=lease_duration,
            retry_backoff=retry_backoff,
            retain=retain,
            drain_timeout=drain_timeout,
            metrics=metrics,
            otlp=otlp,
            backups=backups,
            log_format=log_format and log_format.value,
            log_level=log_level and log_level.value,
        )
    except ValueError as error:
        _refuse("\n  ".join(str(error).splitlines()), ExitCode.USAGE)
    try:
        _check_certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    except Misuse as misuse:
        _refuse(misuse.message, misuse.exit_code)
    try:
        run_server(settings)
    except Exception as error:  # noqa: BLE001 — whatever keeps a server from starting is told on a line
        _refuse(_told(error), ExitCode.CALL_FAILED)


def _check_certificates(cert: Path | None, key: Path | None, client_ca: Path | None) -> None:
    """Refuse files that gRPC cannot use; all it says of them is that it cannot listen. Raises `Misuse`."""
    if cert and key:
        certificates.read_identity(cert, key, ("--tls-cert", "--tls-key"))
    certificates.read_authorities(client_ca, "--tls-client-ca")


def _refuse(message: str, code: ExitCode) -> NoReturn:
    typer.echo(f"error: {clean(message)}", err=True)
    raise typer.Exit(code)


def _told(error: Exception) -> str:
    """Return the message of an error that has one for people, else also what it is."""
    has_words = isinstance(error, OSError) or type(error).__module__.startswith("runstream.")
    return str(error) if has_words else f"{type(error).__name__}: {error}"
