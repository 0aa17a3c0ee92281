"""Fingerprint: what an object holds, at one time, to be compared with what it holds at another."""

from __future__ import annotations

import asyncio
import functools
import queue
import sys
import types
from collections import UserDict, UserList, deque
from dataclasses import dataclass
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from google.protobuf.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: How many objects are looked at, and how deep they may stand in each other; what is beyond goes unseen.
MOST_OBJECTS: Final = 20_000
DEEPEST: Final = 16

#: Compared by value. None of them can hold anything else.
_VALUES: Final = (
    *(type(None), bool, complex, range, type(...), date, time, timedelta, tzinfo),
    *(Decimal, Fraction, UUID, PurePath),
)
_SEQUENCES: Final = (list, tuple, deque)
#: Types of the standard library whose attributes are looked at; all others are machinery, such as locks and loggers.
_OPEN: Final = (UserDict, UserList, types.SimpleNamespace)
#: Packages whose objects are machinery: they may change, as a pool does, and mean nothing by it.
_MACHINERY: Final = sys.stdlib_module_names | {__name__.partition(".")[0]}
#: Where queues keep what is in them.
_QUEUES: Final = {asyncio.Queue: "_queue", queue.Queue: "queue"}


@dataclass(frozen=True, slots=True)
class _Found:
    """An object that is to be looked at: how it is reached, and how deep that is."""

    value: Any
    #: As people write it. The keys of dicts are left out: they may be what nobody else is to see.
    path: str = ""
    #: As it is compared: with the keys.
    key: tuple[Any, ...] = ()
    #: The attribute's, if it is one.
    name: str = ""

    def attribute(self, name: str, value: object, of: type | None = None) -> _Found:
        """Return what an attribute holds, of the object itself or of a class: the former may hide the latter."""
        return _Found(value, f"{self.path}.{name}".lstrip("."), (*self.key, (of, name)), name)

    def part(self, place: object, value: object) -> _Found:
        """Return what it is made of itself, to people."""
        return _Found(value, self.path, (*self.key, ("part", place)))

    def item(self, place: object, value: object) -> _Found:
        """Return what stands in a container."""
        return _Found(value, f"{self.path}[…]", (*self.key, ("item", place)))


class _Same:
    """Equal to another one of the very same object, which it keeps: so no identity is given twice."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._value is other._value

    def __hash__(self) -> int:
        return id(self._value)


class Fingerprint:
    """What an object, with all that it is made of, holds now.

    Looked at are attributes, in `__dict__`, in slots, and those of its own class; containers, closures, arguments that
    were bound to functions, and what all of these hold in turn. Machinery, of the standard library and of this SDK, and
    objects that hide what they hold, are compared by identity. It refers to what it has found: keep it for as short as
    can be.
    """

    def __init__(self, value: object, ignore: frozenset[str] = frozenset()) -> None:
        """Look at `value`, except at attributes, of whatever object, that are named in `ignore`."""
        self._ignore = ignore
        self._home = _package(value)
        self._marks: dict[tuple[Any, ...], tuple[str, object]] = {}
        self._seen: dict[int, tuple[object, tuple[Any, ...]]] = {}
        self._classes: set[type] = set()
        left = deque([_Found(value)])
        while left and len(self._marks) < MOST_OBJECTS:
            left.extend(self._look(left.popleft()))

    def changes(self, later: Fingerprint) -> list[str]:
        """Return the paths of what is otherwise, new or gone in a later one of the same object. They tell no values."""
        marks = [*self._marks.items(), *((key, each) for key, each in later._marks.items() if key not in self._marks)]
        told: list[str] = []
        for key, (path, mark) in marks:
            if later._marks.get(key) == self._marks.get(key) == (path, mark):
                continue
            if not any(path == each or path.startswith((f"{each}.", f"{each}[")) for each in told):
                told.append(path)
        return told

    def _look(self, found: _Found) -> Iterable[_Found]:
        """Note one object; return what it holds."""
        value, first = found.value, self._seen.get(id(found.value))
        if first is not None and not _is_value(value):
            self._marks[found.key] = (found.path, ("again", first[1]))
            return ()
        self._seen[id(value)] = (value, found.key)
        self._marks[found.key] = (found.path, _mark(value))
        if len(found.key) >= DEEPEST or _is_value(value):
            return ()
        return [*_items(found), *self._attributes(found)]

    def _attributes(self, found: _Found) -> Iterable[_Found]:
        kept = [found.attribute(name, each) for name, each in _named(found.value)]
        kept += [found.attribute(name, each, of=parent) for parent, name, each in self._of_class(type(found.value))]
        return [each for each in kept if each.name not in self._ignore]

    def _of_class(self, kind: type) -> Iterable[tuple[type, str, object]]:
        """Return what a class holds, once, if it is of the same package as the whole: `self.x` finds it there too."""
        if kind in self._classes:
            return ()
        self._classes.add(kind)
        own = [each for each in kind.__mro__ if each.__module__.partition(".")[0] == self._home]
        held = [(parent, name, each) for parent in own for name, each in list(vars(parent).items())]
        return [each for each in held if not each[1].startswith("__") and not hasattr(each[2], "__get__")]


def _named(value: object) -> Iterable[tuple[str, object]]:
    """Return the attributes of an object, and what is as good as one."""
    if isinstance(value, types.FunctionType):
        return [*_bound(value), *value.__dict__.items()]
    if isinstance(value, functools.partial):
        return [*value.keywords.items(), *vars(value).items()]
    if isinstance(value, types.MethodType) or _is_machinery(value):
        return ()
    return list(_instance(value))


def _mark(value: Any) -> object:  # noqa: ANN401  # anything
    """Return what is compared of an object by itself, without what it holds."""
    kind = type(value)
    for kinds, of in _MARKS:
        if isinstance(value, kinds):
            return kind, of(value)
    return (kind, _Same(value)) if _is_machinery(value) else (kind,)


#: What is compared of which types; the first that fits. Subclasses of plain values may have attributes beside.
_MARKS: Final[tuple[tuple[Any, Callable[[Any], object]], ...]] = (
    (Enum, lambda value: value.name),
    (_VALUES, lambda value: value),
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    ((bytes, bytearray), bytes),
    (Message, lambda value: value.SerializeToString(deterministic=True)),
    ((set, frozenset), lambda value: frozenset(_token(each) for each in tuple(value))),
    ((dict, types.MappingProxyType, *_SEQUENCES), len),
    (types.FunctionType, lambda value: _Same(value.__code__)),
    ((types.MethodType, functools.partial), lambda _: None),
)


def _is_value(value: object) -> bool:
    return type(value) in (str, int, float, bytes) or isinstance(value, (*_VALUES, Enum, Message))


def _is_machinery(value: object) -> bool:
    """Tell whether an object is of a type that is not looked into, or hides what it holds."""
    if isinstance(
        value, (*_OPEN, *_SEQUENCES, set, frozenset, dict, types.MappingProxyType, str, int, float, bytes, bytearray)
    ):
        return False
    kind = type(value)
    if isinstance(value, type | types.ModuleType) or kind.__module__.partition(".")[0] in _MACHINERY:
        return True
    return not hasattr(value, "__dict__") and not any("__slots__" in vars(each) for each in kind.__mro__)


def _token(value: Any) -> object:  # noqa: ANN401  # a key, or an element of a set
    if type(value) in (tuple, frozenset):
        return type(value)(_token(each) for each in value)
    return _mark(value) if _is_value(value) else (type(value), _Same(value))


def _items(found: _Found) -> Iterable[_Found]:
    value = found.value
    if isinstance(value, dict | types.MappingProxyType):
        return [found.item(_token(key), each) for key, each in list(value.items())]
    if isinstance(value, _SEQUENCES):
        return [found.item(number, each) for number, each in enumerate(list(value))]
    if isinstance(value, functools.partial):
        return [found.part("func", value.func), *(found.item(place, each) for place, each in enumerate(value.args))]
    if isinstance(value, types.MethodType):
        return [found.part("self", value.__self__), found.part("func", value.__func__)]
    for kind, name in _QUEUES.items():
        if isinstance(value, kind):
            return [found.item("queued", list(getattr(value, name)))]
    return ()


def _instance(value: object) -> Iterable[tuple[str, object]]:
    """Return the attributes of an object itself. What a cached property computes depends on nothing but the object."""
    kind = type(value)
    held = [(name, each) for name, each in list(getattr(value, "__dict__", {}).items()) if isinstance(name, str)]
    yield from ((name, each) for name, each in held if not _is_cached(kind, name))
    for parent in kind.__mro__:
        for name, slot in list(vars(parent).items()):
            if isinstance(slot, types.MemberDescriptorType) and name not in ("__dict__", "__weakref__"):
                try:
                    yield name, slot.__get__(value)
                except AttributeError:  # nothing there
                    continue


def _is_cached(kind: type, name: str) -> bool:
    return any(isinstance(vars(parent).get(name), functools.cached_property) for parent in kind.__mro__)


def _bound(function: object) -> Iterable[tuple[str, object]]:
    """Return what a function has bound: the variables around it, and its defaults."""
    if not isinstance(function, types.FunctionType):
        return
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not bound yet
            continue
    yield from (("__defaults__", function.__defaults__), ("__kwdefaults__", function.__kwdefaults__))


def _package(value: object) -> str:
    """Return the package that an agent is of."""
    while isinstance(value, functools.partial | types.MethodType):
        value = value.func if isinstance(value, functools.partial) else value.__self__
    module = value.__module__ if isinstance(value, types.FunctionType) else type(value).__module__
    return (module or "").partition(".")[0]
