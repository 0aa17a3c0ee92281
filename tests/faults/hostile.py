"""Messages that nobody sends in good faith, for every method of the API, drawn from a seed.

Some are no protobuf at all, some are bent or torn, some are valid and mean to hurt: of extreme numbers, times and
texts, very deep, very many, or very long. A part of them names what is really there.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from runstream._buf.validate import validate_pb2
from tests.making import NOWHERE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from google.protobuf.descriptor import Descriptor, EnumDescriptor, MethodDescriptor
    from google.protobuf.message import Message

#: Nothing is built deeper than this of whole messages; what is deeper is made of bytes.
_DEPTH: Final = 4
_MOST_ENTRIES: Final = 3
_MIB: Final = 1 << 20
_PREFIX = re.compile(r"(agt|ain|ses|aex)_")
#: What nobody objects to: a number, a time in seconds, a text.
_MILD_WHOLE: Final = (0, 0, 1, 2, 7)
_MILD_SECONDS: Final = (0, 1, 60, 3_600, 1_800_000_000)
_MILD_TEXTS: Final = ("", "a", "survey", "here", "look around")
_WHOLE: Final = (0, 1, -1, 2, 7, 2**31 - 1, -(2**31), 2**53 + 1, 2**63 - 1, -(2**63))
_REAL: Final = (0.0, -0.0, 1.5, math.nan, math.inf, -math.inf, 5e-324, 1.7e308)
_TEXTS: Final = (
    "\0",
    "\u202e\u200b\ufeff",
    "\U0001f9ff" * 40,
    "../../etc/passwd",
    "%s%n{0}${x}",
    "'; drop table executions; --",
    "x" * 300,
    "x" * 70_000,
    "aex_" + "7" + "z" * 25,
    "AEX_" + NOWHERE,
    "2026-02-30T25:61:61Z",
    "9999999999999999999999",
)
_LENGTH_DELIMITED: Final = 2
_START_GROUP: Final = 3
_INTEGERS: Final = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


class HostileMessages:
    """Makes requests of bytes."""

    def __init__(self, random: Random, names: Sequence[str] = (), *, most_bytes: int = 9 * _MIB) -> None:
        """Take the ids of what is there, and the size of the largest message."""
        self._random = random
        self._names = list(names)
        self._most_bytes = most_bytes
        #: How much of a message is meant to hurt: one that hurts everywhere gets no further than the first rule.
        self._spite = 0.0
        self._kinds: tuple[tuple[float, Callable[[Descriptor], bytes]], ...] = (
            (0.08, self._noise),
            (0.36, self._whole),
            (0.20, self._bent),
            (0.08, self._torn),
            (0.08, self._with_strangers),
            (0.08, self._of_wrong_types),
            (0.05, self._deep),
            (0.04, self._not_utf8),
            (0.025, self._many),
            (0.005, self._oversized),
        )

    def payload(self, method: MethodDescriptor) -> tuple[str, bytes]:
        """Return what kind of message it is, and the message."""
        weights, makers = zip(*self._kinds, strict=True)
        (make,) = self._random.choices(makers, weights)
        return make.__name__.lstrip("_"), make(method.input_type)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return metadata that may come with it."""
        if self._random.random() < 0.8:
            return ()
        name = self._random.choice(("idempotency-key", "x-request-id", "traceparent"))
        return ((name, self._random.choice(("", "k", "x" * 2000, "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "~!@ "))),)

    def _noise(self, _: Descriptor) -> bytes:
        return self._random.randbytes(self._random.choice((0, 1, 2, 8, 64, 500, 5_000)))

    def _whole(self, of: Descriptor) -> bytes:
        """A message as the protos have it, of values that they may not allow."""
        self._spite = self._random.choice((0.0, 0.02, 0.1, 0.3, 1.0))
        return self._message(of, 0).SerializeToString()

    def _bent(self, of: Descriptor) -> bytes:
        data = bytearray(self._whole(of) or b"\0")
        for _ in range(self._random.choice((1, 1, 2, 5, 20))):
            at = self._random.randrange(len(data))
            change = self._random.random()
            if change < 0.6:
                data[at] = self._random.randrange(256)
            elif change < 0.8:
                data[at:at] = self._random.randbytes(self._random.randrange(1, 9))
            elif len(data) > 1:
                del data[at]
        return bytes(data)

    def _torn(self, of: Descriptor) -> bytes:
        data = self._whole(of)
        return data[: self._random.randrange(len(data) + 1)]

    def _with_strangers(self, of: Descriptor) -> bytes:
        """Fields that nobody knows, in front of and behind those that are known."""
        strangers = b"".join(
            _field(self._random.randrange(1_000, 2**29), self._random.randbytes(self._random.randrange(200)))
            for _ in range(self._random.randrange(1, 60))
        )
        return strangers + self._whole(of) + strangers

    def _of_wrong_types(self, of: Descriptor) -> bytes:
        """Fields that are known, of wire types that are not theirs."""
        made = bytearray(self._whole(of))
        for field in self._random.choices(of.fields, k=3) if of.fields else ():
            made += _varint(field.number << 3 | self._random.randrange(8)) + self._random.randbytes(8)
        return bytes(made)

    def _deep(self, of: Descriptor) -> bytes:
        """One thing within another, thousands of times: groups, or the field itself."""
        levels = self._random.choice((50, 99, 101, 1_000, 20_000))
        number = self._random.choice([field.number for field in of.fields] or [1])
        if self._random.random() < 0.3:
            return _varint(number << 3 | _START_GROUP) * levels
        path = self._path_to_struct(of)
        inner = _nested_struct(min(levels, 2_000))
        for step in reversed(path):
            inner = _field(step, inner)
        return self._whole(of) + inner

    def _path_to_struct(self, of: Descriptor, depth: int = 0) -> list[int]:
        """The numbers of the fields that lead to a Struct; whatever field there is when nothing does."""
        for field in of.fields:
            inner = field.message_type
            if inner is None or depth > _DEPTH:
                continue
            if inner.full_name == "google.protobuf.Struct":
                return [field.number]
            found = self._path_to_struct(inner, depth + 1)
            if found:
                return [field.number, *found]
        return [] if depth else [1]

    def _not_utf8(self, of: Descriptor) -> bytes:
        strings = [field for field in of.fields if field.type == FieldDescriptor.TYPE_STRING]
        if not strings:
            return self._bent(of)
        bad = self._random.choice((b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"a" * 30 + b"\xf4\x90\x80\x80"))
        return self._whole(of) + _field(self._random.choice(strings).number, bad)

    def _many(self, of: Descriptor) -> bytes:
        """Very many of one field."""
        number = self._random.choice([field.number for field in of.fields] or [1])
        value = self._random.choice((b"", b"a", b"\x0a\x00", b"\x0a\x01a"))
        return self._whole(of) + _field(number, value) * self._random.choice((1_001, 20_000, 100_000))

    def _oversized(self, of: Descriptor) -> bytes:
        number = self._random.choice([field.number for field in of.fields] or [1])
        return self._whole(of) + _field(number, b"x" * self._random.randrange(self._most_bytes))

    def _message(self, of: Descriptor, depth: int) -> Message:
        message = GetMessageClass(of)()
        if of.full_name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
            self._fill_time(message)
            return message
        for field in of.fields:
            if self._random.random() < (0.7 if depth == 0 else 0.45):
                self._set(message, field, depth)
        return message

    def _fill_time(self, message: Any) -> None:  # noqa: ANN401  # a Timestamp or a Duration
        if not self._spiteful:
            message.seconds = self._random.choice(_MILD_SECONDS)
            return
        message.seconds = self._random.choice((253_402_300_800, -62_135_596_801, *_WHOLE))
        message.nanos = self._random.choice((0, 1, -1, 999_999_999, 10**9, -(2**31)))

    def _set(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        inner = field.message_type
        if inner is not None and (depth >= _DEPTH or field.is_repeated):
            if depth < _DEPTH and inner.GetOptions().map_entry:
                self._set_map(message, field, inner)
            elif depth < _DEPTH:
                for _ in range(self._random.randrange(_MOST_ENTRIES)):
                    getattr(message, field.name).add().CopyFrom(self._message(inner, depth + 1))
        elif inner is not None:
            getattr(message, field.name).CopyFrom(self._message(inner, depth + 1))
        elif field.is_repeated:
            getattr(message, field.name).extend(self._leaf(field) for _ in range(self._random.randrange(_MOST_ENTRIES)))
        else:
            setattr(message, field.name, self._leaf(field))

    def _set_map(self, message: Message, field: FieldDescriptor, entry: Descriptor) -> None:
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        values = getattr(message, field.name)
        for _ in range(self._random.randrange(_MOST_ENTRIES)):
            if value.message_type is None:
                values[self._leaf(key)] = self._leaf(value)
            else:
                values[self._leaf(key)].CopyFrom(self._message(value.message_type, _DEPTH))

    @property
    def _spiteful(self) -> bool:
        """Whether the next value is one that hurts."""
        return self._random.random() < self._spite

    def _leaf(self, field: FieldDescriptor) -> Any:  # noqa: ANN401  # a value of the field's type
        kind = field.cpp_type
        if field.type == FieldDescriptor.TYPE_BYTES:
            return self._random.randbytes(self._random.choice((0, 3, 5_000)))
        if kind == FieldDescriptor.CPPTYPE_STRING:
            return self._text(field)
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return self._random.random() < 0.5
        if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
            return self._random.choice(_REAL) if self._spiteful else 1.5
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        least, most = _INTEGERS[kind]
        return max(least, min(most, self._random.choice(_WHOLE if self._spiteful else _MILD_WHOLE)))

    def _enum(self, of: EnumDescriptor) -> int:
        if self._spiteful and not of.is_closed:
            return self._random.choice((-1, 99, 2**31 - 1, -(2**31)))
        return self._random.choice(of.values).number

    def _text(self, field: FieldDescriptor) -> str:
        """A text; mostly one that the rules of the field let pass, where they ask for an id."""
        asked = _PREFIX.search(field.GetOptions().Extensions[validate_pb2.field].string.pattern)
        if self._spiteful:
            return self._random.choice(_TEXTS)
        if asked is None:
            return self._random.choice(_MILD_TEXTS)
        fitting = [name for name in self._names if name.startswith(asked[1])]
        return self._random.choice([*fitting, f"{asked[1]}_{NOWHERE}"])


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(value)) + value


def _nested_struct(levels: int) -> bytes:
    """A Struct within a Struct, so many times."""
    inner = b""
    for _ in range(levels):
        inner = _field(1, _field(1, b"k") + _field(2, _field(5, inner)))
    return inner
