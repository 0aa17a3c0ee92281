"""What becomes of functions that are registered as tools, and of the arguments they are given."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
from collections.abc import Callable  # noqa: TC003  # a tool's types are read when it runs
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path  # noqa: TC003  # as above
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from runstream.model.tool_names import LONGEST, sanitised
from runstream.runner import Approval, ExecutionContext, ToolArgumentsInvalid, ToolRegistry, build_context
from runstream.runner.tools.tool import read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Address(BaseModel):
    """Where somebody lives."""

    street: str
    number: int = Field(ge=1)


@dataclass
class Person:
    """Somebody."""

    name: str
    addresses: list[Address]


def nothing() -> None:
    """Do nothing."""


def test_a_function_becomes_a_tool_by_its_signature_and_docstring() -> None:
    registry = ToolRegistry()

    @registry.tool
    def search(query: str, limit: Annotated[int, Field(ge=1, description="How many.")] = 3) -> list[str]:
        """Search the library."""
        return [query] * limit

    assert search("x", 2) == ["x", "x"]  # it stays as it is
    assert registry.schemas() == [
        {
            "name": "search",
            "description": "Search the library.",
            "parameters": {
                "type": "object",
                "properties": {
                    "query": {"type": "string"},
                    "limit": {"type": "integer", "minimum": 1, "default": 3, "description": "How many."},
                },
                "required": ["query"],
                "additionalProperties": False,
            },
        }
    ]
    assert registry.names == ("search",)
    assert [tool.name for tool in registry] == ["search"]
    assert ("search" in registry, "nobody" in registry, len(registry), registry.get("nobody")) == (True, False, 1, None)


def test_options_say_what_the_function_does_not() -> None:
    registry = ToolRegistry()
    asking = Approval()
    registry.tool(name="look up", description="Look it up.", approval=asking)(nothing)
    tool = registry.add(lambda: None, name="other")
    assert (registry["look up"].description, registry["look_up"].approval) == ("Look it up.", asking)
    assert (tool.description, tool.approval) == ("", None)


def test_a_schema_is_the_callers_to_change() -> None:
    registry = ToolRegistry()
    tool = registry.add(nothing)
    tool.schema["properties"]["x"] = 1
    assert tool.schema["properties"] == {}


def test_a_parameter_that_is_the_context_is_no_argument() -> None:
    def plain(query: str, context: ExecutionContext) -> None: ...

    def optional(context: ExecutionContext | None, query: str) -> None: ...

    def annotated(query: str, *, context: Annotated[ExecutionContext, "whose"]) -> None: ...

    context = build_context(user="ada")
    for function in (plain, optional, annotated):
        tool = ToolRegistry().add(function)
        assert list(tool.schema["properties"]) == ["query"]
        with pytest.raises(ToolArgumentsInvalid, match="context: Extra inputs are not permitted"):
            tool.check({"query": "x", "context": {"user": "eve"}})
        bound = tool.bound(tool.check({"query": "x"}), context)
        assert isinstance(bound, functools.partial)
        assert bound.keywords == {"query": "x", "context": context}


def test_arguments_arrive_as_the_types_that_they_are_annotated_with() -> None:
    def meet(
        person: Person, day: date, *, how: Literal["kindly", "not"] = "kindly", where: Path | None = None
    ) -> None: ...

    tool = ToolRegistry().add(meet)
    person = {"name": "Ada", "addresses": [{"street": "Main", "number": 1}]}
    checked = tool.check({"person": person, "day": "2026-01-02"})
    assert checked == {"person": Person("Ada", [Address(street="Main", number=1)]), "day": date(2026, 1, 2)}
    with pytest.raises(ToolArgumentsInvalid) as raised:
        tool.check({"person": {**person, "addresses": [{"number": 0}]}, "how": "so", "extra": 1})
    assert [field for field, _ in raised.value.violations] == [
        *("person.addresses[0].street", "person.addresses[0].number", "day", "how", "extra"),
    ]
    assert all(field in str(raised.value) for field, _ in raised.value.violations)
    assert raised.value.reason == "TOOL_ARGUMENTS_INVALID"


def test_a_parameter_may_be_called_anything() -> None:
    """Also as what models of pydantic have of their own, and as what they keep to themselves."""

    def odd(json: int, schema: int, copy: int, model_config: int, _hidden: int, self: int) -> None: ...

    values = {"json": 1, "schema": 2, "copy": 3, "model_config": 4, "_hidden": 5, "self": 6}
    assert ToolRegistry().add(odd).check(values) == values


def test_a_default_is_the_functions_own() -> None:
    """It is neither checked nor copied, and need not be JSON."""
    lock = threading.Lock()

    def guarded(guard: Any = lock, things: list[int] = []) -> tuple[object, object]:  # noqa: ANN401, B006  # what is tested
        return guard, things

    tool = ToolRegistry().add(guarded)
    first = tool.bound(tool.check({}), build_context())()
    second = tool.bound(tool.check({}), build_context())()
    assert first[0] is lock
    assert first[1] is second[1]
    assert "default" not in tool.schema["properties"]["guard"]


class Shelf:
    """Something with methods that are tools."""

    def look(self, book: str) -> str:
        """Look for a book."""
        return f"{book} is here"

    async def __call__(self, book: str) -> str:  # noqa: D102  # what is tested
        return f"{book} was called"


def test_methods_partials_and_objects_that_are_called_are_functions_too() -> None:
    registry = ToolRegistry()
    context = build_context()
    method = registry.add(Shelf().look)
    partial = registry.add(functools.partial(Shelf().look, book="Emma"), name="partial")
    called = registry.add(Shelf(), name="called")
    assert method.bound(method.check({"book": "Emma"}), context)() == "Emma is here"
    assert partial.bound(partial.check({}), context)() == "Emma is here"
    assert asyncio.run(called.bound(called.check({"book": "Emma"}), context)()) == "Emma was called"
    assert (method.blocks, partial.blocks, called.blocks) == (True, True, False)
    assert method.description == partial.description == "Look for a book."


class Unwritten:
    """Something that JSON cannot hold."""


def a_socket(name: str, thing: Unwritten) -> None: ...
def a_function(function: Callable[[], None]) -> None: ...
def untyped(thing) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001  # what is tested
def several(*things: int) -> None: ...
def named(**things: int) -> None: ...
def placed(thing: int, /) -> None: ...
def a_field(thing: int = Field(ge=1)) -> None: ...
def elsewhere(thing: AsyncIterator[int]) -> None: ...


async def generates() -> AsyncIterator[int]:
    """Yield."""
    yield 1


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (a_socket, r"'a_socket' cannot be given its parameter 'thing' as JSON: its type is .*Unwritten"),
        (a_function, "'a_function' cannot be given its parameter 'function' as JSON"),
        (untyped, "'untyped' does not say of which type its parameter 'thing' is"),
        (several, r"given its arguments by name, which \*things.* cannot be"),
        (named, r"given its arguments by name, which \*\*things.* cannot be"),
        (placed, "given its arguments by name, which thing.* cannot be"),
        (a_field, r"write Annotated\[TYPE, Field\(…\)\] instead"),
        (elsewhere, "whose type names 'AsyncIterator', which its module does not have"),
        (generates, "'generates' is a generator"),
    ],
)
def test_a_function_that_cannot_be_a_tool_is_refused_at_once(function: Callable[..., Any], told: str) -> None:
    registry = ToolRegistry()
    with pytest.raises(TypeError, match=told):
        registry.add(function)
    assert registry.names == ()


def test_a_tool_needs_a_name() -> None:
    with pytest.raises(ValueError, match="needs a name"):
        ToolRegistry().add(lambda: None)


NAMES = st.text(min_size=1, max_size=LONGEST + 6)


@given(NAMES)
def test_a_tool_is_found_by_whatever_is_sanitised_to_its_name(name: str) -> None:
    assume(sanitised(name))
    registry = ToolRegistry()
    tool = registry.add(nothing, name=name)
    assert registry[name] is registry[sanitised(name)] is tool
    assert tool.name == sanitised(name)
    assert registry.schemas(build_context(allowed_tools=[name])) == registry.schemas()
    assert registry.schemas(build_context(allowed_tools=[])) == []


@given(NAMES, NAMES)
def test_two_tools_of_one_sanitised_name_are_refused_by_both_names(one: str, other: str) -> None:
    assume(sanitised(one) and sanitised(other))
    registry = ToolRegistry()
    registry.add(nothing, name=one)
    if sanitised(one) != sanitised(other):
        registry.add(nothing, name=other)
        return
    with pytest.raises(ValueError, match="would both be called") as raised:
        registry.add(nothing, name=other)
    assert repr(one) in str(raised.value)
    assert repr(other) in str(raised.value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=8,
)


def typed(number: int, text: str = "", numbers: list[float] | None = None) -> None:
    """Take arguments."""


TYPED = ToolRegistry().add(typed)


@given(st.dictionaries(st.sampled_from(["number", "text", "numbers", "other"]) | st.text(), JSON, max_size=4))
def test_any_arguments_are_either_what_the_types_say_or_refused(arguments: dict[str, Any]) -> None:
    for written in (arguments, json.dumps(arguments)):
        try:
            checked = TYPED.check(read("typed", written))
        except ToolArgumentsInvalid:
            continue
        assert set(checked) == set(arguments) <= {"number", "text", "numbers"}
        assert isinstance(checked["number"], int)
        assert isinstance(checked.get("text", ""), str)


@given(st.text() | st.binary())
def test_any_text_is_read_as_an_object_or_refused(text: str | bytes) -> None:
    with suppress(ToolArgumentsInvalid):
        assert isinstance(read("typed", text), dict)


@pytest.mark.parametrize("text", ["{", "[1]", "7", "null", '{"x": NaN}', "[" * 100_000, "9" * 5_000, '{"x": "\\ud8"}'])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(ToolArgumentsInvalid):
        read("typed", text)


def test_no_text_is_no_arguments() -> None:
    assert read("typed", "") == read("typed", " \n") == {}
