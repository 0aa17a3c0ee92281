"""Validation: the rules written in the protos, checked, every violation in one error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import protovalidate

from runstream.model.errors import FieldViolation, InvalidArgument
from runstream.pipeline.entries import check_entries
from runstream.pipeline.rules import keeps_rules
from runstream.pipeline.values import bad_values

if TYPE_CHECKING:
    from google.protobuf.message import Message

#: How the protos write that a field is an id.
_ID_PATTERN = re.compile(r"\^\(?(?P<prefix>[a-z]{3}|\[a-z\]\{3\})_\[0-7\]\[0-9a-hjkmnp-tv-z\]\{25\}(\)\?)?\$")

_VALIDATOR = protovalidate.Validator()
#: How many violations are told in words; all of them are in the details.
_TOLD = 5
#: How many violations are looked at; more do not fit an answer.
_MOST = 1_000
#: The longest value that is shown. Values of `runtime_env` may be secret and never are.
_SHOWN = 64


def validate(message: Message) -> None:
    """Check `message` against the rules of its proto. Raises `InvalidArgument`, reason INVALID_FIELDS.

    `ResourceExhausted` for a request with too many entries.
    """
    check_entries(message)
    if keeps_rules(message):
        return
    violations = violations_of(message)
    if violations:
        raise invalid_fields(violations)


def violations_of(message: Message) -> list[FieldViolation]:
    """Return what breaks the rules of its proto in a message of any size."""
    violations = [_translate(violation) for violation in _VALIDATOR.collect_violations(message)[:_MOST]]
    violations.extend(bad_values(message))
    return violations


def invalid_fields(violations: list[FieldViolation]) -> InvalidArgument:
    """Make one error of all violations."""
    told = "; ".join(f"{v.field}: {v.description}" for v in violations[:_TOLD])
    more = f"; and {len(violations) - _TOLD} more" if len(violations) > _TOLD else ""
    return InvalidArgument("INVALID_FIELDS", f"{told}{more}", fields=violations)


def _translate(violation: protovalidate.Violation) -> FieldViolation:
    proto = violation.proto
    path = _path(violation)
    description = _expected_id(violation.rule_value) or proto.message or f"breaks the rule {proto.rule_id}"
    if proto.for_key:
        description = f"key {description}"
    value = violation.field_value
    if isinstance(value, int | str) and len(str(value)) <= _SHOWN and "runtime_env" not in path:
        description = f"{description}, not {value!r}"
    return FieldViolation(path, description, proto.rule_id)


def _expected_id(rule_value: object) -> str:
    """Say in words what the pattern of an id demands; nothing for any other rule."""
    found = _ID_PATTERN.fullmatch(rule_value) if isinstance(rule_value, str) else None
    if found is None:
        return ""
    prefix = found["prefix"]
    return f"must be an id: {'three letters' if prefix.startswith('[') else prefix}, _ and 26 letters or digits"


def _path(violation: protovalidate.Violation) -> str:
    """Write a field path as in ``metadata.labels["team"]`` or ``status.messages[3].type``."""
    field = violation.proto.field
    if field is None:
        return ""
    parts: list[str] = []
    for element in field.elements:
        parts.append(f".{element.field_name}")
        subscript = element.subscript
        if subscript is None:
            continue
        shown = f'"{subscript.value}"' if subscript.field == "string_key" else subscript.value
        parts.append(f"[{shown}]")
    return "".join(parts).lstrip(".")
