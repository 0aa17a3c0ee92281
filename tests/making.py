"""Short ways to make the requests that tests send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runstream.v1.agent_execution_pb2 import (
    EXECUTION_IN_PROGRESS,
    EXECUTION_PENDING,
    EXECUTION_WAITING_FOR_APPROVAL,
    EXECUTION_WAITING_FOR_INPUT,
    AgentExecution,
    AgentExecutionStatus,
    ExecutionPhase,
)
from runstream.v1.agent_execution_service_pb2 import (
    AgentExecutionUpdateStatusInput,
    GetAgentExecutionRequest,
)
from runstream.v1.agent_instance_pb2 import AgentInstance
from runstream.v1.agent_pb2 import Agent
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC
from runstream.v1.session_pb2 import Session

if TYPE_CHECKING:
    from tests.serving import Client

#: An id of the right form that nothing has.
NOWHERE = "00000000000000000000000000"


def agent(name: str = "survey", **metadata: Any) -> Agent:  # noqa: ANN401
    """An agent to create."""
    made = Agent()
    made.metadata.name = name
    _fill(made.metadata, metadata)
    return made


def instance(agent_id: str, name: str = "here") -> AgentInstance:
    """An instance to create."""
    made = AgentInstance()
    made.metadata.name = name
    made.spec.agent_id = agent_id
    return made


def session(instance_id: str, name: str = "") -> Session:
    """A session to create."""
    made = Session()
    made.metadata.name = name
    made.spec.agent_instance_id = instance_id
    return made


def execution(
    *,
    agent_id: str = "",
    session_id: str = "",
    message: str = "look around",
    stateless: bool = False,
    **metadata: Any,  # noqa: ANN401
) -> AgentExecution:
    """An execution to create."""
    made = AgentExecution()
    made.spec.agent_id = agent_id
    made.spec.session_id = session_id
    made.spec.message = message
    if stateless:
        made.spec.context.stateless = True
    _fill(made.metadata, metadata)
    return made


def delta(  # noqa: PLR0913  # each is a field of the request
    execution_id: str,
    status: AgentExecutionStatus | None = None,
    *,
    phase: ExecutionPhase.ValueType | None = None,
    sequence: int = 0,
    attempt: int = 0,
    replace: tuple[str, ...] = (),
) -> AgentExecutionUpdateStatusInput:
    """A status delta to send."""
    made = AgentExecutionUpdateStatusInput(execution_id=execution_id, status=status, sequence=sequence, attempt=attempt)
    made.status.SetInParent()
    if phase is not None:
        made.status.phase = phase
    made.replace_mask.paths.extend(replace)
    if not replace:
        made.ClearField("replace_mask")
    return made


def token(execution_id: str, text: str, sequence: int = 0) -> AgentExecutionUpdateStatusInput:
    """A delta that streams a piece of text into the message ``m``."""
    made = delta(execution_id, sequence=sequence)
    made.status.messages.add(id="m", content_append=text)
    made.view = RESOURCE_VIEW_BASIC
    return made


async def an_agent(client: Client, name: str = "survey") -> str:
    """Create an agent; return its id."""
    made = await client.agents.Create(agent(name))
    return made.metadata.id


async def an_execution(client: Client, **spec: Any) -> str:  # noqa: ANN401
    """Create an execution of a new agent; return its id."""
    agent_id = await an_agent(client, spec.pop("agent", "survey"))
    made = await client.executions.Create(execution(agent_id=agent_id, **spec))
    return made.metadata.id


async def a_running_execution(client: Client, **spec: Any) -> str:  # noqa: ANN401
    """Create an execution of a new agent and take it to IN_PROGRESS, revision 2; return its id."""
    execution_id = await an_execution(client, **spec)
    await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_IN_PROGRESS))
    return execution_id


async def an_execution_in(client: Client, phase: ExecutionPhase.ValueType, **spec: Any) -> str:  # noqa: ANN401
    """Create an execution of a new agent and take it to a phase; return its id."""
    execution_id = await an_execution(client, **spec)
    waiting = (EXECUTION_WAITING_FOR_APPROVAL, EXECUTION_WAITING_FOR_INPUT)
    for step in (*([EXECUTION_IN_PROGRESS] if phase in waiting else []), phase):
        if step != EXECUTION_PENDING:
            await client.executions.UpdateStatus(delta(execution_id, phase=step))
    return execution_id


async def stored(client: Client, execution_id: str) -> AgentExecution:
    """Get an execution, whole."""
    return await client.queries.Get(GetAgentExecutionRequest(value=execution_id))


def _fill(metadata: Any, values: dict[str, Any]) -> None:  # noqa: ANN401
    for name, value in values.items():
        field = getattr(metadata, name)
        if hasattr(field, "update"):
            field.update(value)
        elif hasattr(field, "extend"):
            field.extend(value)
        else:
            setattr(metadata, name, value)
