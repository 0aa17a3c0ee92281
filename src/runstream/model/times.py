"""Times: `datetime` inside, RFC 3339 text and `Timestamp` on the wire, milliseconds in indexes.

Whatever is finer than the target is cut off, never rounded up: a time never moves into the future.
A `Timestamp` may come from a client and hold anything; out of the years 1 to 9999 it is a
ValueError, which callers turn into INVALID_ARGUMENT.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_SECONDS: Final = 24 * 60 * 60
#: The first second of the year 1 and the last of the year 9999: what RFC 3339 can write.
_FIRST_SECOND: Final = -62_135_596_800
_LAST_SECOND: Final = 253_402_300_799
_NANOS_PER_SECOND: Final = 1_000_000_000


def to_rfc3339(time: datetime) -> str:
    """Write an aware time in UTC with exactly three decimals: `2026-01-31T12:00:00.000Z`.

    ValueError for a time without a zone.
    """
    text = _aware(time).astimezone(UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"


def to_timestamp(time: datetime) -> Timestamp:
    """Make the `Timestamp` of an aware time, to the microsecond; ValueError without a zone."""
    since = _aware(time) - _EPOCH
    return Timestamp(seconds=since.days * _DAY_SECONDS + since.seconds, nanos=since.microseconds * 1_000)


def from_millis(millis: int) -> Timestamp:
    """Make the `Timestamp` of milliseconds since 1970."""
    seconds, rest = divmod(millis, 1_000)
    return Timestamp(seconds=seconds, nanos=rest * 1_000_000)


def to_datetime(timestamp: Timestamp) -> datetime:
    """Make the time, in UTC and to the microsecond, of a `Timestamp`; ValueError out of range."""
    seconds, nanos = _in_range(timestamp)
    return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1_000)


def to_millis(time: datetime | Timestamp) -> int:
    """Count the whole milliseconds since 1970, negative before it.

    ValueError for a `Timestamp` out of range or a `datetime` without a zone.
    """
    if isinstance(time, Timestamp):
        seconds, nanos = _in_range(time)
        return seconds * 1_000 + nanos // 1_000_000
    since = _aware(time) - _EPOCH
    return (since.days * _DAY_SECONDS + since.seconds) * 1_000 + since.microseconds // 1_000


def to_duration(seconds: float) -> Duration:
    """Make the `Duration` of seconds, to the nanosecond."""
    duration = Duration()
    duration.FromNanoseconds(round(seconds * _NANOS_PER_SECOND))
    return duration


def to_seconds(duration: Duration) -> float:
    """Return how many seconds a `Duration` is."""
    nanoseconds: int = duration.ToNanoseconds()
    return nanoseconds / _NANOS_PER_SECOND


def _aware(time: datetime) -> datetime:
    if time.tzinfo is None:
        raise ValueError(f"{time.isoformat()} has no time zone; times here are aware, in UTC.")
    return time


def _in_range(timestamp: Timestamp) -> tuple[int, int]:
    seconds, nanos = timestamp.seconds, timestamp.nanos
    if not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        raise ValueError(
            f"seconds is {seconds}, but must be from {_FIRST_SECOND} to {_LAST_SECOND} (the years 1 to 9999)."
        )
    if not 0 <= nanos < _NANOS_PER_SECOND:
        raise ValueError(f"nanos is {nanos}, but must be from 0 to {_NANOS_PER_SECOND - 1}.")
    return seconds, nanos
