"""Create: the steps that are an execution's own. The list of them is in `commands`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runstream.model.errors import invalid_field
from runstream.model.slugs import first_words
from runstream.model.views import redact_secrets
from runstream.pipeline.context import ContextKey
from runstream.pipeline.steps import create_inside
from runstream.services.agent_instances import build_instance_steps, stage_default_instance
from runstream.services.executions.inheritance import restrict_tools
from runstream.services.executions.parents import AGENT
from runstream.services.resource_commands import require
from runstream.services.resource_types import AGENTS, EXECUTIONS, INSTANCES, SESSIONS
from runstream.services.sessions import build_session_steps
from runstream.storage.records import AGENT_EXECUTION, EXECUTION_HEAD, EXECUTION_SECRETS
from runstream.stored.v1.stored_pb2 import ExecutionHead, ExecutionSecrets
from runstream.v1.agent_execution_pb2 import (
    CHANGE_AUTHOR_USER,
    EXECUTION_PENDING,
    AgentExecution,
    ExecutionChange,
)
from runstream.v1.agent_instance_pb2 import AgentInstance
from runstream.v1.session_pb2 import Session

if TYPE_CHECKING:
    from runstream.model.errors import InvalidArgument
    from runstream.model.ids import IdSource
    from runstream.pipeline.context import RequestContext
    from runstream.stored.v1.stored_pb2 import IdempotencyRecord
    from runstream.v1.agent_pb2 import Agent

    CreateContext = RequestContext[AgentExecution, AgentExecution]

#: The instance that a new session of this execution will be on.
INSTANCE_ID: ContextKey[str] = ContextKey("instance id")

_SUFFIX = "-default"
_LONGEST_NAME = 200


def name_after_message(request: AgentExecution) -> str:
    """Name a nameless execution after the first words of its message."""
    return first_words(request.spec.message)


class ValidateSessionOrAgent:
    """Demands a session or an agent, and that they fit: the session must belong to the agent when both are given.

    INVALID_ARGUMENT, reasons SESSION_OR_AGENT_REQUIRED, SESSION_OF_OTHER_AGENT, STATELESS_WITH_SESSION,
    AGENT_REQUIRED.
    """

    async def __call__(self, context: CreateContext) -> None:
        """Check the request; a session is only looked up when it must fit an agent."""
        spec = context.request.spec
        if spec.context.stateless:
            _check_stateless(context.request)
            return
        if not spec.session_id and not spec.agent_id:
            raise invalid_field("spec.session_id", "SESSION_OR_AGENT_REQUIRED", "or spec.agent_id must be given")
        if spec.session_id and spec.agent_id:
            session = await require(context, SESSIONS, spec.session_id)
            if session.status.agent_id != spec.agent_id:
                raise _other_agent(session, spec.agent_id)


class CompleteContext:
    """Fills in what the call's metadata says, and drops output fields that a client sent."""

    async def __call__(self, context: CreateContext) -> None:
        """Change the state's execution context."""
        spec, traceparent = context.state.spec, context.caller.traceparent
        if spec.HasField("context"):
            spec.context.ClearField("root_execution_id")
            spec.context.ClearField("deadline")
            spec.context.ClearField("depth")
            restrict_tools(spec.context)
        if traceparent and not spec.context.traceparent:
            spec.context.traceparent = traceparent


class CreateDefaultInstanceIfNeeded:
    """Without a session: loads the agent, and stages a default instance of it when it has none. NOT_FOUND.

    A stateless execution needs an agent and no instance.
    """

    def __init__(self, ids: IdSource) -> None:
        self._ids = ids
        self._build = build_instance_steps(ids)

    async def __call__(self, context: CreateContext) -> None:
        """Leave the instance's id for the step that makes the session."""
        spec = context.state.spec
        if spec.session_id:
            return
        agent = await require(context, AGENTS, spec.agent_id)
        context.put(AGENT, agent)
        if spec.context.stateless:
            return
        instance_id = agent.status.default_instance_id
        if not instance_id:
            instance_id = await self._default_instance(context, agent)
            stage_default_instance(context, agent, instance_id)
        context.put(INSTANCE_ID, instance_id)

    async def _default_instance(self, context: CreateContext, agent: Agent) -> str:
        """Return the agent's instance of the default name, made now unless somebody made it by hand."""
        name = agent.metadata.slug[: _LONGEST_NAME - len(_SUFFIX)].rstrip("-") + _SUFFIX
        holder = await context.holder(INSTANCES.unique(agent.metadata.org, name))
        if holder is not None:
            existing = await require(context, INSTANCES, holder)
            if existing.spec.agent_id == agent.metadata.id:
                return holder
            name = self._ids.new(INSTANCES.prefix).replace("_", "-")  # somebody else has taken it
        request = AgentInstance()
        request.metadata.name = name
        request.metadata.org = agent.metadata.org
        request.spec.agent_id = agent.metadata.id
        instance = await create_inside(context, self._build, request)
        return instance.metadata.id


class CreateSessionIfNeeded:
    """Without a session: stages one on the instance. With one: it must exist, and its agent is loaded. NOT_FOUND.

    A stateless execution has none.
    """

    def __init__(self, ids: IdSource) -> None:
        self._build = build_session_steps(ids)

    async def __call__(self, context: CreateContext) -> None:
        """Write session and agent into the state's spec."""
        spec = context.state.spec
        if spec.context.stateless:
            return
        if spec.session_id:
            session = await require(context, SESSIONS, spec.session_id)
            context.put(AGENT, await require(context, AGENTS, session.status.agent_id))
        else:
            request = Session()
            request.metadata.name = context.state.metadata.name
            request.metadata.org = context.state.metadata.org
            request.spec.agent_instance_id = context.value(INSTANCE_ID)
            session = await create_inside(context, self._build, request)
        spec.session_id = session.metadata.id
        spec.agent_id = session.status.agent_id


class SetInitialPhase:
    """Lets the execution begin as PENDING."""

    async def __call__(self, context: CreateContext) -> None:
        """Complete the state."""
        context.state.status.phase = EXECUTION_PENDING


class StageNewExecution:
    """Stages the execution: record, head, first change, index entries, and its secrets apart from all of them."""

    async def __call__(self, context: CreateContext) -> None:
        """Add the execution to the transaction."""
        state, execution_id = context.state, context.state.metadata.id
        transaction = context.transaction
        secrets = redact_secrets(state)
        if secrets:
            transaction.put(EXECUTION_SECRETS, execution_id, ExecutionSecrets(values=secrets))
        change = ExecutionChange(execution_id=execution_id, revision=1, author=CHANGE_AUTHOR_USER)
        change.change_time.CopyFrom(state.status.audit.spec_audit.created_at)
        change.created.CopyFrom(state)
        record = AgentExecution()
        record.CopyFrom(state)
        record.ClearField("status")
        transaction.expect(EXECUTION_HEAD, execution_id, None)
        log_bytes = transaction.append(change)
        transaction.put(AGENT_EXECUTION, execution_id, record)
        transaction.put(EXECUTION_HEAD, execution_id, _first_head(state, log_bytes))
        transaction.index(AGENT_EXECUTION, execution_id, after=EXECUTIONS.terms(state))


def _first_head(state: AgentExecution, log_bytes: int) -> ExecutionHead:
    spec, own = state.spec, state.spec.context
    head = ExecutionHead(
        revision=1,
        log_bytes=log_bytes,
        agent_id=spec.agent_id,
        session_id=spec.session_id,
        parent_id=own.parent_execution_id,
    )
    head.status.CopyFrom(state.status)
    if own.HasField("deadline"):
        head.deadline.CopyFrom(own.deadline)
    return head


async def recall_created(context: RequestContext[Any, Any], record: IdempotencyRecord) -> AgentExecution | None:
    """Recall the answer of the call that created an execution: its first change. None when it was deleted."""
    if await context.get(EXECUTION_HEAD, record.resource_id) is None:
        return None
    change = await context.store.durable.change(record.resource_id, 1)
    return None if change is None else change.created


def _check_stateless(request: AgentExecution) -> None:
    if request.spec.session_id:
        raise invalid_field("spec.session_id", "STATELESS_WITH_SESSION", "must be empty with spec.context.stateless")
    if not request.spec.agent_id:
        raise invalid_field("spec.agent_id", "AGENT_REQUIRED", "must be given with spec.context.stateless")


def _other_agent(session: Session, agent_id: str) -> InvalidArgument:
    return invalid_field(
        "spec.agent_id",
        "SESSION_OF_OTHER_AGENT",
        f"is {agent_id}, but session {session.metadata.id} belongs to agent"
        f" {session.status.agent_id}; leave one of the two out",
    )
