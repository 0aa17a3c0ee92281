"""Settings: where they come from, in which order, and what is refused with which words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from runstream.settings import Settings, load_settings, unread_variables


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no setting of the machine's reach a test."""
    for name in os.environ:
        if name.startswith(("RUNSTREAM_", "OTEL_")):
            monkeypatch.delenv(name)


def refused(config: Path | None = None, /, **flags: Any) -> str:  # noqa: ANN401  # a flag of any type
    """Load settings that must be refused; return what is told."""
    with pytest.raises(ValueError) as told:  # noqa: PT011  # the caller looks at what is told
        load_settings(config, **flags)
    return str(told.value)


def option(name: str) -> str:
    """What a refusal of a setting begins with that was given as a flag."""
    return f"--{name.replace('_', '-')}: "


def test_without_anything_the_server_is_for_this_machine_alone() -> None:
    """The defaults listen on loopback, in plain text, and keep the data beside the process."""
    settings = load_settings(None)
    assert settings.listen == "127.0.0.1:7400"
    assert settings.loopback
    assert settings.data == Path("runstream-data")
    assert (settings.tls_cert, settings.tls_key, settings.tls_client_ca) == (None, None, None)
    assert (settings.cancel_grace, settings.max_message_bytes) == (30.0, 8 << 20)
    assert (settings.log_format, settings.log_level) == ("auto", "info")


def test_a_flag_goes_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each source counts where those before it say nothing."""
    config = tmp_path / "runstream.toml"
    config.write_text('log_level = "debug"\nlog_format = "json"\ncancel_grace = 5\ndata = "from-file"\n')
    monkeypatch.setenv("RUNSTREAM_LOG_FORMAT", "console")
    monkeypatch.setenv("RUNSTREAM_CANCEL_GRACE", "6.5")
    settings = load_settings(config, cancel_grace=7.0, log_level=None)
    assert settings.cancel_grace == 7.0
    assert settings.log_format == "console"
    assert settings.log_level == "debug"
    assert settings.data == Path("from-file")
    assert settings.listen == "127.0.0.1:7400"


def test_the_environment_counts_without_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting can be given by its name in upper case behind RUNSTREAM_."""
    monkeypatch.setenv("RUNSTREAM_LISTEN", "127.0.0.1:1")
    monkeypatch.setenv("RUNSTREAM_DATA", "/somewhere")
    monkeypatch.setenv("RUNSTREAM_MAX_MESSAGE_BYTES", str(1 << 20))
    monkeypatch.setenv("RUNSTREAM_ALLOW_PLAINTEXT_NETWORK", "true")
    settings = load_settings(None)
    assert (settings.listen, settings.data) == ("127.0.0.1:1", Path("/somewhere"))
    assert (settings.max_message_bytes, settings.allow_plaintext_network) == (1 << 20, True)


def test_another_variable_of_the_environment_is_no_hindrance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that begin alike and are no settings, as the command line's own, are left alone."""
    monkeypatch.setenv("RUNSTREAM_SOMETHING_ELSE", "x")
    assert load_settings(None).listen == "127.0.0.1:7400"


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("RUNSTREAM_LISTN", "there is no such setting; did you mean RUNSTREAM_LISTEN?"),
        ("RUNSTREAM_SOMETHING_ELSE", "there is no such setting"),
    ],
)
def test_a_variable_that_is_not_read_is_known(variable: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks like a setting and is none can be told, with what was meant; the command line's own are none."""
    monkeypatch.setenv(variable, "x")
    for known in ("SERVER", "TRACEBACK", *Settings.model_fields):
        monkeypatch.setenv(f"RUNSTREAM_{known.upper()}", "x")
    assert unread_variables() == {variable: told}


def test_a_refusal_tells_of_variables_that_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing may stand in one of them."""
    monkeypatch.setenv("RUNSTREAM_TLS_CRT", "x.pem")
    monkeypatch.setenv("RUNSTREAM_TLS_KEY", "x.pem")
    *_, last = refused().splitlines()
    assert last == "RUNSTREAM_TLS_CRT: there is no such setting; did you mean RUNSTREAM_TLS_CERT?"


def test_what_is_wrong_is_told_with_where_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an option, as the variable, or with the file: of the one of them that counted."""
    config = tmp_path / "runstream.toml"
    config.write_text('listen = "in-the-file"\n')
    assert refused(config).startswith(f"listen in {config}: must be HOST:PORT")
    monkeypatch.setenv("RUNSTREAM_LISTEN", "in-a-variable")
    assert refused(config).startswith("RUNSTREAM_LISTEN: must be HOST:PORT")
    assert refused(config, listen="in-an-option").startswith("--listen: must be HOST:PORT")
    assert "\n--max-message-bytes: " in refused(config, max_message_bytes=1)


def test_a_wrong_collector_is_told_with_the_variable_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has set it for all programs may know of no setting of ours."""
    config = tmp_path / "runstream.toml"
    config.write_text('log_level = "info"\n')
    for variable in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "RUNSTREAM_OTLP"):
        monkeypatch.setenv(variable, "localhost:4317")
        assert refused().startswith(f"{variable}: must be a URL")
        assert refused(config).startswith(f"{variable}: must be a URL")
    monkeypatch.delenv("RUNSTREAM_OTLP")
    config.write_text('otlp = "localhost:4317"\n')
    assert refused(config).startswith(f"otlp in {config}: must be a URL")
    assert refused(config, otlp="localhost:4317").startswith("--otlp: must be a URL")


def test_one_file_does_not_outlive_its_settings(tmp_path: Path) -> None:
    """Settings loaded without a file know nothing of one that was loaded before."""
    config = tmp_path / "runstream.toml"
    config.write_text('log_level = "debug"\n')
    assert load_settings(config).log_level == "debug"
    assert load_settings(None).log_level == "info"


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A file that was named and is not there, or is a folder, is no empty file."""
    assert refused(tmp_path / "nowhere.toml") == f"there is no file {tmp_path / 'nowhere.toml'}"
    assert "there is no file" in refused(tmp_path)


def test_a_setting_that_there_is_not_is_refused(tmp_path: Path) -> None:
    """A misspelt setting in a file, or as a flag, is told by its name and not ignored."""
    config = tmp_path / "runstream.toml"
    config.write_text('listne = "127.0.0.1:1"\n')
    assert refused(config) == f"listne in {config}: there is no such setting; did you mean listen?"
    assert refused(listne="127.0.0.1:1") == "--listne: there is no such setting; did you mean listen?"
    config.write_text("[nonsense]\nlisten = 1\n")
    assert refused(config) == f"nonsense in {config}: there is no such setting"


@pytest.mark.parametrize("listen", ["", "7400", ":7400", "localhost", "localhost:", "localhost:x", "localhost:65536"])
def test_an_address_that_is_none_is_refused(listen: str) -> None:
    """An address is a host and a port; the refusal shows what was given and how it should read."""
    told = refused(listen=listen)
    assert "must be HOST:PORT, as in 127.0.0.1:7400 or [::1]:7400" in told
    assert repr(listen) in told


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.9.9.9:7400", "localhost:7400", "[::1]:65535"])
def test_an_address_of_this_machine_needs_no_tls(listen: str) -> None:
    """Loopback, by whatever name, is served in plain text."""
    assert load_settings(None, listen=listen).loopback


@pytest.mark.parametrize("listen", ["0.0.0.0:7400", "10.0.0.1:7400", "[::]:7400", "host.example:7400", "127.0.0.256:1"])
def test_an_address_that_others_can_reach_needs_tls_or_consent(listen: str, tmp_path: Path) -> None:
    """Beyond loopback, plain text needs a flag that says what it gives up; with TLS it does not."""
    told = refused(listen=listen)
    assert f"{listen} can be reached from other machines" in told
    assert "tls_cert and tls_key" in told
    assert "allow_plaintext_network" in told
    assert "secrets included" in told
    assert not load_settings(None, listen=listen, allow_plaintext_network=True).loopback
    pem = tmp_path / "x.pem"
    assert load_settings(None, listen=listen, tls_cert=pem, tls_key=pem).tls_cert == pem


@pytest.mark.parametrize("metrics", ["", "9464", ":9464", "localhost:x", "localhost:65536"])
def test_an_address_of_metrics_that_is_none_is_refused(metrics: str) -> None:
    """It is a host and a port, as the address of the API is; any host will do, since no data of users is shown."""
    assert "metrics" in (told := refused(metrics=metrics))
    assert "must be HOST:PORT" in told
    assert load_settings(None, metrics="0.0.0.0:9464").metrics == "0.0.0.0:9464"
    assert load_settings(None).metrics is None


@pytest.mark.parametrize("otlp", ["", "localhost:4317", "grpc://localhost:4317", "http://", "ftp://x", "http://["])
def test_a_collector_that_is_no_url_is_refused(otlp: str) -> None:
    """A collector is named by a URL whose scheme says whether it is TLS."""
    assert "must be a URL, as in http://localhost:4317" in refused(otlp=otlp)
    assert load_settings(None, otlp="https://collector:4317").otlp == "https://collector:4317"


def test_the_collector_of_the_environment_counts_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of OpenTelemetry name a collector where no setting does, that of metrics before that of all."""
    assert not load_settings(None).measured
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4317")
    assert load_settings(None).otlp == "http://all:4317"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://metrics:4317")
    assert load_settings(None).otlp == "http://metrics:4317"
    config = tmp_path / "runstream.toml"
    config.write_text('otlp = "http://file:4317"\n')
    assert load_settings(config).otlp == "http://file:4317"
    monkeypatch.setenv("RUNSTREAM_OTLP", "http://ours:4317")
    assert load_settings(config).otlp == "http://ours:4317"
    assert load_settings(config, otlp="http://flag:4317").otlp == "http://flag:4317"


@pytest.mark.parametrize(("name", "value"), [("OTEL_METRICS_EXPORTER", "none"), ("OTEL_SDK_DISABLED", "TRUE")])
def test_what_turns_open_telemetry_off_turns_its_collector_off(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The standard switches hold for the standard endpoint, and not for one that was set for this server."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4317")
    monkeypatch.setenv(name, value)
    assert load_settings(None).otlp is None
    assert load_settings(None, otlp="http://flag:4317").otlp == "http://flag:4317"


def test_half_of_a_certificate_is_refused(tmp_path: Path) -> None:
    """Certificate and key go together, and a client authority needs both."""
    pem = tmp_path / "x.pem"
    assert "tls_cert and tls_key must be given together" in refused(tls_cert=pem)
    assert "tls_cert and tls_key must be given together" in refused(tls_key=pem)
    assert "tls_client_ca needs tls_cert and tls_key" in refused(tls_client_ca=pem)
    assert load_settings(None, tls_cert=pem, tls_key=pem, tls_client_ca=pem).tls_client_ca == pem


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("max_message_bytes", 1 << 20, 1 << 30),
        ("cancel_grace", 0, 86_400),
        ("drain_timeout", 0, 3_600),
        ("max_depth", 0, 1_000),
        ("client_rate", 0, 1_000_000),
        ("client_burst", 1, 1_000_000),
    ],
)
def test_a_number_out_of_range_is_refused(name: str, low: int, high: int) -> None:
    """Both ends of a range are taken, what is beyond is refused by name."""
    for number in (low, high):
        assert getattr(load_settings(None, **{name: number}), name) == number
    for number in (low - 1, high + 1):
        assert refused(**{name: number}).startswith(option(name))


LIMITS = {
    "max_execution_changes": 1_000_000,
    "max_execution_bytes": 1 << 30,
    "max_calls": 10_000,
    "max_streams": 10_000,
    "max_calls_per_client": 0,
    "max_streams_per_client": 0,
    "client_rate": 0,
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_has_a_default_and_can_be_taken_away(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By 0; no limit is negative, and each can be given in the environment."""
    assert getattr(load_settings(None), name) == LIMITS[name]
    monkeypatch.setenv(f"RUNSTREAM_{name.upper()}", "0")
    assert getattr(load_settings(None), name) == 0
    assert refused(**{name: -1}).startswith(option(name))


@pytest.mark.parametrize(("name", "value"), [("log_format", "xml"), ("log_level", "loud"), ("fold_cache_bytes", -1)])
def test_a_value_that_there_is_not_is_refused(name: str, value: object) -> None:
    """A value outside of what a setting knows is refused by name."""
    assert refused(**{name: value}).startswith(option(name))


def test_everything_wrong_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong settings of all sources are in one refusal."""
    config = tmp_path / "runstream.toml"
    config.write_text('log_level = "loud"\n')
    monkeypatch.setenv("RUNSTREAM_CANCEL_GRACE", "soon")
    told = refused(config, listen="nowhere")
    assert all(name in told for name in ("log_level in ", "RUNSTREAM_CANCEL_GRACE: ", "--listen: "))


def test_settings_do_not_change() -> None:
    """What was loaded stays as it was loaded."""
    settings: Any = load_settings(None)
    with pytest.raises(ValidationError, match="frozen"):
        settings.listen = "127.0.0.1:1"


def test_every_setting_is_described() -> None:
    """Each setting says what it is; the command line shows it as the help of its flag."""
    undescribed = [name for name, field in Settings.model_fields.items() if not field.description]
    assert undescribed == []


def test_what_is_kept_how_long_is_checked_at_the_start() -> None:
    """A retention that cannot be understood is refused with what is wrong; without one everything is kept."""
    assert load_settings(None).retain == ""
    assert load_settings(None, retain="30d,FAILED=90d").retain == "30d,FAILED=90d"
    assert "'soon' is no time to keep executions for" in refused(retain="soon")


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As what makes containers writes it when nobody has said anything."""
    for name in ("METRICS", "OTLP", "MAX_STREAMS", "LISTEN"):
        monkeypatch.setenv(f"RUNSTREAM_{name}", "")
    settings = load_settings(None)
    assert (settings.metrics, settings.otlp, settings.listen) == (None, None, "127.0.0.1:7400")


@pytest.mark.parametrize(("text", "told"), [("listen = \n", "line 1"), ('data = "größer"', "utf-8")])
def test_a_file_that_is_no_toml_is_named(text: str, told: str, tmp_path: Path) -> None:
    """Who reads the error knows where to look; TOML is written in UTF-8."""
    file = tmp_path / "runstream.toml"
    file.write_text(text, "latin-1")
    with pytest.raises(ValueError, match=rf"runstream\.toml is no TOML: .*{told}"):
        load_settings(file)
