from __future__ import annotations

import pytest

from runstream.cli.change_lines import change_line
from runstream.v1.agent_execution_pb2 import (
    CHANGE_AUTHOR_SYSTEM,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PENDING,
    SUB_AGENT_COMPLETED,
    AgentExecutionStatus,
    ExecutionChange,
)


def told(status: AgentExecutionStatus, supersedes: int = 0) -> str:
    """Return the line of a change that the server made."""
    change = ExecutionChange(revision=7, author=CHANGE_AUTHOR_SYSTEM, status=status, supersedes=supersedes)
    return change_line(change).plain.partition("system ")[2]


def test_an_assignment_names_the_runner_and_the_attempt() -> None:
    status = AgentExecutionStatus(phase=EXECUTION_IN_PROGRESS, attempt=2)
    status.audit.status_audit.event = "assigned"
    status.audit.status_audit.updated_by.id = "host-1\x1b[31m"
    line = told(status, supersedes=1)
    assert line.startswith("status supersedes attempt 1; assigned to host-1")
    assert "\x1b" not in line
    assert line.endswith("phase=IN_PROGRESS attempt=2")


@pytest.mark.parametrize(
    ("event", "words"), [("runner_lost", "lost its runner;"), ("returned", "given back by its runner;")]
)
def test_a_requeued_execution_says_why(event: str, words: str) -> None:
    status = AgentExecutionStatus(phase=EXECUTION_PENDING)
    status.audit.status_audit.event = event
    assert told(status) == f"status {words} phase=PENDING"


def test_what_an_entry_does_not_say_is_left_out() -> None:
    status = AgentExecutionStatus()
    status.sub_agent_executions.add(id="one", status=SUB_AGENT_COMPLETED)
    status.sub_agent_executions.add(id="two", name="reader")
    status.tool_calls.add(id="three", name="search")
    assert told(status) == "status tool_call[three]=search sub_agent[one]=COMPLETED sub_agent[two]=reader"
