from __future__ import annotations

import dataclasses
import enum
import json
import math
import uuid
from collections import deque, namedtuple
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from runstream.pipeline.entries import check_entries
from runstream.pipeline.values import bad_values
from runstream.runner.json_safe import CYCLE, TOO_DEEP, to_json, to_struct, to_text
from runstream.v1.agent_execution_pb2 import AgentExecutionStatus, ToolCall


class Colour(enum.Enum):
    """An enum as agents have them."""

    RED = "red"


class Size(enum.IntEnum):
    """An enum that is a number as well."""

    LARGE = 3


@dataclasses.dataclass
class Place:
    """A dataclass with anything in it."""

    name: str
    inner: object


class Query(BaseModel):
    """A model of pydantic."""

    text: str
    since: date


class Hostile:
    """An object that does not want to be looked at."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


class HostileMap(dict[str, object]):
    """A mapping that breaks when it is read."""

    def items(self) -> Any:  # noqa: ANN401  # it returns nothing
        """Break."""
        raise RuntimeError("no")


Point = namedtuple("Point", ["x", "y"])  # noqa: PYI024  # agents have these too

SCALARS: st.SearchStrategy[object] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**4000, max_value=10**5000),
    st.floats(),
    st.complex_numbers(),
    st.text(st.characters(codec=None, categories=None)),
    st.binary(),
    st.datetimes(),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.decimals(),
    st.fractions(),
    st.uuids(),
    st.sampled_from([Colour.RED, Size.LARGE, HostileMap(a=1), object(), int, ValueError("x"), Struct()]),
)
OBJECTS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner),
        st.tuples(inner, inner),
        st.lists(inner).map(deque),
        st.dictionaries(st.one_of(st.text(), st.integers(), st.none(), st.floats()), inner),
        st.builds(Place, st.text(), inner),
        st.builds(Point, inner, inner),
        st.frozensets(st.integers()),
    ),
    max_leaves=30,
)


@given(st.dictionaries(st.text(), OBJECTS))
def test_whatever_an_agent_passes_the_server_takes(values: dict[str, object]) -> None:
    call = ToolCall(id="c", args=to_struct(values))
    status = AgentExecutionStatus(tool_calls=[call])
    check_entries(status)
    assert list(bad_values(AgentExecutionStatus.FromString(status.SerializeToString()))) == []


@given(OBJECTS)
def test_every_object_becomes_strict_json(value: object) -> None:
    json.dumps(to_json(value), allow_nan=False).encode()


@given(st.recursive(st.none() | st.booleans() | st.text() | st.integers(-(2**53), 2**53), st.lists, max_leaves=20))
def test_what_is_json_already_stays_as_it_is(value: object) -> None:
    assert to_json(value) == value


@given(st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.none()))
def test_a_struct_holds_what_it_was_made_of(values: dict[str, object]) -> None:
    assert MessageToDict(to_struct(values)) == values


def test_types_that_agents_use_are_written_as_people_write_them() -> None:
    moment = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    unique = uuid.UUID(int=7)
    assert to_json(
        {
            "at": moment,
            "for": timedelta(minutes=1),
            "colour": Colour.RED,
            "size": Size.LARGE,
            "price": Decimal("1.10"),
            "file": PurePosixPath("/tmp/a"),  # noqa: S108  # nothing is written there
            "id": unique,
            "raw": b"abc",
            "some": {3, 1, 2},
            "place": Place("here", Place("there", None)),
            "query": Query(text="x", since=date(2026, 3, 1)),
            "point": Point(1, 2),
            7: range(2),
        }
    ) == {
        "at": "2026-03-01T12:30:00+00:00",
        "for": 60.0,
        "colour": "red",
        "size": 3,
        "price": "1.10",
        "file": "/tmp/a",  # noqa: S108  # as above
        "id": str(unique),
        "raw": "YWJj",
        "some": [1, 2, 3],
        "place": {"name": "here", "inner": {"name": "there", "inner": None}},
        "query": {"text": "x", "since": "2026-03-01"},
        "point": {"x": 1, "y": 2},
        "7": [0, 1],
    }


def test_numbers_that_json_does_not_know_are_written_as_text() -> None:
    assert to_json([math.nan, math.inf, -math.inf]) == ["NaN", "Infinity", "-Infinity"]
    assert to_json([2**53, 2**53 + 1]) == [2**53, "9007199254740993"]


def test_an_object_that_breaks_when_it_is_looked_at_is_named() -> None:
    assert to_json([Hostile(), HostileMap(a=1), {Hostile(): 1}]) == ["<Hostile>", "{'a': 1}", {"<Hostile>": 1}]


def test_what_comes_again_inside_itself_is_cut() -> None:
    loop: dict[str, object] = {"a": 1}
    loop["again"] = loop
    assert to_json(loop) == {"a": 1, "again": CYCLE}


def test_what_stands_twice_beside_itself_is_no_cycle() -> None:
    shared = [1]
    assert to_json([shared, shared]) == [[1], [1]]


def test_what_goes_too_deep_is_cut() -> None:
    deep: object = "bottom"
    for _ in range(100):
        deep = {"d": deep}
    written = json.dumps(to_json(deep))
    assert json.dumps(TOO_DEEP) in written
    assert written.count("{") == 20


def test_what_is_too_large_is_cut_and_says_so() -> None:
    many = to_json({"many": list(range(1_000_000)), "after": 1})
    assert isinstance(many, dict)
    assert len(json.dumps(many)) < 100_000
    assert "cut: too large" in json.dumps(many)
    assert "cut: " in json.dumps(to_json({"long": "x" * 10_000_000}))
    assert len(json.dumps(to_json({"long": "x" * 10_000_000}))) < 300_000


def test_a_result_is_text_or_json() -> None:
    assert to_text("as it is") == "as it is"
    assert to_text({"ü": [1, None]}) == '{"ü": [1, null]}'
    assert to_text(None) == "null"
