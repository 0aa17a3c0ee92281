"""Data folders for the doctor: made by a real server with one of everything, read and damaged key by key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runstream.care.doctor import diagnose
from runstream.storage import keys
from runstream.storage.offline import OfflineFolder
from runstream.storage.records import TOMBSTONE
from runstream.stored.v1.stored_pb2 import Tombstone
from runstream.v1.agent_execution_pb2 import (
    APPROVAL_APPROVE,
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_PENDING,
    EXECUTION_WAITING_FOR_INPUT,
    AgentExecution,
    ExecutionChange,
)
from tests.asking import decision, question, recover
from tests.attached import attached
from tests.families import a_child
from tests.making import (
    agent,
    an_agent,
    an_execution,
    an_execution_in,
    delta,
    execution,
    instance,
    session,
    stored,
    token,
)
from tests.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from runstream.care.findings import Finding
    from runstream.storage.overlay import Write
    from tests.serving import Client

#: Long enough for a snapshot.
_LONG = "word " * 20_000


async def fill(data: Path) -> None:
    """Let a server make one of everything that it keeps."""
    async with serving(data) as running:
        client = running.client
        await _make_resources(client)
        await _make_executions(client)
        await _make_asking(client)
        held = await client.executions.Create(execution(agent_id=await an_agent(client, "held")))
        async with attached(client, agents=[held.spec.agent_id]) as runner:
            await runner.assignment()
            await running.server.stop()
    _leave_rest(data)


async def _make_resources(client: Client) -> None:
    made = await client.agents.Create(agent("first", tags=["blue"], labels={"team": "web"}))
    there = await client.instances.Create(instance(made.metadata.id, "there"))
    await client.sessions.Create(session(there.metadata.id, "talk"), metadata=(("idempotency-key", "talk"),))
    request = execution(agent_id=made.metadata.id, labels={"mood": "good"}, stateless=True)
    await client.executions.Create(request, metadata=(("idempotency-key", "one"),))
    await client.executions.Create(request, metadata=(("idempotency-key", "two"),))


async def _make_executions(client: Client) -> None:
    phases = (
        EXECUTION_PENDING,
        EXECUTION_IN_PROGRESS,
        EXECUTION_COMPLETED,
        EXECUTION_FAILED,
        EXECUTION_CANCELLED,
        EXECUTION_PAUSED,
        EXECUTION_WAITING_FOR_INPUT,
    )
    for number, phase in enumerate(phases):
        await an_execution_in(client, phase, agent=f"in-{number}")
    long = await an_execution(client, agent="long")
    await client.executions.UpdateStatus(delta(long, phase=EXECUTION_IN_PROGRESS))
    for word in (_LONG, "and ", "so ", "on"):
        await client.executions.UpdateStatus(token(long, word))
    failed = await _with_secrets(client, EXECUTION_FAILED)
    await client.executions.Recover(recover(failed))
    await _with_secrets(client, EXECUTION_CANCELLED)
    parent = await an_execution(client, agent="parent")
    await a_child(client, parent)


async def _with_secrets(client: Client, phase: int) -> str:
    """Make an execution that has a secret and ends; return its id."""
    made = await client.agents.Create(agent(f"secret-{phase}"))
    request = execution(agent_id=made.metadata.id)
    request.spec.runtime_env["TOKEN"].value = "s3cret"
    request.spec.runtime_env["TOKEN"].is_secret = True
    created = await client.executions.Create(request)
    await client.executions.UpdateStatus(delta(created.metadata.id, phase=phase))  # type: ignore[arg-type]
    return created.metadata.id


async def _make_asking(client: Client) -> None:
    """Make an execution that waits for an approval, with new labels meanwhile."""
    asking = await an_execution_in(client, EXECUTION_IN_PROGRESS, agent="asking")
    await client.executions.UpdateStatus(question(asking, "c1", "c2"))
    await client.executions.SubmitApproval(decision(asking, "c1", APPROVAL_APPROVE))
    changed: AgentExecution = await stored(client, asking)
    changed.metadata.labels["seen"] = "yes"
    await client.executions.Update(changed)


def _leave_rest(data: Path) -> None:
    """Leave the rest of a deleted execution, as a server does that is killed over it."""
    gone = "aex_00000000000000000000000000"
    rest = [ExecutionChange(execution_id=gone, revision=revision) for revision in (4, 5, 6)]
    writes = [(keys.change(gone, change.revision), change.SerializeToString()) for change in rest]
    tombstone = Tombstone(revision=7).SerializeToString()
    write(data, [*writes, (keys.record(TOMBSTONE, gone), tombstone)])


def pairs_of(data: Path) -> dict[bytes, bytes]:
    """All keys and values of a folder."""
    with OfflineFolder.open(data, purpose="test") as folder, folder.view() as view:
        return dict(view.pairs())


def write(data: Path, writes: Iterable[Write]) -> None:
    """Damage a folder, or add to it."""
    with OfflineFolder.open(data, purpose="test") as folder:
        folder.write(writes)


def findings_of(data: Path) -> list[Finding]:
    """What the doctor finds in a folder."""
    found: list[Finding] = []
    with OfflineFolder.open(data, purpose="test") as folder:
        diagnose(folder, found.append)
    return found
