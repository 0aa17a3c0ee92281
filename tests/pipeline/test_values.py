from __future__ import annotations

from contextlib import nullcontext
from math import inf, nan
from typing import TYPE_CHECKING

import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from runstream.pipeline.values import DEEPEST, bad_values
from runstream.v1.agent_execution_pb2 import AgentExecution, ExecutionChange
from runstream.v1.agent_execution_service_pb2 import AgentExecutionUpdateStatusInput
from runstream.v1.agent_pb2 import Agent
from runstream.v1.resource_pb2 import ResourceId
from tests.making import an_execution, delta
from tests.serving import INVALID, refusal, serving

if TYPE_CHECKING:
    from pathlib import Path


def nested(levels: int) -> Struct:
    """A struct of so many structs within each other."""
    value = Struct()
    for _ in range(levels - 1):
        outer = Struct()
        outer.fields["in"].struct_value.CopyFrom(value)
        value = outer
    return value


def test_a_struct_of_the_deepest_kind_still_fits_everything_that_will_hold_it() -> None:
    """What is let through can be read back from the deepest place it is ever stored or sent in."""
    request = AgentExecutionUpdateStatusInput()
    call = request.status.messages.add().tool_calls.add()
    call.component_metadata.metadata.CopyFrom(nested(DEEPEST))
    change = ExecutionChange(snapshot=AgentExecution(status=request.status))
    assert list(bad_values(request)) == []
    assert ExecutionChange.FromString(change.SerializeToString()) == change


def test_a_deeper_struct_is_found_wherever_it_stands() -> None:
    """Every struct of a request is looked at, and the path leads to it."""
    request = AgentExecutionUpdateStatusInput()
    request.status.tool_calls.add().args.CopyFrom(nested(DEEPEST + 1))
    call = request.status.messages.add().tool_calls.add()
    call.component_metadata.metadata.CopyFrom(nested(DEEPEST + 1))
    found = {violation.field for violation in bad_values(request)}
    assert found == {"status.tool_calls[0].args", "status.messages[0].tool_calls[0].component_metadata.metadata"}


def test_lists_count_as_levels() -> None:
    """Lists within lists go as deep as structs within structs."""
    request = AgentExecutionUpdateStatusInput()
    value = request.status.tool_calls.add().args.fields["in"]
    for _ in range(DEEPEST):
        value = value.list_value.values.add()
    value.bool_value = True
    assert [violation.field for violation in bad_values(request)] == ["status.tool_calls[0].args"]


def test_a_message_that_can_hold_no_struct_is_not_searched() -> None:
    """Nothing is found where nothing can be."""
    assert list(bad_values(ResourceId(value="x"))) == []


async def test_a_delta_that_goes_too_deep_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    """The depth is a rule of the wire like any other: told by field, before anything is stored."""
    async with serving(tmp_path / "data") as running:
        execution_id = await an_execution(running.client)
        request = delta(execution_id)
        request.status.tool_calls.add(id="call").args.CopyFrom(nested(31))
        told = await refusal(running.client.executions.UpdateStatus(request))
    assert (told.code, told.fields) == (INVALID, {"status.tool_calls[0].args": "struct.max_depth"})


@pytest.mark.parametrize("number", [nan, inf, -inf])
def test_a_number_that_json_cannot_write_is_found_at_any_depth(number: float) -> None:
    """NaN and the infinities are refused, in a struct, in a struct within, and in a list."""
    agent = Agent()
    assert list(bad_values(agent)) == []
    for place in (
        agent.spec.runtime.fields["a"],
        agent.spec.runtime.fields["b"].struct_value.fields["c"],
        agent.spec.runtime.fields["d"].list_value.values.add(),
    ):
        place.number_value = number
        assert [(found.field, found.reason) for found in bad_values(agent)] == [("spec.runtime", "struct.finite")]
        place.number_value = 1e308
        assert list(bad_values(agent)) == []
        json_format.MessageToDict(agent)


@pytest.mark.parametrize(
    ("seconds", "nanos", "good"),
    [
        (1, 0, True),
        (0, 1, True),
        (5, 999_999_999, True),
        (315_576_000_000, 0, True),
        (315_576_000_001, 0, False),
        (1 << 62, 0, False),
        (5, 1_000_000_000, False),
        (5, -7, False),
    ],
)
def test_a_duration_that_json_cannot_write_is_found(seconds: int, nanos: int, good: bool) -> None:  # noqa: FBT001
    """A duration is taken exactly when JSON can write it."""
    agent = Agent()
    agent.spec.max_duration.seconds, agent.spec.max_duration.nanos = seconds, nanos
    execution = AgentExecution()
    execution.spec.context.max_duration.CopyFrom(agent.spec.max_duration)
    for message, path in ((agent, "spec.max_duration"), (execution, "spec.context.max_duration")):
        found = [(violation.field, violation.reason) for violation in bad_values(message)]
        assert found == ([] if good else [(path, "duration.valid")])
        with nullcontext() if good else pytest.raises(json_format.SerializeToJsonError):
            json_format.MessageToDict(message)
