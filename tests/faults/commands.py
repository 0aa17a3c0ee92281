"""Every command of the API, each ready to be sent to what it is for, and how to see whether it has been carried out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc import aio

from runstream.v1.agent_execution_pb2 import (
    APPROVAL_APPROVE,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_WAITING_FOR_INPUT,
)
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    ListAgentExecutionsRequest,
    TerminateAgentExecutionInput,
)
from runstream.v1.resource_pb2 import ResourceDeleteInput, ResourceId, ResourceReference
from runstream.v1.session_service_pb2 import ListSessionsRequest
from tests.asking import answer, decision, pause, question, recover, resume
from tests.families import below
from tests.making import agent, an_agent, an_execution_in, delta, execution, instance, session, stored, token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from google.protobuf.message import Message

    from tests.serving import Client

    Prepare = Callable[["Client", str], Awaitable["Command"]]

#: What a repeat may be told of a command that has been carried out: nothing is left to do.
_DONE: Final = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ABORTED, grpc.StatusCode.FAILED_PRECONDITION)


@dataclass(slots=True)
class Command:
    """One command, what it is for, and what became of it."""

    #: Sends it; a repeat is sent with the same words.
    send: Callable[[Client], Awaitable[Message]]
    #: The revision of what it is for; None when that is not there.
    look: Callable[[Client], Awaitable[int | None]]
    #: The execution that it is for, if it is for one.
    execution_id: str = ""
    #: Whether it changes what it is for on its way, in a commit of its own.
    in_parts: bool = False
    before: int | None = None
    acknowledged: bool = False

    async def run(self, client: Client) -> None:
        """Send it, and note when it was acknowledged."""
        await self.send(client)
        self.acknowledged = True

    async def repeat(self, client: Client) -> None:
        """Send it again, as a client does that does not know."""
        try:
            await self.send(client)
        except aio.AioRpcError as error:
            if error.code() not in _DONE:
                raise


def _by_id(queries: Callable[[Client], Any], resource_id: str) -> Callable[[Client], Awaitable[int | None]]:
    async def look(client: Client) -> int | None:
        try:
            found = await queries(client).Get(ResourceId(value=resource_id))
        except aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise
        return int(found.metadata.revision)

    return look


def _by_slug(queries: Callable[[Client], Any], slug: str) -> Callable[[Client], Awaitable[int | None]]:
    async def look(client: Client) -> int | None:
        try:
            found = await queries(client).GetByReference(ResourceReference(slug=slug))
        except aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise
        return int(found.metadata.revision)

    return look


def _agents(client: Client) -> Any:  # noqa: ANN401  # a stub
    return client.agent_queries


def _instances(client: Client) -> Any:  # noqa: ANN401  # a stub
    return client.instance_queries


def _sessions(client: Client) -> Any:  # noqa: ANN401  # a stub
    return client.session_queries


def _executions(client: Client) -> Any:  # noqa: ANN401  # a stub
    return client.queries


async def _create_agent(_: Client, name: str) -> Command:
    key = (("idempotency-key", name),)
    return Command(lambda client: client.agents.Create(agent(name), metadata=key), _by_slug(_agents, name))


async def _apply_new_agent(_: Client, name: str) -> Command:
    return Command(lambda client: client.agents.Apply(agent(name)), _by_slug(_agents, name))


async def _update_agent(client: Client, name: str) -> Command:
    made = await client.agents.Create(agent(name))
    made.spec.description = "another"
    return Command(lambda client: client.agents.Update(made), _by_id(_agents, made.metadata.id))


async def _apply_agent(client: Client, name: str) -> Command:
    made = await client.agents.Create(agent(name))
    changed = agent(name)
    changed.spec.description = "another"
    return Command(lambda client: client.agents.Apply(changed), _by_id(_agents, made.metadata.id))


async def _delete_agent(client: Client, name: str) -> Command:
    request = ResourceDeleteInput(value=await an_agent(client, name))
    return Command(lambda client: client.agents.Delete(request), _by_id(_agents, request.value))


async def _delete_agent_with_all(client: Client, name: str) -> Command:
    """It has instances, sessions and executions. Each goes in a commit of its own, and its default instance with it."""
    agent_id = await an_agent(client, name)
    for _ in range(3):
        await client.executions.Create(execution(agent_id=agent_id))
    request = ResourceDeleteInput(value=agent_id, cascade=True)
    return Command(lambda client: client.agents.Delete(request), _by_id(_agents, agent_id), in_parts=True)


async def _create_instance(client: Client, name: str) -> Command:
    request, key = instance(await an_agent(client, name), name), (("idempotency-key", name),)
    return Command(lambda client: client.instances.Create(request, metadata=key), _by_slug(_instances, name))


async def _update_instance(client: Client, name: str) -> Command:
    made = await client.instances.Create(instance(await an_agent(client, name), name))
    made.spec.description = "another"
    return Command(lambda client: client.instances.Update(made), _by_id(_instances, made.metadata.id))


async def _apply_instance(client: Client, name: str) -> Command:
    request = instance(await an_agent(client, name), name)
    return Command(lambda client: client.instances.Apply(request), _by_slug(_instances, name))


async def _delete_instance(client: Client, name: str) -> Command:
    made = await client.instances.Create(instance(await an_agent(client, name), name))
    request = ResourceDeleteInput(value=made.metadata.id)
    return Command(lambda client: client.instances.Delete(request), _by_id(_instances, request.value))


async def _create_session(client: Client, name: str) -> Command:
    made = await client.instances.Create(instance(await an_agent(client, name), name))
    request, key = session(made.metadata.id, name), (("idempotency-key", name),)
    request.metadata.tags.append(name)

    async def look(client: Client) -> int | None:
        listed = await client.session_queries.List(ListSessionsRequest(tags=[name]))
        assert len(listed.entries) <= 1
        return listed.entries[0].metadata.revision if listed.entries else None

    return Command(lambda client: client.sessions.Create(request, metadata=key), look)


async def _a_session(client: Client, name: str) -> Any:  # noqa: ANN401  # a Session
    made = await client.instances.Create(instance(await an_agent(client, name), name))
    return await client.sessions.Create(session(made.metadata.id, name))


async def _update_session(client: Client, name: str) -> Command:
    made = await _a_session(client, name)
    made.spec.subject = "another"
    return Command(lambda client: client.sessions.Update(made), _by_id(_sessions, made.metadata.id))


async def _apply_session(client: Client, name: str) -> Command:
    made = await _a_session(client, name)
    made.spec.subject = "another"
    made.metadata.revision = 0
    return Command(lambda client: client.sessions.Apply(made), _by_id(_sessions, made.metadata.id))


async def _delete_session(client: Client, name: str) -> Command:
    request = ResourceDeleteInput(value=(await _a_session(client, name)).metadata.id)
    return Command(lambda client: client.sessions.Delete(request), _by_id(_sessions, request.value))


def _labelled(name: str) -> Callable[[Client], Awaitable[int | None]]:
    async def look(client: Client) -> int | None:
        listed = await client.queries.List(ListAgentExecutionsRequest(labels={"name": name}))
        assert len(listed.entries) <= 1
        return listed.entries[0].metadata.revision if listed.entries else None

    return look


async def _create_execution(client: Client, name: str) -> Command:
    """The agent has no instance yet: that and a session are made in the same commit."""
    request = execution(agent_id=await an_agent(client, name), labels={"name": name})
    key = (("idempotency-key", name),)
    return Command(lambda client: client.executions.Create(request, metadata=key), _labelled(name))


async def _create_below(client: Client, name: str) -> Command:
    """The parent's entry of it is written in the same commit."""
    parent = await an_execution_in(client, EXECUTION_IN_PROGRESS, agent=name)
    request = below(parent, (await stored(client, parent)).spec.agent_id)
    request.metadata.labels["name"] = name
    key = (("idempotency-key", name),)
    return Command(lambda client: client.executions.Create(request, metadata=key), _labelled(name))


def _on_execution(phase: Any, send: Callable[[Client, str], Awaitable[Message]]) -> Prepare:  # noqa: ANN401
    """Make what prepares a command on an execution of a phase."""

    async def prepare(client: Client, name: str) -> Command:
        execution_id = await an_execution_in(client, phase, agent=name)
        return Command(
            lambda client: send(client, execution_id), _by_id(_executions, execution_id), execution_id=execution_id
        )

    return prepare


async def _update_execution(client: Client, name: str) -> Command:
    made = await stored(client, await an_execution_in(client, EXECUTION_IN_PROGRESS, agent=name))
    made.ClearField("status")
    made.metadata.labels["mood"] = "another"
    execution_id = made.metadata.id
    return Command(
        lambda client: client.executions.Update(made), _by_id(_executions, execution_id), execution_id=execution_id
    )


async def _submit_approval(client: Client, name: str) -> Command:
    execution_id = await an_execution_in(client, EXECUTION_IN_PROGRESS, agent=name)
    await client.executions.UpdateStatus(question(execution_id, "c1", "c2"))
    request = decision(execution_id, "c1", APPROVAL_APPROVE)
    return Command(
        lambda client: client.executions.SubmitApproval(request),
        _by_id(_executions, execution_id),
        execution_id=execution_id,
    )


def _cancel(client: Client, name: str) -> Awaitable[Message]:
    return client.executions.Cancel(CancelAgentExecutionInput(id=name))


def _input(client: Client, name: str) -> Awaitable[Message]:
    return client.executions.SubmitInput(answer(name), metadata=(("idempotency-key", name),))


#: What prepares each, by a name that tells the method first.
COMMANDS: Final[Mapping[str, Prepare]] = {
    "Agent.Create": _create_agent,
    "Agent.Update": _update_agent,
    "Agent.Apply of a new one": _apply_new_agent,
    "Agent.Apply": _apply_agent,
    "Agent.Delete": _delete_agent,
    "Agent.Delete with all": _delete_agent_with_all,
    "AgentInstance.Create": _create_instance,
    "AgentInstance.Update": _update_instance,
    "AgentInstance.Apply": _apply_instance,
    "AgentInstance.Delete": _delete_instance,
    "Session.Create": _create_session,
    "Session.Update": _update_session,
    "Session.Apply": _apply_session,
    "Session.Delete": _delete_session,
    "AgentExecution.Create": _create_execution,
    "AgentExecution.Create below another": _create_below,
    "AgentExecution.Update": _update_execution,
    "AgentExecution.UpdateStatus": _on_execution(
        EXECUTION_IN_PROGRESS, lambda client, name: client.executions.UpdateStatus(token(name, "a", sequence=9))
    ),
    "AgentExecution.UpdateStatus to an end": _on_execution(
        EXECUTION_IN_PROGRESS,
        lambda client, name: client.executions.UpdateStatus(delta(name, phase=EXECUTION_FAILED, sequence=9)),
    ),
    "AgentExecution.Delete": _on_execution(
        EXECUTION_IN_PROGRESS, lambda client, name: client.executions.Delete(ResourceId(value=name))
    ),
    "AgentExecution.Cancel": _on_execution(EXECUTION_PENDING, _cancel),
    "AgentExecution.Cancel at work": _on_execution(EXECUTION_IN_PROGRESS, _cancel),
    "AgentExecution.Terminate": _on_execution(
        EXECUTION_IN_PROGRESS,
        lambda client, name: client.executions.Terminate(TerminateAgentExecutionInput(id=name)),
    ),
    "AgentExecution.Pause": _on_execution(EXECUTION_PENDING, lambda client, name: client.executions.Pause(pause(name))),
    "AgentExecution.Resume": _on_execution(
        EXECUTION_PAUSED, lambda client, name: client.executions.Resume(resume(name))
    ),
    "AgentExecution.Recover": _on_execution(
        EXECUTION_FAILED, lambda client, name: client.executions.Recover(recover(name))
    ),
    "AgentExecution.SubmitApproval": _submit_approval,
    "AgentExecution.SubmitInput": _on_execution(EXECUTION_WAITING_FOR_INPUT, _input),
}
