"""Limits: what a child of a context is given less of than its parent has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypedDict, cast

from runstream.model.tool_names import sanitised
from runstream.runner.context.budget import Budget
from runstream.runner.errors import ContextInvalid
from runstream.v1 import agent_execution_pb2 as wire

if TYPE_CHECKING:
    from typing import Self, Unpack


class Thoroughness(IntEnum):
    """How much effort the work is worth."""

    QUICK = wire.THOROUGHNESS_QUICK
    MEDIUM = wire.THOROUGHNESS_MEDIUM
    VERY_THOROUGH = wire.THOROUGHNESS_VERY_THOROUGH
    UNCAPPED = wire.THOROUGHNESS_UNCAPPED


class GivenLimits(TypedDict, total=False):
    """What a child may be given; what is not given is as its parent has it."""

    #: The longest it may take: seconds, or a timedelta.
    max_duration: float | timedelta
    budget: Budget
    thoroughness: Thoroughness
    #: The tools it may use, of those that its parent may.
    allowed_tools: Iterable[str]
    #: The language to answer in, as a BCP 47 tag.
    language: str
    #: In place of its parent's.
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What was given, checked. None, everywhere, is as much as the parent has."""

    max_duration: float | None = None
    budget: Budget | None = None
    thoroughness: Thoroughness | None = None
    allowed_tools: frozenset[str] | None = None
    language: str | None = None
    attributes: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, **given: Unpack[GivenLimits]) -> Self:
        """Check what was given. ContextInvalid names every field that is wrong."""
        checks = Violations()
        limits: dict[str, Any] = {}
        for name, value in given.items():
            check = _CHECKS.get(name)
            if check is None:
                raise TypeError(f"there is no limit {name!r}; there are {', '.join(_CHECKS)}")
            if value is not None:
                limits[name] = check(checks, value)
        checks.end()
        return cls(**limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How a part of the work is given to an execution of its own; see `ExecutionContext.delegate`."""

    limits: Limits
    id: str = ""
    session: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()


class Violations:
    """Every field that is wrong, gathered, so that they are told together."""

    def __init__(self) -> None:
        self._found: list[tuple[str, str]] = []

    def add(self, field: str, told: str) -> None:
        """Note that a field is wrong, and what would be right."""
        self._found.append((field, told))

    def end(self) -> None:
        """Raise ContextInvalid if anything was wrong."""
        if self._found:
            raise ContextInvalid(self._found)


def tool_names(names: Iterable[str]) -> frozenset[str]:
    """Return the names of tools as they are compared: sanitised."""
    return frozenset(sanitised(name) for name in names)


def check_duration(violations: Violations, given: object) -> float:
    """Check a length of time; return it in seconds."""
    seconds = given.total_seconds() if isinstance(given, timedelta) else given
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= _LONGEST_SECONDS:
        told = f"must be a number of seconds above 0 and of ten years at most, or a timedelta, not {given!r}"
        violations.add("max_duration", told)
        return 1.0
    return float(seconds)


def check_budget(violations: Violations, given: object) -> Budget:
    """Check a budget."""
    if isinstance(given, Mapping):
        names = [field.name for field in fields(Budget)]
        for name in given.keys() - set(names):
            violations.add(f"budget.{name}", f"is no field of a budget, which has {', '.join(names)}")
        given = Budget(**{name: given[name] for name in names if name in given})
    if not isinstance(given, Budget):
        violations.add("budget", f"must be a Budget, not {given!r}")
        return Budget()
    limits: dict[str, object] = {**given.limits()}  # what callers without types have given
    for name, limit in limits.items():
        if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit <= _MOST[name]:
            told = f"must be a whole number from 0 to {_MOST[name]}, not {limit!r}"
            violations.add(f"budget.{name}", told)
    return given


def check_thoroughness(violations: Violations, given: object) -> Thoroughness:
    """Check a thoroughness; its name, in any case, is one too."""
    if isinstance(given, Thoroughness):
        return given
    name = str(given).upper().replace(" ", "_").replace("-", "_")
    if name in Thoroughness.__members__:
        return Thoroughness[name]
    known = ", ".join(member.lower() for member in Thoroughness.__members__)
    violations.add("thoroughness", f"must be one of {known}, not {given!r}")
    return Thoroughness.MEDIUM


def check_tools(violations: Violations, given: object) -> frozenset[str]:
    """Check the names of tools."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        violations.add("allowed_tools", f"must be a list of names, not {given!r}")
        return frozenset()
    names = list(given)
    if wrong := [name for name in names if not isinstance(name, str) or not name]:
        violations.add("allowed_tools", f"must hold names of tools only, not {wrong[0]!r}")
        return frozenset()
    return tool_names(names)


def check_language(violations: Violations, given: object) -> str:
    """Check a language."""
    parts = given.split("-") if isinstance(given, str) and given.isascii() else [""]
    right = all(0 < len(part) <= _TAG_PART and part.isalnum() for part in parts) and parts[0].isalpha()
    if not right or len(cast("str", given)) > _LONGEST_TAG:
        violations.add("language", f"must be a BCP 47 tag, as en or pt-BR, not {given!r}")
        return ""
    return cast("str", given)


def check_attributes(violations: Violations, given: object) -> Mapping[str, Any]:
    """Check attributes: what JSON can hold, by name."""
    if not isinstance(given, Mapping):
        violations.add("attributes", f"must be a mapping of names to what JSON can hold, not {given!r}")
        return {}
    _check_json(violations, "attributes", given)
    return given


def _check_json(violations: Violations, place: str, value: object) -> None:
    if value is None or isinstance(value, str | bool | int | float):
        return
    if isinstance(value, Mapping):
        for key, each in value.items():
            if not isinstance(key, str):
                violations.add(place, f"must have names that are texts, not {key!r}")
                return
            _check_json(violations, f"{place}.{key}", each)
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            _check_json(violations, f"{place}[{number}]", each)
    else:
        violations.add(place, f"must be something that JSON can hold, not a {type(value).__name__}")


_LONGEST_TAG = 64
#: As the server has it.
_LONGEST_SECONDS = 315_360_000
_MOST = {field.name: (1 << 31) - 1 if field.name == "depth" else (1 << 63) - 1 for field in fields(Budget)}
_TAG_PART = 8

_CHECKS = {
    "max_duration": check_duration,
    "budget": check_budget,
    "thoroughness": check_thoroughness,
    "allowed_tools": check_tools,
    "language": check_language,
    "attributes": check_attributes,
}
