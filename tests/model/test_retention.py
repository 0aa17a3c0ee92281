"""Retention: what can be said about how long executions are kept, and what is refused."""

from __future__ import annotations

from datetime import timedelta

import pytest

from runstream.model.phases import TERMINAL
from runstream.model.retention import parse_retention
from runstream.v1.agent_execution_pb2 import EXECUTION_COMPLETED, EXECUTION_FAILED


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("90m", timedelta(minutes=90)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("4w", timedelta(weeks=4)),
        ("1d12h", timedelta(hours=36)),
    ],
)
def test_a_span_is_for_every_end(text: str, kept: timedelta) -> None:
    """One span counts for whatever an execution ended as."""
    assert parse_retention(text) == dict.fromkeys(TERMINAL, kept)


def test_a_phase_can_have_its_own() -> None:
    """Phases are named in either case; those that are not named follow the common span, or are kept."""
    named = {EXECUTION_COMPLETED: timedelta(days=7), EXECUTION_FAILED: timedelta(days=90)}
    assert parse_retention("COMPLETED=7d, execution_failed=90d") == named
    every = dict.fromkeys(TERMINAL, timedelta(days=30))
    assert parse_retention("failed=90d,30d") == every | {EXECUTION_FAILED: timedelta(days=90)}


def test_nothing_said_keeps_everything() -> None:
    """An empty text deletes nothing."""
    assert parse_retention("") == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("30", "'30' is no time"),
        ("30s", "'30s' is no time"),
        ("0d", "'0d' is no time"),
        ("-1d", "'-1d' is no time"),
        ("99999999999999999999w", "from a minute to 36500 days"),
        ("COMPLETED=", "'' is no time"),
        ("PENDING=1d", "'PENDING' is no phase that an execution can end in"),
        ("FAILED=1d,failed=2d", "says twice how long to keep failed"),
        ("1d,2d", "says twice how long to keep what has ended"),
    ],
)
def test_nonsense_is_refused(text: str, told: str) -> None:
    """What would delete too early, or nothing at all, is told by name."""
    with pytest.raises(ValueError, match=told):
        parse_retention(text)
