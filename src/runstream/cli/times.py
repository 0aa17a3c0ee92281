"""Times: those a person types, and those a person reads."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from google.protobuf.timestamp_pb2 import Timestamp

from runstream.cli.failure import Misuse

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNITS: Final[Mapping[str, timedelta]] = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_AGO: Final = re.compile(r"(?:\d+[smhdw])+")
_AGO_PART: Final = re.compile(r"(\d+)([smhdw])")


def instant(text: str, option: str, now: datetime) -> Timestamp:
    """Return the time that `text` names: RFC 3339, or how long before `now`, as in `2h` or `1d12h`.

    A time without an offset is local. Raises `Misuse`.
    """
    try:
        if _AGO.fullmatch(text):
            return timestamp(now - sum((_span(*part) for part in _AGO_PART.findall(text)), timedelta()))
        moment = datetime.fromisoformat(text)
        return timestamp(moment.astimezone(UTC))
    except (ValueError, OverflowError):
        raise Misuse(
            f"{option} takes an RFC 3339 time like 2026-01-31T12:00:00Z, or how long ago like 90m,"
            f" 2h or 1d12h; not {text!r}"
        ) from None


def timestamp(moment: datetime) -> Timestamp:
    """Return the protobuf form of `moment`."""
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def moment_of(text: str) -> datetime | None:
    """Return the time of an RFC 3339 string of the API; None when it is empty or is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def between(started: str, completed: str, now: datetime) -> timedelta | None:
    """Return the time between two RFC 3339 strings, up to `now` while the second is empty."""
    start = moment_of(started)
    if start is None:
        return None
    end = moment_of(completed) or now
    return max(end - start, timedelta())


def brief(span: timedelta | None) -> str:
    """Return a span in at most two units: `0.4s`, `12s`, `3m05s`, `2h10m`, `5d`; empty for None."""
    if span is None:
        return ""
    seconds = max(span.total_seconds(), 0.0)
    if seconds < 9.95:  # noqa: PLR2004 — tenths are shown where they tell something
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_rest = divmod(minutes, 60)
    if not minutes:
        return f"{rest}s"
    if not hours:
        return f"{minutes}m{rest:02}s"
    days, hours_rest = divmod(hours, 24)
    return f"{days}d{hours_rest}h" if days else f"{hours}h{minutes_rest:02}m"


def clock(moment: datetime, now: datetime) -> str:
    """Return a moment as a local clock shows it, with the date when that is not today's."""
    local = moment.astimezone()
    return f"{local:%H:%M:%S}" if local.date() == now.astimezone().date() else f"{local:%Y-%m-%d %H:%M:%S}"


def age(stamp: Timestamp, now: datetime) -> str:
    """Return how long ago `stamp` was, in one unit as in `5m`; empty when it is unset."""
    if not stamp.seconds:
        return ""
    seconds = max((now - stamp.ToDatetime(UTC)).total_seconds(), 0.0)
    for unit, size in reversed(list(_UNITS.items())):
        if seconds >= size.total_seconds() and unit != "w":
            return f"{int(seconds // size.total_seconds())}{unit}"
    return "0s"


def _span(count: str, unit: str) -> timedelta:
    return int(count) * _UNITS[unit]
