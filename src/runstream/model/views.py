"""Views: an execution without its lists, and without its secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runstream.v1.agent_execution_pb2 import AgentExecutionStatus

if TYPE_CHECKING:
    from typing import Literal

    from runstream.v1.agent_execution_pb2 import AgentExecution

    _ListField = Literal["messages", "tool_calls", "sub_agent_executions", "todos", "usage"]

#: The fields of a status that grow with the execution; the BASIC view is without them.
LIST_FIELDS: Final[tuple[_ListField, ...]] = (
    "messages",
    "tool_calls",
    "sub_agent_executions",
    "todos",
    "usage",
)


def strip_to_basic(execution: AgentExecution) -> None:
    """Empty the lists of an execution's status, in place. An unset status stays unset."""
    if execution.HasField("status"):
        for name in LIST_FIELDS:
            execution.status.ClearField(name)


def basic_status(status: AgentExecutionStatus) -> AgentExecutionStatus:
    """Copy a status without its lists; the cost does not grow with them."""
    basic = AgentExecutionStatus()
    for field, value in status.ListFields():
        if field.name in LIST_FIELDS:
            continue
        if field.message_type is None:
            setattr(basic, field.name, value)
        else:
            getattr(basic, field.name).CopyFrom(value)
    return basic


def redact_secrets(execution: AgentExecution) -> dict[str, str]:
    """Empty the values of the secret variables, in place, and return what they were, by name.

    A secret that was empty already is returned as well, with an empty value.
    """
    if not execution.HasField("spec") or not execution.spec.runtime_env:
        return {}
    removed = {}
    for name, variable in execution.spec.runtime_env.items():
        if variable.is_secret:
            removed[name] = variable.value
            variable.value = ""
    return removed
