"""Rules: a quick look at whether a message keeps those of its proto. What it cannot say yes to goes to the validator.

Most requests break no rule, and to say so the validator takes longer than all that is then done for one. So the rules
of a message type are read from its proto once, and made into checks of the fields that are set. The protos stay the
one truth: a kind of rule that is not understood here lets no value through, and what is wrong is never said here.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from runstream._buf.validate import validate_pb2
from runstream.pipeline.values import is_duration, is_sound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.message import Message

    #: Tells of a value by what it returns, true or not.
    Check: TypeAlias = Callable[[Any], object]

#: Patterns that mean the same to Python: letters and digits, classes, groups and counts, from beginning to end.
_PLAIN_PATTERN: Final = re.compile(r"\^(?P<body>[a-z0-9_()\[\]{},*+?.@/:-]*)\$")


def keeps_rules(message: Message) -> bool:
    """Tell whether a message surely keeps the rules of its proto, and those of `values`; False is no verdict."""
    return bool(_message_check(message.DESCRIPTOR)(message))


class _Plan:
    """What is looked at in messages of one type; made when the first one comes, since types can hold each other."""

    __slots__ = ("_checks", "_descriptor", "_needed")

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor
        #: By field; None where every value will do.
        self._checks: dict[FieldDescriptor, Check | None] = {}
        #: The fields that break a rule by being absent.
        self._needed: frozenset[FieldDescriptor] = frozenset()

    def __call__(self, message: Message) -> bool:
        if not self._checks:
            self._read()
        checks, missing = self._checks, len(self._needed)
        for field, value in message.ListFields():
            check = checks[field]
            if check is not None and not check(value):
                return False
            if missing and field in self._needed:
                missing -= 1
        return not missing

    def _read(self) -> None:
        self._checks = {field: _check_of(field) for field in self._descriptor.fields}
        self._needed = frozenset(field for field, check in self._checks.items() if _is_needed(field, check))


@cache
def _message_check(descriptor: Descriptor) -> Check:
    return _unsure if _has_rules_of_the_whole(descriptor) else _Plan(descriptor)


def _has_rules_of_the_whole(descriptor: Descriptor) -> bool:
    """Tell whether there are rules of a message as such, or of the oneofs in it."""
    if descriptor.GetOptions().HasExtension(validate_pb2.message):
        return True
    return any(oneof.GetOptions().HasExtension(validate_pb2.oneof) for oneof in descriptor.oneofs)


def _is_needed(field: FieldDescriptor, check: Check | None) -> bool:
    if _rules_of(field).required:
        return True
    if field.has_presence or check is None:
        return False
    return not check(() if field.is_repeated else field.default_value)


def _rules_of(field: FieldDescriptor) -> validate_pb2.FieldRules:
    rules: validate_pb2.FieldRules = field.GetOptions().Extensions[validate_pb2.field]
    return rules


def _check_of(field: FieldDescriptor) -> Check | None:
    """Make the check of what a field may hold, once it is set."""
    rules = _rules_of(field)
    own = [_check_of_rule(kind, value, field) for kind, value in rules.ListFields() if kind.name != "required"]
    if not field.is_repeated:
        return _all([_kind_check(field), *own])
    if field.message_type is None or not field.message_type.GetOptions().map_entry:
        return _all([*own, _each(_inner_check(rules.repeated.items, field))])
    key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
    of_keys = _each(_inner_check(rules.map.keys, key))  # a map is iterated by its keys
    return _all([*own, of_keys, _each_value(_inner_check(rules.map.values, value))])


def _inner_check(rules: validate_pb2.FieldRules, field: FieldDescriptor) -> Check | None:
    """Make the check of the entries of a list, or of the keys or values of a map."""
    return _all([_kind_check(field), *(_check_of_rule(kind, value, field) for kind, value in rules.ListFields())])


def _kind_check(field: FieldDescriptor) -> Check | None:
    """Make the check that every value of this kind has to pass."""
    kind = field.message_type
    if kind is None:
        return None
    return _WELL_KNOWN[kind.full_name] if kind.full_name in _WELL_KNOWN else _message_check(kind)


def _check_of_rule(kind: FieldDescriptor, rules: Any, field: FieldDescriptor) -> Check | None:  # noqa: ANN401
    """Make the check of all rules of one kind, as in ``string``; `_unsure` when one of them is not known here."""
    if kind.message_type is None or kind.is_repeated:
        return _unsure
    found = [(rule.name, bound) for rule, bound in rules.ListFields() if rule.name not in _INNER]
    made = [_RULES.get((kind.name, name), _unknown)(bound, field) for name, bound in found]
    return _all(made) if made or rules.ListFields() else _unsure


def _all(checks: Iterable[Check | None]) -> Check | None:
    """Make one check of several; None of none."""
    several = [check for check in checks if check is not None]
    if not several:
        return None
    first, others = several[0], _all(several[1:])
    return first if others is None else lambda value: first(value) and others(value)


def _each(check: Check | None) -> Check | None:
    return None if check is None else lambda entries: all(map(check, entries))


def _each_value(check: Check | None) -> Check | None:
    return None if check is None else lambda entries: not entries or all(map(check, entries.values()))


def _unsure(_value: object) -> bool:
    return False


def _unknown(_bound: object, _field: FieldDescriptor) -> Check:
    return _unsure


def _pattern(pattern: str, _field: FieldDescriptor) -> Check:
    if pattern == r"^\P{Cc}*$":  # no control characters, as Unicode has them
        return re.compile(r"[^\x00-\x1f\x7f-\x9f]*").fullmatch
    plain = _PLAIN_PATTERN.fullmatch(pattern)
    return _unsure if plain is None else re.compile(plain["body"]).fullmatch


def _defined(only: bool, field: FieldDescriptor) -> Check:  # noqa: FBT001  # the value of the rule
    if not only or field.enum_type is None:
        return _unsure
    return frozenset(field.enum_type.values_by_number).__contains__


def _at_most(most: Any, _field: FieldDescriptor) -> Check:  # noqa: ANN401  # a number
    return lambda value: value <= most


def _at_least(least: Any, _field: FieldDescriptor) -> Check:  # noqa: ANN401
    return lambda value: value >= least


def _no_longer(most: int, _field: FieldDescriptor) -> Check:
    return lambda value: len(value) <= most


def _no_shorter(least: int, _field: FieldDescriptor) -> Check:
    return lambda value: len(value) >= least


def _no_more_bytes(most: int, _field: FieldDescriptor) -> Check:
    return lambda text: len(text.encode()) <= most


def _one_of(allowed: Iterable[str], _field: FieldDescriptor) -> Check:
    return frozenset(allowed).__contains__


def _all_different(unique: bool, _field: FieldDescriptor) -> Check:  # noqa: FBT001  # the value of the rule
    return (lambda entries: len(set(entries)) == len(entries)) if unique else _unsure


#: The rules that are understood: the kind of value, the rule, and what makes a check of what the proto gives it.
_RULES: Final[dict[tuple[str, str], Callable[[Any, FieldDescriptor], Check]]] = {
    ("string", "min_len"): _no_shorter,
    ("string", "max_len"): _no_longer,
    ("string", "max_bytes"): _no_more_bytes,
    ("string", "pattern"): _pattern,
    ("string", "in"): _one_of,
    ("bytes", "min_len"): _no_shorter,
    ("bytes", "max_len"): _no_longer,
    ("int32", "gte"): _at_least,
    ("int32", "lte"): _at_most,
    ("int64", "gte"): _at_least,
    ("int64", "lte"): _at_most,
    ("enum", "defined_only"): _defined,
    ("repeated", "min_items"): _no_shorter,
    ("repeated", "max_items"): _no_longer,
    ("repeated", "unique"): _all_different,
    ("map", "min_pairs"): _no_shorter,
    ("map", "max_pairs"): _no_longer,
}

#: What stands inside of such rules is seen to apart.
_INNER: Final = frozenset({"items", "keys", "values"})

#: Messages that come with protobuf: what `values` demands of them, None for nothing.
_WELL_KNOWN: Final[dict[str, Check | None]] = {
    Struct.DESCRIPTOR.full_name: is_sound,
    Duration.DESCRIPTOR.full_name: is_duration,
    Timestamp.DESCRIPTOR.full_name: None,
    FieldMask.DESCRIPTOR.full_name: None,
}
