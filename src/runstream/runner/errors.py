"""Errors: what an agent may raise to say how it ends, and what it may meet.

AgentFailure            an agent raises it to fail with a reason of its own
├── ReportRefused       the server does not take what was reported
└── ToolDeclined        a person did not let a tool run
    ├── ToolRejected    … and refused it
    └── ToolSkipped     … and wants the agent to go on without it
ReportClosed            the execution is over for this agent: nothing is reported any more
RunnerRefused           the server does not take the runner
Paused                  not an error: takes the agent to its end, from a safe point, when a pause is asked
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runstream.runner.decisions import Decision


class AgentFailure(Exception):
    """Ends the execution as FAILED with a `reason` for programs, in upper case, and a message for people."""

    def __init__(self, reason: str, message: str = "") -> None:
        """Take the stable `reason` and the `message`; both are told to every client."""
        super().__init__(message or reason)
        self.reason = reason
        self.message = message or reason


class ReportRefused(AgentFailure):
    """The server does not take a report, however often it were sent. Raised by the reports after it, too."""

    def __init__(self, message: str) -> None:
        """Take what the server said."""
        super().__init__("REPORT_REFUSED", message)


class ToolDeclined(AgentFailure):
    """A person did not let a tool run; an agent that does not catch it fails, with the reason of its class."""

    def __init__(self, reason: str, name: str, decision: Decision) -> None:
        """Take the tool's name and the decision."""
        said = f": {decision.comment}" if decision.comment else ""
        super().__init__(reason, f"The tool {name!r} was declined ({decision.action}){said}")
        self.decision = decision


class ToolRejected(ToolDeclined):
    """A person has refused the tool. Reason TOOL_REJECTED."""

    def __init__(self, name: str, decision: Decision) -> None:
        """Take the tool's name and the decision."""
        super().__init__("TOOL_REJECTED", name, decision)


class ToolSkipped(ToolDeclined):
    """A person wants the agent to go on without the tool. Reason TOOL_SKIPPED."""

    def __init__(self, name: str, decision: Decision) -> None:
        """Take the tool's name and the decision."""
        super().__init__("TOOL_SKIPPED", name, decision)


class ReportClosed(RuntimeError):
    """The execution has ended, or is this runner's no longer: nothing is reported any more."""

    def __init__(self) -> None:
        super().__init__("the execution is over for this agent; it can report nothing more")


class RunnerRefused(Exception):
    """The server does not take the runner as it was started, and would not however often it tried."""


class Paused(BaseException):
    """Takes the agent to its end, from a safe point. Not an Exception, as a cancellation is none: let it pass."""
