"""Values: what the rules in the protos cannot say of structs and durations.

Protobuf parsers refuse messages nested deeper than 100. A struct that still fits into the request it came in may no
longer fit into a change, a list or a snapshot that holds it one level further down, and would make those unreadable for
good. So the depth is limited well before that: each struct within a struct takes three levels, each list two.

JSON knows no NaN, no infinity, and durations of ten thousand years only. One such value, taken in as protobuf, would
keep everyone who speaks JSON from the resource, and from every list it is in.
"""

from __future__ import annotations

from functools import cache
from math import isfinite
from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import ListValue, Struct

from runstream.model.errors import FieldViolation

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

DEEPEST = 24
_LONGEST_SECONDS = 315_576_000_000
_NANOS = 1_000_000_000
_LEAVES = frozenset({Struct.DESCRIPTOR.full_name, Duration.DESCRIPTOR.full_name})


def bad_values(message: Message) -> list[FieldViolation]:
    """Find the structs in a request that go too deep or hold a number that is none, and durations that are none."""
    found: list[FieldViolation] = []
    _look_into(message, "", found)
    return found


def is_sound(value: Struct) -> bool:
    """Tell whether a struct goes no deeper than it may, and holds only numbers that are some."""
    return _fits(value, DEEPEST) and _is_finite(value)


def is_duration(value: Duration) -> bool:
    """Tell whether JSON can write a duration."""
    return abs(value.seconds) <= _LONGEST_SECONDS and abs(value.nanos) < _NANOS and value.seconds * value.nanos >= 0


def _look_into(message: Message, path: str, found: list[FieldViolation]) -> None:
    for name, repeated in _leading_to_leaves(message.DESCRIPTOR):
        if repeated:
            # Asked first: to iterate over an empty list costs as much as over several entries.
            if entries := getattr(message, name):
                for index, entry in enumerate(entries):
                    _look(entry, f"{path}{name}[{index}]", found)
        elif message.HasField(name):
            _look(getattr(message, name), f"{path}{name}", found)


def _look(value: Message, path: str, found: list[FieldViolation]) -> None:
    if isinstance(value, Duration):
        if not is_duration(value):
            told = f"must be at most {_LONGEST_SECONDS} seconds, with nanos of the same sign and within a second"
            found.append(FieldViolation(path, told, "duration.valid"))
    elif not isinstance(value, Struct):
        _look_into(value, f"{path}.", found)
    elif not _fits(value, DEEPEST):
        told = f"must not be nested more than {DEEPEST} levels deep"
        found.append(FieldViolation(path, told, "struct.max_depth"))
    elif not _is_finite(value):
        told = "must hold no NaN and no infinity, which JSON cannot write"
        found.append(FieldViolation(path, told, "struct.finite"))


def _fits(value: Struct | ListValue, levels: int) -> bool:
    if levels == 0:
        return False
    for entry in _entries(value):
        kind = entry.WhichOneof("kind")
        if kind == "struct_value" and not _fits(entry.struct_value, levels - 1):
            return False
        if kind == "list_value" and not _fits(entry.list_value, levels - 1):
            return False
    return True


def _is_finite(value: Struct | ListValue) -> bool:
    for entry in _entries(value):
        kind = entry.WhichOneof("kind")
        if kind == "number_value" and not isfinite(entry.number_value):
            return False
        if kind == "struct_value" and not _is_finite(entry.struct_value):
            return False
        if kind == "list_value" and not _is_finite(entry.list_value):
            return False
    return True


def _entries(value: Struct | ListValue) -> Any:  # noqa: ANN401  # the values of a map or of a list
    return value.fields.values() if isinstance(value, Struct) else value.values


@cache
def _leading_to_leaves(descriptor: Descriptor) -> tuple[tuple[str, bool], ...]:
    """The fields under which a struct or a duration can stand, and whether each is repeated.

    Maps of messages hold none in this API.
    """
    return tuple(
        (field.name, field.is_repeated)
        for field in descriptor.fields
        if field.message_type is not None
        and not field.message_type.GetOptions().map_entry
        and (field.message_type.full_name in _LEAVES or _leading_to_leaves(field.message_type))
    )
