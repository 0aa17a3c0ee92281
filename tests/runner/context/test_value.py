"""Contexts: immutable, made in one place, and never widened."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import time
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from runstream.runner.context import (
    Budget,
    BudgetExceeded,
    ContextInvalid,
    ExecutionContext,
    Thoroughness,
    build_context,
)

EXECUTION = "aex_01m7z8kh30kcmnvt0d0d9qj7hc"

amounts = st.none() | st.integers(min_value=0, max_value=50)
budgets = st.builds(
    Budget,
    model_calls=amounts,
    tool_calls=amounts,
    tokens=amounts,
    cost_micros=amounts,
    depth=st.none() | st.integers(min_value=0, max_value=4),
)
tools = st.none() | st.frozensets(st.sampled_from(["search", "write file", "write_file", "ädd", "run"]), max_size=4)
limits = st.fixed_dictionaries(
    {},
    optional={
        "max_duration": st.floats(min_value=0.001, max_value=1e6),
        "budget": budgets,
        "thoroughness": st.sampled_from(Thoroughness),
        "allowed_tools": tools,
        "language": st.sampled_from(["de", "pt-BR"]),
        "attributes": st.dictionaries(st.text(max_size=3), st.integers()),
    },
)


def of_an_execution(**given_values: Any) -> ExecutionContext:  # noqa: ANN401  # any field
    """Return a context of an execution."""
    values: dict[str, Any] = {
        "org": "acme",
        "user": "ada",
        "session": "ses_1",
        "execution": EXECUTION,
        "attempt": 2,
    } | given_values
    return build_context(**values)


def at_most(one: float | None, other: float | None) -> bool:
    """Tell whether a limit is as strict as another one."""
    return other is None or (one is not None and one <= other)


@given(own=limits, chain=st.lists(limits, min_size=1, max_size=5))
def test_no_chain_of_children_ever_has_more_than_anybody_above_it(
    own: dict[str, Any], chain: list[dict[str, Any]]
) -> None:
    line = [of_an_execution(**own)]
    for step in chain:
        if line[-1].budget.depth == 0:
            with pytest.raises(BudgetExceeded, match="no agents below"):
                line[-1].child(**step)
            break
        line.append(line[-1].child(call_id=f"call-{len(line)}", **step))
    for place, below in enumerate(line):
        for above in line[:place]:
            assert at_most(below.deadline, above.deadline)
            for name in ("model_calls", "tool_calls", "tokens", "cost_micros"):
                assert at_most(getattr(below.budget, name), getattr(above.budget, name))
            if above.budget.depth is not None:
                assert below.budget.depth is not None
                assert below.budget.depth < above.budget.depth
            assert below.thoroughness <= above.thoroughness
            assert above.allowed_tools is None or below.allowed_tools is not None
            assert above.allowed_tools is None or below.allowed_tools <= above.allowed_tools  # type: ignore[operator]
            same = ("org", "user", "session", "stateless", "execution", "root_execution", "attempt", "correlation_id")
            assert [getattr(below, name) for name in same] == [getattr(above, name) for name in same]


@given(parent=tools, asked=tools, name=st.sampled_from(["search", "write file", "write_file", "run", "nosuch"]))
def test_a_child_may_use_what_both_allow_however_the_name_is_written(
    parent: frozenset[str] | None, asked: frozenset[str] | None, name: str
) -> None:
    def allowed(names: frozenset[str] | None) -> bool:
        return names is None or name.replace(" ", "_") in {each.replace(" ", "_") for each in names}

    context = of_an_execution(allowed_tools=parent)
    child = context.child() if asked is None else context.child(allowed_tools=asked)
    assert child.allows(name) == (allowed(parent) and allowed(asked))


def test_an_empty_list_of_tools_is_none_and_no_list_is_all() -> None:
    assert of_an_execution().allows("anything")
    assert not of_an_execution(allowed_tools=[]).allows("anything")
    assert not of_an_execution(allowed_tools=["one"]).child(allowed_tools=["other"]).allows("one")


def test_what_the_agent_itself_may_use_bounds_it_and_whoever_works_for_it_in_the_process() -> None:
    context = of_an_execution(agent="agt_a", agent_tools=["delegate", "search"])
    assert not context.allows("deploy")
    assert not context.child(agent="agt_b", agent_tools=["deploy", "search"]).allows("deploy")
    assert not context.child(agent="agt_b").allows("deploy")
    assert context.child(agent="agt_b", agent_tools=["search"]).agent_tools == frozenset({"search"})
    assert not context.to_wire().only_allowed_tools, "an execution of another agent has that agent's tools"


def test_the_parent_of_a_child_is_the_execution_and_the_call_that_asked() -> None:
    context = of_an_execution()
    assert (context.parent_execution, context.parent_call) == (None, None)
    child = context.child(call_id="call-1")
    assert (child.parent_execution, child.parent_call) == (EXECUTION, "call-1")
    assert child.child().parent_call == "call-1"
    assert context.parent_call is None, "the parent stays as it was"


@pytest.mark.parametrize("name", ["user", "budget", "allowed_tools", "deadline", "session"])
def test_nobody_can_change_a_field(name: str) -> None:
    context = of_an_execution()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(context, name, None)
    with pytest.raises((AttributeError, TypeError)):
        context.anything_else = 1  # type: ignore[attr-defined]


def test_nobody_can_change_what_is_inside_either() -> None:
    attributes = {"list": [1, {"deep": 2}]}
    context = of_an_execution(attributes=attributes, baggage={"a": "b"})
    attributes["list"].append("late")
    assert context.attributes["list"] == (1, {"deep": 2})
    with pytest.raises(TypeError):
        context.attributes["list"][1]["deep"] = 3
    with pytest.raises(TypeError):
        context.baggage["a"] = "c"  # type: ignore[index]


def test_there_is_no_way_around_the_builder_and_the_child() -> None:
    context = of_an_execution(budget=Budget(tokens=1))
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(context, budget=Budget())  # type: ignore[call-arg]
    values = {each.name: getattr(context, each.name) for each in dataclasses.fields(context)}
    with pytest.raises(TypeError, match="build_context"):
        ExecutionContext(**values, _made=object())
    with pytest.raises(TypeError, match="to_wire"):
        pickle.dumps(context)


def test_a_copy_is_the_same_context_and_equal_values_are_equal() -> None:
    context = of_an_execution(attributes={"a": [1]})
    assert copy.copy(context) is context
    assert copy.deepcopy({"context": context})["context"] is context
    assert of_an_execution(attributes={"a": [1]}) == context
    assert of_an_execution(user="grace") != context
    assert len({context, of_an_execution(attributes={"a": [1]})}) == 1


def test_every_limit_that_is_wrong_is_told_and_none_is_taken() -> None:
    with pytest.raises(ContextInvalid) as caught:
        of_an_execution().child(max_duration=0, language="?", allowed_tools="search", budget=Budget(tokens=-1))
    assert [field for field, _ in caught.value.violations] == [
        "max_duration",
        "language",
        "allowed_tools",
        "budget.tokens",
    ]
    with pytest.raises(TypeError, match="no limit 'user'"):
        of_an_execution().child(user="eve")  # type: ignore[call-arg]


def test_the_time_that_remains_is_counted_by_a_clock_that_only_goes_on() -> None:
    context = of_an_execution(max_duration=100)
    assert context.deadline is not None
    assert time.monotonic() < context.deadline <= time.monotonic() + 100
    assert 0 < (context.remaining() or 0) <= 100
    assert of_an_execution().remaining() is None
    assert of_an_execution(max_duration=1e-9).remaining() == 0


def test_on_the_wire_it_is_what_the_server_reads_it_back_as() -> None:
    context = of_an_execution(
        max_duration=60,
        budget=Budget(tokens=5, depth=2),
        thoroughness="very thorough",
        allowed_tools=["b", "a"],
        attributes={"n": [1, {"m": None}]},
        baggage={"k": "v"},
    ).child(call_id="call-7")
    wire = context.to_wire()
    assert (wire.parent_execution_id, wire.parent_call_id, wire.user_id) == (EXECUTION, "call-7", "ada")
    assert (wire.budget.tokens, wire.budget.depth, wire.budget.HasField("tool_calls")) == (5, 1, False)
    assert wire.only_allowed_tools
    assert list(wire.allowed_tools) == ["a", "b"]
    assert 59 < wire.max_duration.ToTimedelta().total_seconds() <= 60
    assert MessageToDict(wire.attributes) == {"n": [1, {"m": None}]}
    assert of_an_execution(allowed_tools=[]).to_wire().only_allowed_tools
    assert not of_an_execution().to_wire().only_allowed_tools
