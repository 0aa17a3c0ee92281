"""JSON safety: any Python object, made into what JSON and `google.protobuf.Struct` can hold.

Nothing is refused: what JSON has no word for is written as text, what goes too deep, comes again inside itself or takes
too much room is replaced by a mark that says so. Numbers that a double cannot hold exactly are written as text.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from runstream.runner.text import clean, cut, size

if TYPE_CHECKING:
    from collections.abc import Callable

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

#: How deep values may stand in each other; the server takes 24 levels.
DEEPEST: Final = 20
#: How many values, and bytes of text, one object may have.
MOST_VALUES: Final = 5_000
MOST_BYTES: Final = 256 << 10
#: The longest text that stands for an object of a type that is unknown here.
_LONGEST_REPR: Final = 500
#: The least and the greatest integer up to which a double holds every one.
_EXACT: Final = 1 << 53

TOO_DEEP: Final = "[…cut: nested too deep]"
CYCLE: Final = "[…cut: comes again inside itself]"
TOO_MUCH: Final = "[…cut: too large]"


def to_struct(values: Mapping[str, object]) -> Struct:
    """Make a Struct of `values`: at most 20 levels, 5,000 values and about 256 KiB. Never raises for what they hold."""
    struct = Struct()
    plain = to_json(values)
    if isinstance(plain, dict):
        struct.update(plain)
    else:
        struct["value"] = plain
    return struct


def to_json(value: object) -> Json:
    """Make `value` what `json.dumps` takes, within the same limits. Never raises for what it holds."""
    return _Writer().write(value, DEEPEST)


def to_text(value: object) -> str:
    """Write `value` as a tool's result: a text as it is, anything else as JSON. The length is the caller's matter."""
    return clean(value) if isinstance(value, str) else json.dumps(to_json(value), ensure_ascii=False)


class _Writer:
    """Writes one object, and counts what it takes."""

    def __init__(self) -> None:
        self._values = MOST_VALUES
        self._bytes = MOST_BYTES
        self._within: set[int] = set()

    def write(self, value: object, levels: int) -> Json:
        """Write a value that may have `levels` levels, its own included."""
        self._values -= 1
        if self._values < 0 or self._bytes <= 0:
            return TOO_MUCH
        if value is None or isinstance(value, bool):
            return value
        try:
            return self._inside(value, levels)
        except Exception:  # noqa: BLE001  # whatever an object of somebody's does when it is looked at
            return self._text(_described(value))

    def _inside(self, value: object, levels: int) -> Json:
        """Write a value, unless it is being written already."""
        if isinstance(value, Enum):
            return self.write(value.value, levels)
        for kind, plain in _PLAIN:
            if isinstance(value, kind):
                return self._scalar(plain(value))
        if id(value) in self._within:
            return CYCLE
        self._within.add(id(value))
        try:
            return self._container(value, levels)
        finally:
            self._within.discard(id(value))

    def _scalar(self, value: Json) -> Json:
        return self._text(value) if isinstance(value, str) else value

    def _container(self, value: Any, levels: int) -> Json:  # noqa: ANN401  # what nobody knows
        fields = _fields(value)
        if fields is not None:
            return self._dict(fields, levels)
        if isinstance(value, Sequence | AbstractSet):
            return self._list(value, levels)
        if hasattr(type(value), "tolist") and getattr(value, "size", 1) <= MOST_VALUES:
            return self.write(value.tolist(), levels)  # an array, or one of its numbers
        return self._text(_described(value))

    def _dict(self, fields: Mapping[Any, object], levels: int) -> Json:
        if levels <= 0:
            return TOO_DEEP
        written: dict[str, Json] = {}
        for key, value in fields.items():
            if self._values <= 0 or self._bytes <= 0:
                written["…"] = TOO_MUCH
                break
            written[self._text(key if isinstance(key, str) else _described(key))] = self.write(value, levels - 1)
        return written

    def _list(self, values: Sequence[object] | AbstractSet[object], levels: int) -> Json:
        if levels <= 0:
            return TOO_DEEP
        written: list[Json] = []
        in_order = isinstance(values, AbstractSet) and len(values) <= MOST_VALUES
        for value in sorted(values, key=_described) if in_order else values:
            if self._values <= 0 or self._bytes <= 0:
                written.append(TOO_MUCH)
                break
            written.append(self.write(value, levels - 1))
        return written

    def _text(self, text: str) -> str:
        kept = cut(text, max(self._bytes, _LONGEST_REPR))
        self._bytes -= size(kept)
        return kept


def _fields(value: Any) -> Mapping[Any, object] | None:  # noqa: ANN401  # what nobody knows
    """Return what an object consists of by name; None for one that does not."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, Message):
        return MessageToDict(value, preserving_proto_field_name=True)
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for name in ("model_dump", "_asdict"):  # a model of pydantic, a named tuple
        method = getattr(type(value), name, None)
        found = method(value) if callable(method) else None
        if isinstance(found, Mapping):
            return found
    return None


def _number(value: float) -> Json:
    if isinstance(value, int):
        # Some types of numbers are integers to Python and something else to whoever reads JSON.
        return int(value) if -_EXACT <= value <= _EXACT else _digits(value)
    if math.isfinite(value):
        return float(value)
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _digits(value: int) -> str:
    """Write a large integer; hexadecimal when it is too long to be written in decimal."""
    try:
        return str(int(value))
    except ValueError:
        return hex(value)


def _bytes(value: bytes | bytearray | memoryview) -> str:
    # More than that is cut anyway.
    return base64.b64encode(bytes(value[:MOST_BYTES])).decode("ascii")


def _described(value: object) -> str:
    try:
        text = str(value) if isinstance(value, BaseException) else repr(value)
        if isinstance(value, BaseException):
            text = f"{type(value).__name__}: {text}"
    except Exception:  # noqa: BLE001  # as above
        text = f"<{type(value).__name__}>"
    return cut(text, _LONGEST_REPR)


#: Types that are written as one value, and how.
_PLAIN: Final[tuple[tuple[Any, Callable[[Any], Json]], ...]] = (
    (str, str),
    (int | float, _number),
    (datetime | date | time, lambda value: value.isoformat()),
    (timedelta, timedelta.total_seconds),
    (Decimal | Fraction | UUID | PurePath, str),
    (bytes | bytearray | memoryview, _bytes),
)
