"""Work whose every step tells who did it: which attempt, in which process. So the log of an execution can be judged.

A plan is what an execution is asked to do: so many steps, and how it is to end. Each step leaves one mark: its number,
the attempt, and the name of the process. Texts, tool calls and todos take turns in carrying them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runstream.v1.agent_execution_pb2 import TOOL_CALL_COMPLETED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runstream.v1.agent_execution_pb2 import AgentExecutionStatus

#: The agents of a runner of numbered work; the second goes on where the attempt before it was lost.
STARTS_OVER, GOES_ON = "starts-over", "goes-on"
#: The reason of an end that was planned to be a failure.
PLANNED = "PLANNED"
COMPLETES, FAILS, HANGS = "completes", "fails", "hangs"
#: What asks a person on its way, and completes: for a message in the middle, or for each of its tools. What is in haste
#: lets its tools run when nobody decides.
ASKS, WANTS_APPROVAL, IN_HASTE = "asks", "wants-approval", "in-haste"
_PLAN = re.compile(r"([\w-]+) after (\d+) steps")
_MARK = re.compile(r"(\d+)\|(\d+)@([^;]+);")


@dataclass(frozen=True, slots=True)
class Plan:
    """What an execution is asked to do: so many steps, and then its end."""

    steps: int
    end: str = COMPLETES

    @property
    def message(self) -> str:
        """The plan as a message to the agent."""
        return f"{self.end} after {self.steps} steps"

    @classmethod
    def of(cls, message: str) -> Plan:
        """Read a message."""
        found = _PLAN.fullmatch(message)
        assert found is not None, message
        return cls(int(found[2]), found[1])


@dataclass(frozen=True, slots=True)
class Mark:
    """That a step was done, and by whom."""

    step: int
    attempt: int
    by: str

    def __str__(self) -> str:
        return f"{self.step}|{self.attempt}@{self.by};"


def marks(status: AgentExecutionStatus) -> list[Mark]:
    """Return the marks in a state or in a delta: those of texts first, then of tools that have run, then of todos."""
    return [Mark(int(step), int(attempt), by) for text in _texts(status) for step, attempt, by in _MARK.findall(text)]


def _texts(status: AgentExecutionStatus) -> Iterator[str]:
    for message in status.messages:
        yield message.content + message.content_append
    for call in status.tool_calls:
        if call.status == TOOL_CALL_COMPLETED:
            yield call.result
    for key in sorted(status.todos):
        yield status.todos[key].content
