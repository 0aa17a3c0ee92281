"""The end of an execution: its times, its reason, and what the server closes that was left open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runstream.model.times import to_rfc3339
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PAUSED,
    EXECUTION_TERMINATED,
    SUB_AGENT_CANCELLED,
    SUB_AGENT_COMPLETED,
    SUB_AGENT_FAILED,
    SUB_AGENT_IN_PROGRESS,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_FAILED,
    TOOL_CALL_INTERRUPTED,
    TOOL_CALL_PENDING,
    TOOL_CALL_RUNNING,
    TOOL_CALL_SKIPPED,
    TOOL_CALL_WAITING_APPROVAL,
    AgentExecution,
    AgentExecutionStatus,
    ExecutionPhase,
)
from runstream.v1.agent_execution_service_pb2 import (
    CancelAgentExecutionInput,
    GetAgentExecutionRequest,
    TerminateAgentExecutionInput,
    WatchAgentExecutionRequest,
)
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC, RESOURCE_VIEW_FULL
from tests.clock import FakeClock
from tests.making import a_running_execution, an_execution, delta, stored
from tests.serving import serving

if TYPE_CHECKING:
    from pathlib import Path

    from runstream.v1.resource_pb2 import ResourceView
    from tests.serving import Client

ENDS = {
    "completed": EXECUTION_COMPLETED,
    "failed": EXECUTION_FAILED,
    "cancelled": EXECUTION_CANCELLED,
    "terminated": EXECUTION_TERMINATED,
}


async def report_items(client: Client, execution_id: str) -> None:
    """Report an open and an ended entry of every kind, some inside a message."""
    request = delta(execution_id)
    status = request.status
    message = status.messages.add(id="m")
    message.tool_calls.add(id="inside-open", status=TOOL_CALL_RUNNING)
    message.tool_calls.add(id="inside-done", status=TOOL_CALL_COMPLETED)
    status.tool_calls.add(id="silent")
    status.tool_calls.add(id="pending", status=TOOL_CALL_PENDING)
    status.tool_calls.add(id="running", status=TOOL_CALL_RUNNING)
    status.tool_calls.add(id="asking", status=TOOL_CALL_WAITING_APPROVAL)
    status.tool_calls.add(id="done", status=TOOL_CALL_COMPLETED, completed_at="2026-01-01T00:00:00.000Z")
    status.tool_calls.add(id="failed", status=TOOL_CALL_FAILED)
    status.tool_calls.add(id="skipped", status=TOOL_CALL_SKIPPED)
    status.sub_agent_executions.add(id="working", status=SUB_AGENT_IN_PROGRESS)
    status.sub_agent_executions.add(id="silent")
    status.sub_agent_executions.add(id="done", status=SUB_AGENT_COMPLETED)
    status.sub_agent_executions.add(id="failed", status=SUB_AGENT_FAILED)
    await client.executions.UpdateStatus(request)


def assert_settled(execution: AgentExecution) -> None:
    """Check that what `report_items` left open is closed at the time of the end, and the rest as it was."""
    status, ended = execution.status, execution.status.completed_at
    interrupted = (TOOL_CALL_INTERRUPTED, ended)
    assert ended
    assert {call.id: (call.status, call.completed_at) for call in status.tool_calls} == {
        "silent": interrupted,
        "pending": interrupted,
        "running": interrupted,
        "asking": interrupted,
        "done": (TOOL_CALL_COMPLETED, "2026-01-01T00:00:00.000Z"),
        "failed": (TOOL_CALL_FAILED, ""),
        "skipped": (TOOL_CALL_SKIPPED, ""),
    }
    assert {call.id: (call.status, call.completed_at) for call in status.messages[0].tool_calls} == {
        "inside-open": interrupted,
        "inside-done": (TOOL_CALL_COMPLETED, ""),
    }
    assert {agent.id: (agent.status, agent.completed_at) for agent in status.sub_agent_executions} == {
        "working": (SUB_AGENT_CANCELLED, ended),
        "silent": (SUB_AGENT_CANCELLED, ended),
        "done": (SUB_AGENT_COMPLETED, ""),
        "failed": (SUB_AGENT_FAILED, ""),
    }


@pytest.mark.parametrize("end", ENDS)
async def test_what_is_open_is_closed_when_a_runner_ends_it(client: Client, end: str) -> None:
    """Tool calls still open, nested ones too, become INTERRUPTED and sub-agents CANCELLED, with the end's time."""
    execution_id = await a_running_execution(client)
    await report_items(client, execution_id)
    answer = await client.executions.UpdateStatus(delta(execution_id, phase=ENDS[end]))
    assert_settled(answer)
    assert await stored(client, execution_id) == answer


async def test_what_is_open_is_closed_by_terminate(client: Client) -> None:
    """Terminate closes what the runner left open."""
    execution_id = await a_running_execution(client)
    await report_items(client, execution_id)
    answer = await client.executions.Terminate(TerminateAgentExecutionInput(id=execution_id))
    assert_settled(answer)


async def test_what_is_open_is_closed_by_cancel(client: Client) -> None:
    """Cancel of a paused execution ends it at once and closes what the runner left open."""
    execution_id = await a_running_execution(client)
    await report_items(client, execution_id)
    await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_PAUSED))
    answer = await client.executions.Cancel(CancelAgentExecutionInput(id=execution_id))
    assert answer.status.phase == EXECUTION_CANCELLED
    assert_settled(answer)


async def test_what_the_last_delta_closes_stays_as_it_says(client: Client) -> None:
    """An entry that the terminal delta itself ends is not closed over."""
    execution_id = await a_running_execution(client)
    first = delta(execution_id)
    first.status.messages.add(id="m").tool_calls.add(id="n", status=TOOL_CALL_RUNNING)
    first.status.tool_calls.add(id="t", status=TOOL_CALL_RUNNING)
    first.status.sub_agent_executions.add(id="s", status=SUB_AGENT_IN_PROGRESS)
    await client.executions.UpdateStatus(first)
    last = delta(execution_id, phase=EXECUTION_COMPLETED)
    last.status.messages.add(id="m", content_append="done").tool_calls.add(id="n", status=TOOL_CALL_SKIPPED)
    last.status.tool_calls.add(id="t", status=TOOL_CALL_COMPLETED, result="42")
    last.status.sub_agent_executions.add(id="s", status=SUB_AGENT_FAILED, error="lost")
    status = (await client.executions.UpdateStatus(last)).status
    assert status.messages[0].content == "done"
    assert status.messages[0].tool_calls[0].status == TOOL_CALL_SKIPPED
    assert (status.tool_calls[0].status, status.tool_calls[0].result) == (TOOL_CALL_COMPLETED, "42")
    assert (status.sub_agent_executions[0].status, status.sub_agent_executions[0].error) == (SUB_AGENT_FAILED, "lost")


async def test_what_the_last_delta_opens_is_closed(client: Client) -> None:
    """An entry that comes with the terminal delta and is open there is closed by it, in one revision."""
    execution_id = await an_execution(client)
    last = delta(execution_id, phase=EXECUTION_FAILED)
    last.status.tool_calls.add(id="t", name="read", status=TOOL_CALL_RUNNING)
    last.status.messages.add(id="m", content_append="x").tool_calls.add(id="n")
    answer = await client.executions.UpdateStatus(last)
    assert answer.metadata.revision == 2
    (call,) = answer.status.tool_calls
    (message,) = answer.status.messages
    assert (call.name, call.status) == ("read", TOOL_CALL_INTERRUPTED)
    assert (message.content, message.tool_calls[0].status) == ("x", TOOL_CALL_INTERRUPTED)


async def test_a_list_the_last_delta_replaces_is_not_brought_back(client: Client) -> None:
    """What the terminal delta removes by `replace_mask` is gone, and what it puts there is closed."""
    execution_id = await a_running_execution(client)
    await report_items(client, execution_id)
    last = delta(execution_id, phase=EXECUTION_COMPLETED, replace=("tool_calls", "sub_agent_executions"))
    last.status.tool_calls.add(id="new", status=TOOL_CALL_RUNNING)
    status = (await client.executions.UpdateStatus(last)).status
    assert [(call.id, call.status) for call in status.tool_calls] == [("new", TOOL_CALL_INTERRUPTED)]
    assert not status.sub_agent_executions


async def test_the_watched_change_holds_what_was_closed(client: Client) -> None:
    """A subscriber that folds the changes sees the closing too: it is part of the terminal delta."""
    execution_id = await a_running_execution(client)
    await report_items(client, execution_id)
    await client.executions.Terminate(TerminateAgentExecutionInput(id=execution_id))
    watch = client.queries.Watch(WatchAgentExecutionRequest(execution_id=execution_id, after_revision=3))
    (change,) = [change async for change in watch]
    closed = {call.id for call in change.status.tool_calls}
    assert change.terminal
    assert closed == {"silent", "pending", "running", "asking"}


async def test_started_at_is_the_first_time_at_work(tmp_path: Path) -> None:
    """`started_at` is set by the first IN_PROGRESS and stays through pauses; `completed_at` only at the end."""
    clock = FakeClock()
    async with serving(tmp_path / "data", clock) as running:
        execution_id = await an_execution(running.client)
        times = []
        for phase in (EXECUTION_IN_PROGRESS, EXECUTION_PAUSED, EXECUTION_IN_PROGRESS, EXECUTION_COMPLETED):
            clock.advance(10)
            answer = await running.client.executions.UpdateStatus(delta(execution_id, phase=phase))
            times.append((answer.status.started_at, answer.status.completed_at))
            if phase == EXECUTION_COMPLETED:
                assert answer.status.completed_at == to_rfc3339(clock.now())
    begun = "2026-03-01T12:00:10.000Z"
    assert times == [(begun, ""), (begun, ""), (begun, ""), (begun, "2026-03-01T12:00:40.000Z")]


async def test_an_execution_that_never_began_has_no_start(client: Client) -> None:
    """An execution that ends while it is PENDING has an end and no start."""
    execution_id = await an_execution(client)
    answer = await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_FAILED))
    assert answer.status.started_at == ""
    assert answer.status.completed_at != ""


@pytest.mark.parametrize(
    ("phase", "reason"),
    [
        (EXECUTION_COMPLETED, ""),
        (EXECUTION_FAILED, "AGENT_FAILED"),
        (EXECUTION_CANCELLED, "CANCELLED"),
        (EXECUTION_TERMINATED, "TERMINATED"),
    ],
)
async def test_an_end_without_a_reason_is_given_one(
    client: Client, phase: ExecutionPhase.ValueType, reason: str
) -> None:
    """Every end but COMPLETED has a stable reason, the runner's own if it gives one."""
    given, silent = await a_running_execution(client, agent="given"), await a_running_execution(client, agent="silent")
    own = await client.executions.UpdateStatus(delta(given, AgentExecutionStatus(reason="OUT_OF_PAPER"), phase=phase))
    default = await client.executions.UpdateStatus(delta(silent, phase=phase))
    assert own.status.reason == "OUT_OF_PAPER"
    assert default.status.reason == reason


async def test_a_reason_given_earlier_is_kept_unless_it_is_replaced(client: Client) -> None:
    """The reason so far is that of the end too; one that the last delta replaces makes way for the default."""
    kept, replaced = await a_running_execution(client, agent="kept"), await a_running_execution(client, agent="gone")
    for execution_id in (kept, replaced):
        await client.executions.UpdateStatus(delta(execution_id, AgentExecutionStatus(reason="RATE_LIMITED")))
    first = await client.executions.UpdateStatus(delta(kept, phase=EXECUTION_FAILED))
    second = await client.executions.UpdateStatus(delta(replaced, phase=EXECUTION_FAILED, replace=("reason",)))
    assert first.status.reason == "RATE_LIMITED"
    assert second.status.reason == "AGENT_FAILED"


@pytest.mark.parametrize("view", [RESOURCE_VIEW_BASIC, RESOURCE_VIEW_FULL])
async def test_the_audit_trail_tells_who_ended_it_and_how(client: Client, view: ResourceView.ValueType) -> None:
    """The status audit names the command that changed the status last."""
    execution_id = await an_execution(client)
    events = []
    await client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_IN_PROGRESS))
    for _ in range(2):
        status = (await client.queries.Get(GetAgentExecutionRequest(value=execution_id, view=view))).status
        events.append(status.audit.status_audit.event)
        assert status.audit.spec_audit.event == "created"
        await client.executions.Terminate(TerminateAgentExecutionInput(id=execution_id))
    assert events == ["status_updated", "terminated"]
