"""Parents and their sub-executions, and waiting for what becomes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.v1.agent_execution_service_pb2 import SubscribeAgentExecutionRequest
from tests.making import an_agent, execution, stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from runstream.v1.agent_execution_pb2 import AgentExecution, ExecutionBudget, SubAgentExecution
    from tests.serving import Client


def below(
    parent_id: str, agent_id: str, *, call: str = "call", budget: ExecutionBudget | None = None, message: str = "help"
) -> AgentExecution:
    """A sub-execution to create."""
    made = execution(agent_id=agent_id, message=message)
    made.spec.context.parent_execution_id = parent_id
    made.spec.context.parent_call_id = call
    if budget is not None:
        made.spec.context.budget.CopyFrom(budget)
    return made


async def a_child(client: Client, parent_id: str, *, agent: str = "") -> str:
    """Create a sub-execution of an agent, by default the parent's; return its id."""
    agent_id = await an_agent(client, agent) if agent else (await stored(client, parent_id)).spec.agent_id
    made = await client.executions.Create(below(parent_id, agent_id))
    return made.metadata.id


async def entry_of(client: Client, parent_id: str, child_id: str) -> SubAgentExecution:
    """The entry of a sub-execution in its parent."""
    parent = await stored(client, parent_id)
    (found,) = [entry for entry in parent.status.sub_agent_executions if entry.id == child_id]
    return found


async def until(client: Client, execution_id: str, reached: Callable[[AgentExecution], bool]) -> AgentExecution:
    """Follow an execution; return the first state seen that is as wanted."""
    stream = client.queries.Subscribe(SubscribeAgentExecutionRequest(value=execution_id))
    async for state in stream:
        if reached(state):
            stream.cancel()
            return state
    raise AssertionError(f"{execution_id} ended before")


async def end_of(client: Client, execution_id: str) -> AgentExecution:
    """Follow an execution to its end; return the state that it ended with."""
    states = [state async for state in client.queries.Subscribe(SubscribeAgentExecutionRequest(value=execution_id))]
    return states[-1]


async def asked_to_end(client: Client, execution_id: str) -> AgentExecution:
    """Follow an execution until it is asked to end; return the state then."""
    return await until(client, execution_id, lambda state: state.status.HasField("control"))
