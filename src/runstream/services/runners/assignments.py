"""Assignments: an execution with everything its agent needs, so that a runner looks nothing up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from runstream.model.times import to_datetime, to_duration, to_rfc3339
from runstream.services.resource_types import session_term
from runstream.services.runners.directives import is_held
from runstream.storage.records import AGENT, AGENT_EXECUTION, AGENT_INSTANCE, EXECUTION_SECRETS, SESSION
from runstream.storage.store import Query
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_PENDING,
    MESSAGE_HUMAN,
    MESSAGE_THINKING,
    AgentExecution,
    AgentMessage,
)
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC, RESOURCE_VIEW_FULL
from runstream.v1.runner_pb2 import RunnerCommand

if TYPE_CHECKING:
    from collections.abc import Callable

    from runstream.services.wiring import Wiring
    from runstream.v1.runner_pb2 import Assignment

HISTORY_MESSAGES: Final = 200
HISTORY_BYTES: Final = 256 << 10
HISTORY_EXECUTIONS: Final = 50
_HISTORY_CHUNK: Final = 20


class Assignments:
    """Puts assignments together from what is on disk."""

    def __init__(self, wiring: Wiring, remaining: Callable[[str], float | None]) -> None:
        """Take the wiring, and what tells how many seconds an execution has until its deadline, if it has one."""
        self._store = wiring.store
        self._executions = wiring.executions
        self._remaining = remaining

    async def make(self, execution_id: str, runner_id: str, attempt: int) -> RunnerCommand | None:
        """Make the command with the assignment of an attempt; None when the runner does not hold it any more."""
        head = await self._executions.head(execution_id)
        if head is None or not is_held(head, runner_id, attempt):
            return None
        command = RunnerCommand()
        assignment = command.assign  # everything is put where it goes out from: it may be large
        if await self._executions.at_head(execution_id, head, RESOURCE_VIEW_FULL, assignment.execution) is None:
            return None
        assignment.attempt, assignment.resume_from = attempt, head.resume
        if assignment.execution.spec.runtime_env:
            await self._add_secrets(assignment.execution)
        await self._add_surroundings(assignment)
        left = self._remaining(execution_id)
        if left is not None:
            assignment.remaining.CopyFrom(to_duration(max(0.0, left)))
        return command

    async def _add_secrets(self, execution: AgentExecution) -> None:
        stored = await self._store.durable.shared(EXECUTION_SECRETS, execution.metadata.id)
        for name, value in (stored.values if stored is not None else {}).items():
            if name in execution.spec.runtime_env:
                execution.spec.runtime_env[name].value = value

    async def _add_surroundings(self, assignment: Assignment) -> None:
        spec, get = assignment.execution.spec, self._store.durable.shared
        agent = await get(AGENT, spec.agent_id)
        if agent is not None:
            assignment.agent.CopyFrom(agent)
        session = await get(SESSION, spec.session_id) if spec.session_id else None
        if session is None:
            return
        assignment.session.CopyFrom(session)
        instance = await get(AGENT_INSTANCE, session.spec.agent_instance_id)
        if instance is not None:
            assignment.instance.CopyFrom(instance)
        execution_id = assignment.execution.metadata.id
        if not _is_made_for(spec.session_id, execution_id):
            assignment.history.extend(await self._history(spec.session_id, execution_id))

    async def _history(self, session_id: str, execution_id: str) -> list[AgentMessage]:
        """Return what was said in the executions of a session before this one: the newest, oldest first."""
        query, after = Query(AGENT_EXECUTION, ((session_term(session_id),),)), execution_id
        newest_first: list[AgentMessage] = []
        room, looked_at = HISTORY_BYTES, 0
        while ids := await self._store.scan(query, after=after, limit=_HISTORY_CHUNK):
            for earlier in ids:
                looked_at += 1
                if looked_at > HISTORY_EXECUTIONS:
                    return newest_first[::-1]
                await asyncio.sleep(0)  # each may be long
                for message in reversed(await self._said_in(earlier)):
                    room -= message.ByteSize()
                    if room < 0 or len(newest_first) == HISTORY_MESSAGES:
                        return newest_first[::-1]
                    newest_first.append(message)
            after = ids[-1]
        return newest_first[::-1]

    async def _said_in(self, execution_id: str) -> list[AgentMessage]:
        """Return what was said in one execution, beginning with what it was asked; thoughts and sub-agents left out."""
        # One that has not begun has said nothing, and need not be folded.
        basic = await self._executions.get(execution_id, RESOURCE_VIEW_BASIC)
        if basic is None or basic.status.phase == EXECUTION_PENDING:
            return []
        execution = await self._executions.get(execution_id, RESOURCE_VIEW_FULL)
        if execution is None:
            return []
        said = [
            message
            for message in execution.status.messages
            if not message.owner_id and message.type != MESSAGE_THINKING and message.content
        ]
        asked = execution.spec.message
        repeats = bool(said) and said[0].type == MESSAGE_HUMAN and said[0].content == asked
        return said if repeats or not asked else [_asked(execution), *said]


def _is_made_for(session_id: str, execution_id: str) -> bool:
    """Tell whether a session was made by the command that created an execution, so that none was in it before.

    Ids grow: that of the session was made later, and what else is in a session was created later than that.
    """
    return session_id.partition("_")[2] > execution_id.partition("_")[2]


def _asked(execution: AgentExecution) -> AgentMessage:
    """Make the message of what an execution was asked."""
    created = execution.status.audit.spec_audit.created_at
    return AgentMessage(
        id=execution.metadata.id,
        type=MESSAGE_HUMAN,
        content=execution.spec.message,
        timestamp=to_rfc3339(to_datetime(created)),
    )
