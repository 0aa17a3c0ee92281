"""Options: what an execution is created with, beside its agent and its message."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, TypedDict

from runstream.v1.agent_execution_pb2 import AgentExecution

if TYPE_CHECKING:
    from collections.abc import Mapping


class Options(TypedDict, total=False):
    """All of them may be left out. For what is missing here, give a whole `AgentExecution` in place of the message."""

    #: What the agent is called on the server; made from the function's own name unless given.
    name: str
    #: The session to go on with, by id; a new one is made unless given.
    session: str
    #: Variables of this run.
    env: Mapping[str, str]
    #: Secret variables of this run.
    secrets: Mapping[str, str]
    #: The longest it may take, in seconds.
    max_duration: float


def request(message: str | AgentExecution, agent_id: str, options: Options) -> AgentExecution:
    """Make what is created: an execution of the agent with this id."""
    made = AgentExecution()
    if isinstance(message, AgentExecution):
        made.CopyFrom(message)
    else:
        made.spec.message = message
    made.spec.agent_id = agent_id
    if session := options.get("session"):
        made.spec.session_id = session
    for name, value in options.get("env", {}).items():
        made.spec.runtime_env[name].value = value
    for name, value in options.get("secrets", {}).items():
        made.spec.runtime_env[name].value = value
        made.spec.runtime_env[name].is_secret = True
    if "max_duration" in options:
        made.spec.context.max_duration.FromTimedelta(timedelta(seconds=options["max_duration"]))
    return made
