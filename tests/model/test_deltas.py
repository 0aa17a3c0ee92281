from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings

from runstream.model.deltas import normalise_delta, settle
from runstream.model.merge import Stamp, merge_status
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_IN_PROGRESS,
    SUB_AGENT_CANCELLED,
    TOOL_CALL_INTERRUPTED,
    AgentExecutionStatus,
    AgentMessage,
    ExecutionControl,
    SubAgentExecution,
    SubAgentStatus,
    TodoItem,
    ToolCall,
    ToolCallStatus,
    Usage,
)
from tests.model.hostile_deltas import DELTAS, UNKNOWN_FIELD

END = "2026-01-31T12:00:00.000Z"
STAMP = Stamp(2, 1, END)
FAST = settings(max_examples=60, deadline=None)


class NumberedIds:
    """Gives ids that count up: `msg_1`, then `tcl_2`."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def __call__(self, prefix: str) -> str:
        """Make the next id."""
        return f"{prefix}_{next(self._numbers)}"


def test_entries_without_an_id_get_one_of_their_kind() -> None:
    """Ids given by the client stay, empty ones are given, nested tool calls included; a todo's is its key."""
    delta = AgentExecutionStatus(
        messages=[AgentMessage(tool_calls=[ToolCall(), ToolCall(id="mine")]), AgentMessage(id="m")],
        tool_calls=[ToolCall()],
        sub_agent_executions=[SubAgentExecution()],
        usage=[Usage()],
        todos={"k": TodoItem(), "l": TodoItem(id="another")},
    )
    clean = normalise_delta(delta, NumberedIds())
    assert [message.id for message in clean.messages] == ["msg_1", "m"]
    assert [call.id for call in clean.messages[0].tool_calls] == ["tcl_2", "mine"]
    others: list[Any] = [*clean.tool_calls, *clean.sub_agent_executions, *clean.usage]
    assert [entry.id for entry in others] == [
        "tcl_3",
        "sub_4",
        "usg_5",
    ]
    assert {key: todo.id for key, todo in clean.todos.items()} == {"k": "k", "l": "l"}


def test_output_and_unknown_fields_are_left_out() -> None:
    """A client cannot say what only the server may, nor leave bytes that a later version would read."""
    delta = AgentExecutionStatus(
        phase=EXECUTION_IN_PROGRESS,
        started_at="s",
        completed_at="c",
        attempt=9,
        control=ExecutionControl(reason="r"),
        messages=[AgentMessage(id="m", revision=9, attempt=9)],
    )
    delta.audit.status_audit.event = "e"
    delta.MergeFromString(UNKNOWN_FIELD)
    delta.messages[0].MergeFromString(UNKNOWN_FIELD)
    clean = normalise_delta(delta, NumberedIds())
    expected = AgentExecutionStatus(phase=EXECUTION_IN_PROGRESS, messages=[AgentMessage(id="m")])
    assert clean.SerializeToString() == expected.SerializeToString()


@FAST
@given(DELTAS)
def test_a_clean_delta_is_a_copy_and_stays_clean(delta: AgentExecutionStatus) -> None:
    """The client's delta is untouched, and cleaning twice is cleaning once."""
    before = delta.SerializeToString(deterministic=True)
    clean = normalise_delta(delta, NumberedIds())
    again = normalise_delta(clean, NumberedIds())
    assert delta.SerializeToString(deterministic=True) == before
    assert again.SerializeToString(deterministic=True) == clean.SerializeToString(deterministic=True)


@pytest.mark.parametrize("status", ToolCallStatus.values())
def test_an_open_tool_call_is_interrupted_and_an_ended_one_left(status: ToolCallStatus.ValueType) -> None:
    """Pending, running, waiting and unspecified are open."""
    is_open = ToolCallStatus.Name(status).removeprefix("TOOL_CALL_") in {
        "PENDING",
        "RUNNING",
        "WAITING_APPROVAL",
        "STATUS_UNSPECIFIED",
    }
    ended = ToolCall(id="t", status=TOOL_CALL_INTERRUPTED, completed_at=END)
    found = settle(AgentExecutionStatus(tool_calls=[ToolCall(id="t", status=status, name="n")]), END)
    assert found == AgentExecutionStatus(tool_calls=[ended] if is_open else [])


@pytest.mark.parametrize("status", SubAgentStatus.values())
def test_an_open_sub_agent_is_cancelled_and_an_ended_one_left(status: SubAgentStatus.ValueType) -> None:
    """Pending, in progress and unspecified are open."""
    is_open = SubAgentStatus.Name(status).removeprefix("SUB_AGENT_") in {
        "PENDING",
        "IN_PROGRESS",
        "STATUS_UNSPECIFIED",
    }
    ended = SubAgentExecution(id="s", status=SUB_AGENT_CANCELLED, completed_at=END)
    found = settle(AgentExecutionStatus(sub_agent_executions=[SubAgentExecution(id="s", status=status)]), END)
    assert found == AgentExecutionStatus(sub_agent_executions=[ended] if is_open else [])


def test_tool_calls_inside_messages_are_settled_in_their_message() -> None:
    """The delta names the message and the open call, and nothing that has ended."""
    status = AgentExecutionStatus(
        messages=[
            AgentMessage(id="done", tool_calls=[ToolCall(id="x", status=TOOL_CALL_INTERRUPTED)]),
            AgentMessage(id="open", content="text", tool_calls=[ToolCall(id="y")]),
        ]
    )
    ended = ToolCall(id="y", status=TOOL_CALL_INTERRUPTED, completed_at=END)
    assert settle(status, END) == AgentExecutionStatus(messages=[AgentMessage(id="open", tool_calls=[ended])])


@FAST
@given(DELTAS, DELTAS)
def test_a_settled_status_has_nothing_open(first: AgentExecutionStatus, second: AgentExecutionStatus) -> None:
    """Merging the settling delta once leaves nothing to settle, and begins no entry."""
    state = AgentExecutionStatus()
    merge_status(state, first, STAMP)
    merge_status(state, second, STAMP)
    sizes = len(state.messages), len(state.tool_calls), len(state.sub_agent_executions)
    merge_status(state, settle(state, END), STAMP)
    assert settle(state, END) == AgentExecutionStatus()
    assert (len(state.messages), len(state.tool_calls), len(state.sub_agent_executions)) == sizes


@FAST
@given(DELTAS, DELTAS)
def test_a_settling_delta_may_be_joined_to_the_one_it_settles(
    first: AgentExecutionStatus, last: AgentExecutionStatus
) -> None:
    """One change that holds both is the same as one after the other."""
    apart = AgentExecutionStatus()
    merge_status(apart, first, STAMP)
    together = AgentExecutionStatus()
    together.CopyFrom(apart)
    merge_status(apart, last, STAMP)
    settling = settle(apart, END)
    merge_status(apart, settling, STAMP)
    joined = AgentExecutionStatus()
    joined.CopyFrom(last)
    joined.MergeFrom(settling)
    merge_status(together, joined, STAMP)
    assert together.SerializeToString(deterministic=True) == apart.SerializeToString(deterministic=True)
