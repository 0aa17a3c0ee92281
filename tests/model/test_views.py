from __future__ import annotations

from hypothesis import given, settings

from runstream.model.views import LIST_FIELDS, basic_status, redact_secrets, strip_to_basic
from runstream.v1.agent_execution_pb2 import (
    AgentExecution,
    AgentExecutionSpec,
    AgentExecutionStatus,
    ExecutionValue,
)
from tests.model.hostile_deltas import DELTAS

FAST = settings(max_examples=60, deadline=None)


@FAST
@given(DELTAS)
def test_basic_is_everything_but_the_lists(status: AgentExecutionStatus) -> None:
    """A basic status has every other field of the status, which stays as it is."""
    status.DiscardUnknownFields()
    before = status.SerializeToString(deterministic=True)
    basic = basic_status(status)
    stripped = AgentExecution(status=status)
    strip_to_basic(stripped)
    assert basic == stripped.status
    assert status.SerializeToString(deterministic=True) == before
    for name in LIST_FIELDS:
        assert not getattr(basic, name)
        status.ClearField(name)
    assert basic == status


def test_a_basic_status_shares_nothing_with_the_whole_one() -> None:
    """Changing the copy does not change what it was made of."""
    status = AgentExecutionStatus()
    status.audit.status_audit.event = "before"
    basic_status(status).audit.status_audit.event = "after"
    assert status.audit.status_audit.event == "before"


def test_an_execution_without_status_stays_without() -> None:
    """Stripping adds nothing."""
    execution = AgentExecution()
    strip_to_basic(execution)
    assert execution == AgentExecution()


def test_secrets_are_taken_out_and_handed_over() -> None:
    """Secret values leave the execution, the names stay; other values are not touched."""
    execution = AgentExecution(
        spec=AgentExecutionSpec(
            runtime_env={
                "KEY": ExecutionValue(value="k3y", is_secret=True),
                "KEPT": ExecutionValue(is_secret=True),
                "HOME": ExecutionValue(value="/root"),
            }
        )
    )
    assert redact_secrets(execution) == {"KEY": "k3y", "KEPT": ""}
    assert b"k3y" not in execution.SerializeToString()
    assert execution.spec.runtime_env["KEY"].is_secret
    assert execution.spec.runtime_env["HOME"].value == "/root"


def test_an_execution_without_spec_has_no_secrets() -> None:
    """Redacting adds nothing."""
    execution = AgentExecution()
    assert redact_secrets(execution) == {}
    assert execution == AgentExecution()
