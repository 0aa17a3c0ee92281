"""Details: one resource for a person, a line for each thing there is to say about it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from runstream.cli.plain_text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.timestamp_pb2 import Timestamp

    from runstream.v1.agent_instance_pb2 import AgentInstance
    from runstream.v1.agent_pb2 import Agent
    from runstream.v1.resource_pb2 import AuditInfo, ResourceMetadata
    from runstream.v1.session_pb2 import Session

Rows = list[tuple[str, str | Text]]


def table(rows: Iterable[tuple[str, str | Text]]) -> Table:
    """Return the rows as a grid, without those that have nothing to say."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for title, value in rows:
        if value:
            grid.add_row(title, value if isinstance(value, Text) else Text(clean(value)))
    return grid


def metadata(data: ResourceMetadata, audit: AuditInfo) -> Rows:
    """Return the rows that every resource has."""
    return [
        ("id", data.id),
        ("name", data.name),
        ("slug", data.slug),
        ("org", data.org),
        ("labels", pairs(data.labels)),
        ("tags", ", ".join(data.tags)),
        ("annotations", pairs(data.annotations)),
        ("revision", str(data.revision)),
        ("created", _when(audit.created_at, audit.created_by.id)),
        ("updated", _when(audit.updated_at, audit.updated_by.id)),
    ]


def agent(resource: Agent) -> Table:
    """Return an agent's details."""
    spec = resource.spec
    return table(
        [
            *metadata(resource.metadata, resource.status.audit.spec_audit),
            ("description", spec.description),
            ("tools", ", ".join(spec.tools)),
            ("max duration", span(spec.max_duration.ToTimedelta().total_seconds())),
            ("max attempts", str(spec.max_attempts or "")),
            ("at a time", str(spec.max_concurrent_executions or "")),
            ("in a session", "several at a time" if spec.concurrent_in_session else ""),
            ("new attempts", "continue from the one before" if spec.resume_attempts else ""),
            ("default instance", resource.status.default_instance_id),
            ("instructions", spec.instructions),
        ]
    )


def instance(resource: AgentInstance) -> Table:
    """Return an agent instance's details."""
    spec = resource.spec
    environments = [f"{ref.org}/{ref.slug}" if ref.org else ref.slug for ref in spec.environment_refs]
    return table(
        [
            *metadata(resource.metadata, resource.status.audit.spec_audit),
            ("agent", spec.agent_id),
            ("description", spec.description),
            ("environments", ", ".join(environments)),
        ]
    )


def session(resource: Session) -> Table:
    """Return a session's details."""
    spec = resource.spec
    return table(
        [
            *metadata(resource.metadata, resource.status.audit.spec_audit),
            ("agent", resource.status.agent_id),
            ("instance", spec.agent_instance_id),
            ("subject", spec.subject),
            ("thread", spec.thread_id),
            ("sandbox", spec.sandbox_id),
            ("metadata", pairs(spec.metadata)),
        ]
    )


def pairs(values: Mapping[str, str]) -> str:
    """Return a map as `k=v, …`, in order."""
    return ", ".join(f"{key}={values[key]}" for key in sorted(values))


def span(seconds: float) -> str:
    """Return a duration as `90s`; empty when there is none."""
    return f"{seconds:g}s" if seconds else ""


def _when(stamp: Timestamp, actor: str) -> str:
    if not stamp.seconds:
        return ""
    moment = stamp.ToDatetime(UTC).astimezone()
    return _local(moment) + (f" by {actor}" if actor else "")


def _local(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S %z}"
