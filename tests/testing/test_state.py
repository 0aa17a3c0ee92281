"""The state: short words for assertions, and a description for failures."""

from __future__ import annotations

import pytest

from runstream.testing import State
from runstream.testing.phases import PHASES, from_phase, to_phase
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_FAILED,
    MESSAGE_AI,
    MESSAGE_HUMAN,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_RUNNING,
    AgentExecution,
    AgentMessage,
    ExecutionPhase,
    ToolCall,
)


def made(*messages: AgentMessage) -> State:
    execution = AgentExecution()
    execution.metadata.id, execution.metadata.revision = "aex_1", 7
    execution.status.phase, execution.status.attempt = EXECUTION_FAILED, 2
    execution.status.reason, execution.status.error = "BROKE", "It broke."
    execution.status.messages.extend(messages)
    execution.status.tool_calls.extend(
        [
            ToolCall(id="1", name="search", status=TOOL_CALL_COMPLETED),
            ToolCall(id="2", name="search", status=TOOL_CALL_RUNNING),
        ]
    )
    return State(execution)


def test_every_phase_has_a_name() -> None:
    values = [value for value in ExecutionPhase.values() if value]
    assert [from_phase(to_phase(value)) for value in values] == values
    assert len(PHASES) == len(values)


def test_the_answer_is_the_last_thing_the_agent_itself_has_said() -> None:
    said = AgentMessage(type=MESSAGE_AI, content="So it is.")
    helper = AgentMessage(type=MESSAGE_AI, content="Looking.", owner_id="sub")
    person = AgentMessage(type=MESSAGE_HUMAN, content="Thanks.")
    assert made(said, helper, person).answer == "So it is."
    assert made(person).answer == ""
    assert made(said, person).texts == ["So it is.", "Thanks."]


def test_a_tool_is_found_by_name_or_id() -> None:
    state = made()
    assert (state.tool("search").id, state.tool("1").id, len(state.tools)) == ("2", "1", 2)


def test_it_tells_where_the_execution_stands() -> None:
    long = AgentMessage(type=MESSAGE_AI, content="x" * 1_000)
    newer = AgentMessage(type=99, content="?", owner_id="sub")  # type: ignore[arg-type]  # of a newer server
    told = repr(made(*[AgentMessage(type=MESSAGE_HUMAN, content=f"{n}") for n in range(9)], long, newer))
    assert told.splitlines() == [
        "<execution aex_1 is failed (attempt 2, revision 7)",
        "  reason: BROKE",
        "  error: It broke.",
        "  human said '6'",
        "  human said '7'",
        "  human said '8'",
        f"  ai said '{'x' * 200}…'",
        "  99 of sub said '?'",
        "  tool search (1) is completed",
        "  tool search (2) is running>",
    ]


def test_what_is_expected_is_the_state_or_a_failure() -> None:
    state = made()
    assert state.expect("failed") is state
    with pytest.raises(AssertionError, match=r"(?s)expected completed: .* is failed .*It broke\."):
        state.expect()
