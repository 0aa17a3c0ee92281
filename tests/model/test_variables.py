"""Variables: those that were meant for us and are misspelt are found, and nobody else's are."""

from __future__ import annotations

import pytest

from runstream.model.variables import nearest, unknown_variables

KNOWN = ("RUNSTREAM_LISTEN", "RUNSTREAM_LOG_LEVEL", "RUNSTREAM_SERVER")


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("RUNSTREAM_LISTN", "RUNSTREAM_LISTEN"),
        ("runstream_listn", "RUNSTREAM_LISTEN"),
        ("RUNSTREAM_LOGLEVEL", "RUNSTREAM_LOG_LEVEL"),
        ("RUNSTREAM_SERVERS", "RUNSTREAM_SERVER"),
        ("RUNSTREAM_PORT", ""),
        ("RUNSTREAM_", ""),
    ],
)
def test_a_misspelt_variable_is_found_with_what_was_meant(variable: str, meant: str) -> None:
    """The nearest known name is told where one is near; the prefix makes nothing near."""
    assert unknown_variables({variable: "x", "RUNSTREAM_LISTEN": "y"}, KNOWN) == {variable: meant}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RUNSTREAM_LISTEN", "x"),
        ("runstream_listen", "x"),
        ("RUNSTREAM_LISTN", ""),
        ("_RUNSTREAM_COMPLETE", "x"),
        ("LISTN", "x"),
        ("RUNSTREAM_SERVICE_HOST", "10.0.0.1"),
        ("RUNSTREAM_SERVICE_PORT_GRPC", "7400"),
        ("RUNSTREAM_PORT", "tcp://10.0.0.1:7400"),
        ("RUNSTREAM_PORT_7400_TCP", "tcp://10.0.0.1:7400"),
        ("RUNSTREAM_PORT_7400_TCP_ADDR", "10.0.0.1"),
        ("RUNSTREAM_WEB_SERVICE_HOST", "10.0.0.1"),
    ],
)
def test_what_is_known_or_not_for_us_is_left_alone(variable: str, value: str) -> None:
    """In either case of letters, without a value, without our prefix; and what a cluster sets beside a service."""
    assert unknown_variables({variable: value}, KNOWN) == {}


def test_the_nearest_is_one_of_those_that_are_known() -> None:
    """Whatever the order they come in; none when none is near."""
    assert nearest("listne", ["log_level", "listen"]) == nearest("listne", ["listen", "log_level"]) == "listen"
    assert nearest("nonsense", ["listen"]) == nearest("listen", []) == ""
