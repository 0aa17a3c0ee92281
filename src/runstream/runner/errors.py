"""Errors: what an agent may raise to say how it ends, and what it may meet.

AgentFailure            an agent raises it to fail with a reason of its own
├── ReportRefused       the server does not take what was reported
├── BudgetExceeded      more would be spent than the execution may
├── DeadlineExceeded    it has to end before it is done
├── DelegationFailed    an execution that was delegated has not completed
├── ToolUnknown         there is no tool of that name
├── ToolNotAllowed      the context does not allow the tool
├── ToolArgumentsInvalid    a tool does not take these arguments
├── ToolBroke           a tool has raised an error
├── AgentMutated        a pooled agent has changed itself while it worked for somebody
└── ToolDeclined        a person did not let a tool run
    ├── ToolRejected    … and refused it
    └── ToolSkipped     … and wants the agent to go on without it
ReportClosed            the execution is over for this agent: nothing is reported any more
RunnerRefused           the server does not take the runner
NoContext               this code does not run for an agent
ContextInvalid          a context cannot be made of what was given
SecretUnknown           the execution has no variable of that name
SecretsGone             the run has ended, and its secrets with it
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
        self.message: str = message or reason


class ReportRefused(AgentFailure):
    """The server does not take a report, however often it were sent. Raised by the reports after it, too.

    Reason REPORT_REFUSED; when the execution is at its limit, the server's: EXECUTION_TOO_LONG, EXECUTION_TOO_LARGE.
    """

    def __init__(self, message: str, reason: str = "REPORT_REFUSED") -> None:
        """Take what the server said."""
        super().__init__(reason, message)


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


class BudgetExceeded(AgentFailure):
    """More was spent than the budget allows, or would have been. Reason BUDGET_EXCEEDED."""

    def __init__(self, name: str, limit: int) -> None:
        """Take the name of the budget's field, and its limit."""
        super().__init__("BUDGET_EXCEEDED", f"The budget allows {_limit(name, limit)}, and no more.")
        #: The field of the budget: model_calls, tool_calls, tokens, cost_micros or depth.
        self.field = name
        self.limit = limit


class DeadlineExceeded(AgentFailure, TimeoutError):
    """The deadline was over before it was done. Reason DEADLINE_EXCEEDED."""

    def __init__(self, what: str) -> None:
        """Take what was not done in time."""
        super().__init__("DEADLINE_EXCEEDED", f"The deadline was over before {what} had ended.")


class DelegationFailed(AgentFailure):
    """An execution that was delegated has ended otherwise than COMPLETED. Reason DELEGATION_FAILED."""

    def __init__(self, execution_id: str, phase: str, reason: str, error: str) -> None:
        """Take the execution's id, the phase in which it has ended, and its own reason and error."""
        why = ": ".join(text for text in (reason, error) if text)
        super().__init__("DELEGATION_FAILED", f"The execution {execution_id} has ended as {phase}. {why}".rstrip())
        self.execution_id = execution_id
        self.phase = phase
        #: Why it has not completed, as it says itself.
        self.cause_reason = reason
        self.cause_error = error


class NoContext(LookupError):
    """There is no current context: this code does not run for an agent."""

    def __init__(self) -> None:
        super().__init__(
            "there is no current execution context: this is not called by an agent or a tool, or in a thread that was"
            " not started by runstream. Pass the context as a parameter."
        )


class ContextInvalid(ValueError):
    """A context cannot be made of what was given; `violations` names every field that is wrong, and why."""

    def __init__(self, violations: list[tuple[str, str]]) -> None:
        """Take the fields, each with what is wrong with it and what would be right."""
        super().__init__("; ".join(f"{field} {told}" for field, told in violations))
        self.violations: tuple[tuple[str, str], ...] = tuple(violations)


class SecretUnknown(LookupError):
    """The execution has no variable of that name."""

    def __init__(self, name: str, names: list[str]) -> None:
        """Take the name, and those there are."""
        known = f"it has {', '.join(names)}" if names else "it has none"
        super().__init__(f"the execution has no variable {name!r}; {known}")


class SecretsGone(RuntimeError):
    """The run has ended, and its secrets with it."""

    def __init__(self, name: str) -> None:
        """Take the name of the variable that was asked for."""
        super().__init__(f"the run is over, and the variable {name!r} is gone with it")


class ToolUnknown(AgentFailure, LookupError):
    """There is no tool of that name. Reason TOOL_UNKNOWN."""

    def __init__(self, name: str, near: list[str]) -> None:
        """Take the name, and those that are like it."""
        meant = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        super().__init__("TOOL_UNKNOWN", f"There is no tool {name!r}.{meant}")
        self.name = name
        self.near: tuple[str, ...] = tuple(near)


class ToolNotAllowed(AgentFailure, PermissionError):
    """The context does not allow the tool, which may not even exist. Reason TOOL_NOT_ALLOWED."""

    def __init__(self, name: str) -> None:
        """Take the name."""
        super().__init__("TOOL_NOT_ALLOWED", f"The tool {name!r} is not allowed here.")
        self.name = name


class ToolArgumentsInvalid(AgentFailure, ValueError):
    """A tool does not take these arguments; `violations` tells which, and why. Reason TOOL_ARGUMENTS_INVALID."""

    def __init__(self, name: str, violations: list[tuple[str, str]]) -> None:
        """Take the tool's name, and what is wrong with which argument; an empty one is all of them."""
        told = "; ".join(f"{field}: {what}" if field else what for field, what in violations)
        super().__init__("TOOL_ARGUMENTS_INVALID", f"The tool {name!r} does not take these arguments: {told}")
        self.name = name
        self.violations: tuple[tuple[str, str], ...] = tuple(violations)


class ToolBroke(AgentFailure):
    """A tool has raised an error, which is the `__cause__`. Reason TOOL_ERROR."""

    def __init__(self, name: str, why: str) -> None:
        """Take the tool's name, and what the error says."""
        super().__init__("TOOL_ERROR", f"The tool {name!r} failed: {why}")
        self.name = name


class AgentMutated(AgentFailure):
    """A pooled agent has changed itself during an invocation, and the next one would see it. Reason AGENT_MUTATED."""

    def __init__(self, paths: list[str]) -> None:
        """Take the paths of the attributes that it has changed; no values."""
        named = ", ".join(paths[:_MOST_PATHS]) or "what it is made of"
        more = f" and {len(paths) - _MOST_PATHS} more" if len(paths) > _MOST_PATHS else ""
        told = (
            f"The agent has changed its own {named}{more} during an invocation. What belongs to an invocation is kept"
        )
        super().__init__("AGENT_MUTATED", f"{told} in variables of the call; the agent itself works for others, too.")
        self.paths: tuple[str, ...] = tuple(paths)


_MOST_PATHS = 5


def _limit(name: str, limit: int) -> str:
    if name == "depth":
        return "no agents below this one" if limit == 0 else f"{limit} levels of agents below this one"
    return f"{limit} {name.replace('_', ' ')}"
