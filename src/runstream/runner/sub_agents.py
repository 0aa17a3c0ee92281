"""Sub-agents: an agent at work for this one, from its beginning to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runstream.runner.desk import now
from runstream.runner.json_safe import to_text
from runstream.runner.text import cut
from runstream.v1.agent_execution_pb2 import (
    SUB_AGENT_CANCELLED,
    SUB_AGENT_COMPLETED,
    SUB_AGENT_FAILED,
    SUB_AGENT_IN_PROGRESS,
    AgentExecutionStatus,
    SubAgentExecution,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from runstream.runner.desk import Desk
    from runstream.runner.reporter import Reporter

#: The longest input and output that are reported; what is longer is cut, with a mark.
LONGEST_TEXT: Final = 256 << 10


class SubAgent:
    """An agent at work: enter it to begin, set `output`, leave it to end. What is raised within is reported too.

    What is reported through `report` is marked as the sub-agent's own. Entering is a safe point.
    """

    def __init__(self, desk: Desk, entry: SubAgentExecution, report: Reporter, begun: Callable[[], None]) -> None:
        """Take the entry as it is first reported; `begun` is called when it is."""
        self._desk = desk
        self._entry = entry
        self._begun = begun
        self.id: str = entry.id
        #: Reports what this sub-agent does.
        self.report = report
        #: What it answered: a text, or anything JSON can be made of.
        self.output: object = ""

    async def __aenter__(self) -> Self:
        self._desk.mailbox.check_pause()
        self._begun()
        self._entry.status, self._entry.started_at = SUB_AGENT_IN_PROGRESS, now()
        await self._desk.outbox.put(AgentExecutionStatus(sub_agent_executions=[self._entry]))
        self._desk.begin(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._desk.end(self)
        ended = SubAgentExecution(id=self.id, completed_at=now())
        if error is None:
            ended.status, ended.output = SUB_AGENT_COMPLETED, cut(to_text(self.output), LONGEST_TEXT)
        elif isinstance(error, Exception):
            ended.status, ended.error = SUB_AGENT_FAILED, self._desk.why(error)
        else:  # cancelled, or paused
            ended.status = SUB_AGENT_CANCELLED
        self._desk.outbox.post(AgentExecutionStatus(sub_agent_executions=[ended]))
