"""Decisions: what a tool call asks of a person, and what the person said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from runstream.model.times import to_duration
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_ACTION_UNSPECIFIED,
    APPROVAL_APPROVE,
    APPROVAL_APPROVE_ALL,
    APPROVAL_REJECT,
    APPROVAL_SKIP,
    ApprovalAction,
    ToolCallApproval,
)

if TYPE_CHECKING:
    from runstream.v1.runner_pb2 import ApprovalCommand

Action = Literal["approve", "skip", "reject"]

_ACTIONS: Final[dict[int, Action]] = {
    APPROVAL_APPROVE: "approve",
    APPROVAL_APPROVE_ALL: "approve",
    APPROVAL_SKIP: "skip",
    APPROVAL_REJECT: "reject",
}
_VALUES: Final[dict[str, ApprovalAction.ValueType]] = {
    "approve": APPROVAL_APPROVE,
    "skip": APPROVAL_SKIP,
    "reject": APPROVAL_REJECT,
}


@dataclass(frozen=True, slots=True)
class Approval:
    """Asks a person before a tool runs.

    Without a `timeout` it waits for as long as it takes. With one, in seconds, `default` is decided when nobody does in
    time: approve, skip or reject. The two go together, else ValueError.
    """

    timeout: float | None = None
    default: Action | None = None

    def __post_init__(self) -> None:
        """Check the two against each other."""
        if (self.timeout is None) != (self.default is None):
            raise ValueError("timeout and default go together: what is decided when nobody does in time")
        if self.timeout is not None and self.timeout <= 0:
            raise ValueError(f"timeout must be more than 0 seconds, not {self.timeout}")
        if self.default is not None and self.default not in _VALUES:
            raise ValueError(f"default must be one of {', '.join(_VALUES)}, not {self.default!r}")

    def message(self) -> ToolCallApproval:
        """Return it as it goes with a tool call."""
        made = ToolCallApproval(default_action=_VALUES.get(self.default or "", APPROVAL_ACTION_UNSPECIFIED))
        if self.timeout is not None:
            made.timeout.CopyFrom(to_duration(self.timeout))
        return made


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about a tool call, by whom (`system` for a default), and what they said about it."""

    call_id: str
    action: Action
    comment: str = ""
    decided_by: str = ""

    @property
    def approved(self) -> bool:
        """Whether the tool may run."""
        return self.action == "approve"


def told(command: ApprovalCommand) -> Decision | None:
    """Return what a command says was decided; None for an action that is unknown here."""
    action = _ACTIONS.get(command.action)
    if action is None:
        return None
    return Decision(command.tool_call_id, action, command.comment, command.decided_by.id)


def recorded(call_id: str, approval: ToolCallApproval) -> Decision | None:
    """Return the decision that stands in a tool call; None while there is none."""
    action = _ACTIONS.get(approval.action)
    return None if action is None else Decision(call_id, action, approval.comment, approval.decided_by.id)
