from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from runstream.cli import times
from runstream.cli.failure import Misuse

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2h", NOW - timedelta(hours=2)),
        ("1d12h", NOW - timedelta(days=1, hours=12)),
        ("90m", NOW - timedelta(minutes=90)),
        ("1w", NOW - timedelta(weeks=1)),
        ("2026-01-31T11:00:00Z", NOW - timedelta(hours=1)),
        ("2026-01-31T12:00:00+02:00", NOW - timedelta(hours=2)),
    ],
)
def test_a_time_is_a_moment_or_how_long_ago(text: str, moment: datetime) -> None:
    assert times.instant(text, "--x", NOW).ToDatetime(UTC) == moment


@pytest.mark.parametrize("text", ["", "h", "2x", "-2h", "tomorrow", "99999999999w", "2026-13-01"])
def test_what_is_no_time_is_misuse(text: str) -> None:
    with pytest.raises(Misuse, match="--x takes"):
        times.instant(text, "--x", NOW)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0s"),
        (1.25, "1.2s"),
        (9.96, "10s"),
        (59.6, "1m00s"),
        (185, "3m05s"),
        (7800, "2h10m"),
        (90_000, "1d1h"),
    ],
)
def test_a_span_is_brief(seconds: float, shown: str) -> None:
    assert times.brief(timedelta(seconds=seconds)) == shown


def test_time_never_runs_backwards() -> None:
    assert times.between("2026-01-31T13:00:00.000Z", "", NOW) == timedelta()
    assert times.between("", "", NOW) is None
    assert times.between("nonsense", "", NOW) is None
    assert times.between("2026-01-31T10:00:00.000Z", "2026-01-31T11:00:00.000Z", NOW) == timedelta(hours=1)


@pytest.mark.parametrize(
    ("ago", "shown"),
    [(timedelta(seconds=5), "5s"), (timedelta(minutes=61), "1h"), (timedelta(days=30), "30d"), (-timedelta(1), "0s")],
)
def test_an_age_has_one_unit(ago: timedelta, shown: str) -> None:
    assert times.age(times.timestamp(NOW - ago), NOW) == shown


def test_a_clock_shows_the_date_of_another_day() -> None:
    assert times.clock(NOW, NOW) == f"{NOW.astimezone():%H:%M:%S}"
    assert times.clock(NOW + timedelta(days=2), NOW) == f"{(NOW + timedelta(days=2)).astimezone():%Y-%m-%d %H:%M:%S}"
