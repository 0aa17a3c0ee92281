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
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.message import Message

DEEPEST = 24
_LONGEST_SECONDS = 315_576_000_000
_NANOS = 1_000_000_000
_LEAVES = frozenset({Struct.DESCRIPTOR.full_name, Duration.DESCRIPTOR.full_name})


def bad_values(message: Message, path: str = "") -> Iterator[FieldViolation]:
    """Find the structs in a request that go too deep or hold a number that is none, and durations that are none."""
    for field in _leading_to_leaves(message.DESCRIPTOR):
        value: Any = getattr(message, field.name)
        if field.is_repeated:
            named = f"{path}{field.name}"
            for index, entry in enumerate(value):
                yield from _look(entry, f"{named}[{index}]")
        elif message.HasField(field.name):
            yield from _look(value, f"{path}{field.name}")


def _look(value: Message, path: str) -> Iterator[FieldViolation]:
    if isinstance(value, Duration):
        if not _is_duration(value):
            told = f"must be at most {_LONGEST_SECONDS} seconds, with nanos of the same sign and within a second"
            yield FieldViolation(path, told, "duration.valid")
    elif not isinstance(value, Struct):
        yield from bad_values(value, f"{path}.")
    elif not _fits(value, DEEPEST):
        yield FieldViolation(path, f"must not be nested more than {DEEPEST} levels deep", "struct.max_depth")
    elif not _is_finite(value):
        yield FieldViolation(path, "must hold no NaN and no infinity, which JSON cannot write", "struct.finite")


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


def _is_duration(value: Duration) -> bool:
    return abs(value.seconds) <= _LONGEST_SECONDS and abs(value.nanos) < _NANOS and value.seconds * value.nanos >= 0


@cache
def _leading_to_leaves(descriptor: Descriptor) -> tuple[FieldDescriptor, ...]:
    """The fields under which a struct or a duration can stand. Maps of messages hold none in this API."""
    return tuple(
        field
        for field in descriptor.fields
        if field.message_type is not None
        and not field.message_type.GetOptions().map_entry
        and (field.message_type.full_name in _LEAVES or _leading_to_leaves(field.message_type))
    )
