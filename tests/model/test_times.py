from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from runstream.model.times import to_datetime, to_duration, to_millis, to_rfc3339, to_seconds, to_timestamp

FAST = settings(max_examples=100, deadline=None)
TIMES = st.datetimes(timezones=st.just(UTC))


@FAST
@given(TIMES)
def test_a_time_survives_the_wire(time: datetime) -> None:
    """A datetime is the same after it was a Timestamp, and both are the same millisecond."""
    timestamp = to_timestamp(time)
    assert to_datetime(timestamp) == time
    assert to_millis(timestamp) == to_millis(time)
    assert 0 <= timestamp.nanos < 1_000_000_000


@FAST
@given(TIMES)
def test_text_has_exactly_three_decimals_and_is_never_later(time: datetime) -> None:
    """RFC 3339 in UTC, cut to the millisecond."""
    text = to_rfc3339(time)
    assert len(text) == len("2026-01-31T12:00:00.000Z")
    read = datetime.fromisoformat(text)
    assert timedelta(0) <= time - read < timedelta(milliseconds=1)


def test_another_zone_is_written_in_utc() -> None:
    """The zone that a time came with is not seen."""
    time = datetime(2026, 1, 31, 13, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=1)))
    assert to_rfc3339(time) == "2026-01-31T12:00:00.999Z"
    assert to_timestamp(time) == Timestamp(seconds=1_769_860_800, nanos=999_999_000)


def test_milliseconds_before_1970_are_negative_and_cut_down() -> None:
    """Cutting goes towards the past on both sides of 1970."""
    time = datetime(1969, 12, 31, 23, 59, 59, 999_500, tzinfo=UTC)
    assert to_millis(time) == to_millis(to_timestamp(time)) == -1


@pytest.mark.parametrize(
    "timestamp",
    [
        Timestamp(seconds=2**62),
        Timestamp(seconds=-(2**62)),
        Timestamp(seconds=253_402_300_800),
        Timestamp(seconds=-62_135_596_801),
        Timestamp(nanos=1_000_000_000),
        Timestamp(nanos=-1),
    ],
)
def test_a_timestamp_out_of_range_is_a_value_error(timestamp: Timestamp) -> None:
    """What a hostile client sends as a time is refused, whatever it is turned into."""
    with pytest.raises(ValueError, match="must be from"):
        to_datetime(timestamp)
    with pytest.raises(ValueError, match="must be from"):
        to_millis(timestamp)


def test_the_ends_of_the_range_are_in_it() -> None:
    """The years 1 and 9999 can be written."""
    assert to_rfc3339(to_datetime(Timestamp(seconds=-62_135_596_800))) == "0001-01-01T00:00:00.000Z"
    last = Timestamp(seconds=253_402_300_799, nanos=999_999_999)
    assert to_rfc3339(to_datetime(last)) == "9999-12-31T23:59:59.999Z"


def test_a_time_without_a_zone_is_refused() -> None:
    """Nobody guesses which zone was meant."""
    naive = datetime(2026, 1, 31)  # noqa: DTZ001  # the point of the test
    for convert in (to_rfc3339, to_timestamp, to_millis):
        with pytest.raises(ValueError, match="no time zone"):
            convert(naive)


@given(st.integers(0, 315_360_000_000))
def test_a_duration_survives_the_wire_to_the_millisecond(milliseconds: int) -> None:
    """What a setting says in seconds is what a runner reads."""
    assert round(to_seconds(to_duration(milliseconds / 1_000)) * 1_000) == milliseconds
