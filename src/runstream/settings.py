"""Settings of the server: from flags, else the environment (``RUNSTREAM_*``), else a TOML file, else the defaults."""

from __future__ import annotations

import ipaddress
import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from runstream.model.retention import parse_retention
from runstream.model.variables import PREFIX, nearest, unknown_variables

if TYPE_CHECKING:
    from collections.abc import Iterator

_MIB = 1 << 20
#: Variables with our prefix that are no settings: those of the command line.
_OF_THE_COMMAND_LINE: Final = ("SERVER", "TRACEBACK")


class Settings(BaseSettings):
    """What `runstream serve` can be told. Flags are given to the constructor."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    listen: str = Field("127.0.0.1:7400", description="Address to listen on, HOST:PORT; port 0 chooses one.")
    data: Path = Field(Path("runstream-data"), description="Folder that everything is stored in.")
    engine: Literal["auto", "grpcio", "native"] = Field(
        "auto", description="What carries the calls; auto takes native where it can do all that is set, else grpcio."
    )
    tls_cert: Path | None = Field(None, description="PEM file with the server's certificate chain.")
    tls_key: Path | None = Field(None, description="PEM file with the certificate's private key.")
    tls_client_ca: Path | None = Field(None, description="PEM file with the CA whose certificates clients must show.")
    allow_plaintext_network: bool = Field(
        default=False,
        description="Listen beyond this machine without TLS. Anyone on the way can then read and change"
        " everything, secrets included.",
    )
    max_message_bytes: int = Field(8 * _MIB, ge=_MIB, le=1 << 30, description="Largest request taken, in bytes.")
    cancel_grace: float = Field(30.0, ge=0, le=86_400, description="Seconds a runner has to comply with a cancel.")
    lease_duration: float = Field(
        15.0,
        ge=0.2,
        le=3_600,
        description="Seconds without a heartbeat after which a runner has lost what it held. Runners send three in it.",
    )
    retry_backoff: float = Field(
        1.0,
        ge=0,
        le=60,
        description="Seconds before an execution that lost its runner is queued again; doubled each time, at most 60.",
    )
    max_depth: int = Field(8, ge=0, le=1_000, description="Levels of sub-executions below an execution of no parent.")
    max_execution_changes: int = Field(
        1_000_000, ge=0, description="Changes one execution may have, all that ends it apart; 0 is no limit."
    )
    max_execution_bytes: int = Field(
        1 << 30, ge=0, description="Bytes one execution's log may have, all that ends it apart; 0 is no limit."
    )
    max_calls: int = Field(10_000, ge=0, description="Calls in flight, streams apart; 0 is no limit.")
    max_streams: int = Field(10_000, ge=0, description="Open streams; 0 is no limit.")
    max_calls_per_client: int = Field(0, ge=0, description="Calls in flight of one client; 0 is no limit.")
    max_streams_per_client: int = Field(0, ge=0, description="Open streams of one client; 0 is no limit.")
    client_rate: float = Field(
        0.0, ge=0, le=1_000_000, description="Calls per second of one client over time; 0 is no limit."
    )
    client_burst: int = Field(
        100, ge=1, le=1_000_000, description="Calls one client may make at once under client_rate, after some quiet."
    )
    retain: str = Field(
        "",
        description="How long executions are kept after their end, as in 30d or COMPLETED=7d,FAILED=90d; empty is for"
        " ever.",
    )
    drain_timeout: float = Field(
        10.0, ge=0, le=3_600, description="Seconds that running calls have to end at shutdown."
    )
    backups: bool = Field(
        default=True, description="Give backups to whoever can call: everything that is stored, secrets included."
    )
    fold_cache_bytes: int = Field(64 * _MIB, ge=0, description="Memory for folded states of live executions, in bytes.")
    metrics: str | None = Field(
        None,
        description="Address to serve metrics for Prometheus on, HOST:PORT, at /metrics in plain text; port 0 chooses"
        " one. They tell how much is done, nothing of what.",
    )
    otlp: str | None = Field(None, description="URL of an OpenTelemetry collector that metrics are pushed to, by gRPC.")
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="Console for people, JSON for machines; auto chooses by the terminal."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")

    @field_validator("listen", "metrics")
    @classmethod
    def _check_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65_535:  # noqa: PLR2004  # the largest port
            raise ValueError(f"must be HOST:PORT, as in 127.0.0.1:7400 or [::1]:7400, not {value!r}")
        return value

    @field_validator("otlp")
    @classmethod
    def _check_otlp(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            url = urlsplit(value)
            known = url.scheme in ("http", "https") and bool(url.hostname)
        except ValueError:
            known = False
        if not known:
            raise ValueError(f"must be a URL, as in http://localhost:4317, not {value!r}")
        return value

    @field_validator("retain")
    @classmethod
    def _check_retain(cls, value: str) -> str:
        parse_retention(value)
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key must be given together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca needs tls_cert and tls_key")
        if not self.loopback and self.tls_cert is None and not self.allow_plaintext_network:
            raise ValueError(
                f"{self.listen} can be reached from other machines: give tls_cert and tls_key, or say with"
                " allow_plaintext_network that anyone on the way may read and change everything, secrets included"
            )
        return self

    @property
    def measured(self) -> bool:
        """Whether anybody is to get metrics."""
        return self.metrics is not None or self.otlp is not None

    @property
    def verbose(self) -> bool:
        """Whether every call and every step is logged."""
        return self.log_level == "debug"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        host = self.listen.rpartition(":")[0].strip("[]")
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put flags before the environment, the environment before the file, and what others use last."""
        _ = dotenv_settings, file_secret_settings
        file = cls.model_config.get("toml_file")
        files = (TomlConfigSettingsSource(settings_cls),) if file else ()
        return (init_settings, env_settings, *files, InitSettingsSource(settings_cls, _of_open_telemetry()))


class WrongSettings(ValueError):
    """Settings that cannot be taken: a line for each, with the option, the variable or the file that says it."""


def load_settings(config: Path | None, **flags: Any) -> Settings:  # noqa: ANN401  # a flag of any type
    """Load the settings; a flag that is None was not given. ValueError, with everything that is wrong."""
    given = {name: value for name, value in flags.items() if value is not None}
    kind = Settings if config is None else _reading(config)
    try:
        return kind(**given)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:  # a file of TOML is in UTF-8
        raise ValueError(f"{config} is no TOML: {error}") from error
    except ValidationError as error:
        unread = (f"{variable}: {told}" for variable, told in unread_variables().items())
        raise WrongSettings("\n".join([*_faults(error, given, config), *unread])) from error


def unread_variables() -> dict[str, str]:
    """Return the variables of the environment that look like settings and are none, each with what to tell of it."""
    names = (*Settings.model_fields, *_OF_THE_COMMAND_LINE)
    found = unknown_variables(os.environ, [f"{PREFIX}{name.upper()}" for name in names])
    return {variable: _no_setting(meant) for variable, meant in found.items()}


def _reading(config: Path) -> type[Settings]:
    """Return the settings with a file behind the environment. ValueError when there is none."""
    if not config.is_file():
        raise ValueError(f"there is no file {config}")

    class FileSettings(Settings):
        """The settings with this file."""

        model_config = SettingsConfigDict(toml_file=config)

    return FileSettings


def _faults(error: ValidationError, flags: dict[str, Any], config: Path | None) -> Iterator[str]:
    for fault in error.errors(include_url=False, include_input=False):
        name = ".".join(str(part) for part in fault["loc"])
        told = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            told = _no_setting(nearest(name, Settings.model_fields))
        yield f"{_place(name, flags, config)}: {told}" if name else told


def _no_setting(meant: str) -> str:
    return "there is no such setting" + (f"; did you mean {meant}?" if meant else "")


def _place(name: str, flags: dict[str, Any], config: Path | None) -> str:
    """Return what says how a setting is to be, as a person knows it: the first of the sources that has it."""
    if name in flags:
        return f"--{name.replace('_', '-')}"
    variable = f"{PREFIX}{name}".upper()
    if found := next((each for each, value in os.environ.items() if value and each.upper() == variable), ""):
        return found
    if config is not None and (name != "otlp" or name in tomllib.loads(config.read_text("utf-8"))):
        return f"{name} in {config}"
    return _collector_variable() or name


def _of_open_telemetry() -> dict[str, Any]:
    """Take the collector that the variables of OpenTelemetry name for every program of this environment."""
    variable = _collector_variable()
    return {"otlp": os.environ[variable]} if variable else {}


def _collector_variable() -> str:
    """Return the variable that names it; empty when there is none, or others turn it off."""
    on = os.environ.get("OTEL_METRICS_EXPORTER", "otlp") == "otlp"
    if not on or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return ""
    names = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return next((name for name in names if os.environ.get(name)), "")
