"""Tables: the columns in which a list of each kind is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from google.protobuf.message import Message
from rich.text import Text

from runstream.cli import times
from runstream.cli.phases import phase_text
from runstream.cli.plain_text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from google.protobuf.timestamp_pb2 import Timestamp

    from runstream.v1.agent_execution_pb2 import AgentExecution
    from runstream.v1.agent_instance_pb2 import AgentInstance
    from runstream.v1.agent_pb2 import Agent
    from runstream.v1.session_pb2 import Session

M = TypeVar("M", bound=Message)

_CELL_WIDTH = 200


@dataclass(frozen=True, slots=True)
class Column(Generic[M]):
    """A column: its title, and what it shows of an entry."""

    title: str
    cell: Callable[[M], Text]


def agents(now: datetime) -> Sequence[Column[Agent]]:
    """Return the columns of agents."""
    return (
        Column("ID", lambda agent: _text(agent.metadata.id)),
        Column("SLUG", lambda agent: _text(agent.metadata.slug)),
        Column("ORG", lambda agent: _text(agent.metadata.org)),
        Column("AGE", lambda agent: _age(agent.status.audit.spec_audit.created_at, now)),
        Column("DESCRIPTION", lambda agent: _text(agent.spec.description)),
    )


def instances(now: datetime) -> Sequence[Column[AgentInstance]]:
    """Return the columns of agent instances."""
    return (
        Column("ID", lambda instance: _text(instance.metadata.id)),
        Column("SLUG", lambda instance: _text(instance.metadata.slug)),
        Column("AGENT", lambda instance: _text(instance.spec.agent_id)),
        Column("AGE", lambda instance: _age(instance.status.audit.spec_audit.created_at, now)),
        Column("DESCRIPTION", lambda instance: _text(instance.spec.description)),
    )


def sessions(now: datetime) -> Sequence[Column[Session]]:
    """Return the columns of sessions."""
    return (
        Column("ID", lambda session: _text(session.metadata.id)),
        Column("AGENT", lambda session: _text(session.status.agent_id)),
        Column("AGE", lambda session: _age(session.status.audit.spec_audit.created_at, now)),
        Column("NAME", lambda session: _text(session.metadata.name)),
        Column("SUBJECT", lambda session: _text(session.spec.subject)),
    )


def executions(now: datetime) -> Sequence[Column[AgentExecution]]:
    """Return the columns of executions."""
    return (
        Column("ID", lambda execution: _text(execution.metadata.id)),
        Column("PHASE", lambda execution: phase_text(execution.status.phase)),
        Column("AGE", lambda execution: _age(execution.status.audit.spec_audit.created_at, now)),
        Column("TOOK", lambda execution: _took(execution, now)),
        Column("NAME", lambda execution: _text(execution.metadata.name)),
    )


def _text(value: str) -> Text:
    return Text(one_line(value, _CELL_WIDTH))


def _age(created_at: Timestamp, now: datetime) -> Text:
    return Text(times.age(created_at, now))


def _took(execution: AgentExecution, now: datetime) -> Text:
    status = execution.status
    return Text(times.brief(times.between(status.started_at, status.completed_at, now)))
