"""Validation: every violation with its path, and nothing shown that must not be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runstream.model.errors import FieldViolation, InvalidArgument
from runstream.pipeline.validation import invalid_fields, validate
from runstream.v1.agent_execution_pb2 import AgentExecution
from runstream.v1.agent_execution_service_pb2 import AgentExecutionUpdateStatusInput
from tests.making import NOWHERE

if TYPE_CHECKING:
    from google.protobuf.message import Message


def violations(message: Message) -> dict[str, FieldViolation]:
    """The violations of a message, by path."""
    with pytest.raises(InvalidArgument) as told:
        validate(message)
    assert told.value.reason == "INVALID_FIELDS"
    found = {violation.field: violation for violation in told.value.fields}
    assert len(found) == len(told.value.fields)
    return found


def test_a_message_within_the_rules_is_let_through() -> None:
    """What breaks no rule raises nothing."""
    validate(AgentExecution())


def test_a_path_leads_from_the_root_to_the_value() -> None:
    """Fields, list entries and map values are named so that a client finds them."""
    request = AgentExecutionUpdateStatusInput(execution_id=f"aex_{NOWHERE}")
    request.status.messages.add()
    request.status.messages.add().tool_calls.add(name="n" * 257)
    request.status.todos['a "b"'].content = "x" * 10_001
    assert set(violations(request)) == {
        "status.messages[1].tool_calls[0].name",
        'status.todos["a "b""].content',
    }


def test_a_violation_says_what_was_wrong_with_which_value() -> None:
    """A short value is shown beside the rule it breaks; a long one is not."""
    execution = AgentExecution()
    execution.spec.agent_id = "agent-1"
    execution.metadata.name = "n" * 201
    found = violations(execution)
    assert found["spec.agent_id"].description.endswith("not 'agent-1'")
    assert found["spec.agent_id"].reason == "string.pattern"
    assert "nnn" not in found["metadata.name"].description
    assert "200" in found["metadata.name"].description


def test_the_value_of_a_variable_is_never_shown() -> None:
    """Whatever rule a variable breaks, the refusal shows neither its value nor any other one's."""
    execution = AgentExecution()
    execution.spec.runtime_env["A"].value = "hush" * 20_000
    execution.spec.runtime_env["B" * 257].value = "hush"
    with pytest.raises(InvalidArgument) as told:
        validate(execution)
    assert len(told.value.fields) == 2
    assert not any("hush" in violation.description for violation in told.value.fields)
    assert "hush" not in told.value.message


def test_the_message_tells_five_violations_and_counts_the_rest() -> None:
    """The message stays readable; the details have everything."""
    error = invalid_fields([FieldViolation(f"field_{number}", "is wrong") for number in range(8)])
    assert error.message.startswith("field_0: is wrong; field_1: is wrong")
    assert error.message.endswith("field_4: is wrong; and 3 more")
    assert len(error.fields) == 8


def test_the_message_of_one_violation_is_the_violation() -> None:
    """A single violation is told without any counting."""
    assert invalid_fields([FieldViolation("name", "is wrong")]).message == "name: is wrong"
